"""What is sent to Kafka: settings, CloudEvents that others' code reads, and batches that say each thing once."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition, errors
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.memory_records import MemoryRecords
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import KafkaAccessRefused, KafkaUnavailable, SettingsInvalid, TopicMissing
from chassis.kafka.client import client_options, explained
from chassis.kafka.cloud_events import event_type, omission_headers, own_headers, rfc3339, shared_headers, source_of
from chassis.kafka.lanes import Identity, Lane
from chassis.kafka.producer import _hash
from chassis.kafka.publishing import Record
from chassis.kafka.settings import KafkaSettings
from chassis.settings import load

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PLACE = TopicPartition("t", 0)
KAFKA = KafkaSettings(bootstrap_servers="k:9092")


class Protobuf:
    """A format for the oracle that leaves data as it is."""

    def read_data(self, body: bytes | None, datacontenttype: str | None) -> bytes | None:
        return body


def read_by_the_sdk(headers: list[tuple[str, bytes]], value: bytes | None, key: bytes | None = None) -> Any:
    """The event as the CloudEvents project's own code reads it, checked as it checks."""
    return from_binary(KafkaMessage(dict(headers), key, value), Protobuf())  # type: ignore[arg-type]


@pytest.mark.feature("E3")
def test_the_cloudevents_sdk_reads_every_attribute() -> None:
    shared = shared_headers(source_of("session-store", "acme"), "behest.event.v1.Event", "runs/r1", "acme", "s1")
    own = own_headers("r1/7", event_type("run_completed").encode(), rfc3339(1_700_000_000, 5_000), TRACE)
    event = read_by_the_sdk([*shared, *own], b"data", b"s1")
    assert (event.get_specversion(), event.get_id(), event.get_type()) == ("1.0", "r1/7", "dev.behest.run.completed.v1")
    assert (event.get_source(), event.get_subject(), event.get_datacontenttype()) == (
        "/session-store/acme",
        "runs/r1",
        "application/protobuf",
    )
    assert event.get_dataschema() == "proto:behest.event.v1.Event"
    assert event.get_time().isoformat() == "2023-11-14T22:13:20.000005+00:00"
    assert {name: event.get_extension(name) for name in ("tenant", "session", "traceparent")} == {
        "tenant": "acme",
        "session": "s1",
        "traceparent": TRACE,
    }
    assert event.get_data() == b"data"
    assert ("traceparent", TRACE.encode()) in own, "W3C tools look for a header of that name"


@pytest.mark.feature("E3")
def test_an_event_without_its_data_says_how_large_it_was_and_where_it_is() -> None:
    shared = shared_headers(source_of("s", "t"), "m", "x", "t")
    event = read_by_the_sdk([*shared, *own_headers("1", b"t", rfc3339(0)), *omission_headers(7, "/here?run_id=r")], None)
    assert (event.get_extension("omittedbytes"), event.get_extension("dataref"), event.get_data()) == ("7", "/here?run_id=r", None)


@pytest.mark.parametrize(("kind", "type_"), [("run_completed", "run.completed"), ("tool_call_delta", "tool_call.delta")])
def test_a_type_is_a_noun_and_what_became_of_it(kind: str, type_: str) -> None:
    assert event_type(kind) == f"dev.behest.{type_}.v1"


def test_a_source_tells_tenants_apart_whatever_they_are_called() -> None:
    assert len({source_of("s", tenant) for tenant in ("a", "a/b", "a%2Fb", "ä", "")}) == 5
    assert source_of("s", "a b/c") == "/s/a%20b%2Fc"


@pytest.mark.feature("O1")
def test_kafka_is_off_until_brokers_are_named() -> None:
    assert not load("kafka", KafkaSettings, env={}).on
    assert load("kafka", KafkaSettings, env={"BEHEST__KAFKA__BOOTSTRAP_SERVERS": "a:1, [::1]:2"}).bootstrap_servers == "a:1,[::1]:2"


@pytest.mark.feature("O1")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kafka: {bootstrap: x}", "kafka.bootstrap: unknown key; did you mean bootstrap_servers"),
        ("kafka: {bootstrap_servers: broker}", "'broker' is not host:port"),
        ("kafka: {topics: {rums: {}}}", "did you mean runs"),
        ("kafka: {topics: {runs: {name: 'a b'}}}", "must be 1 to 249"),
        ("kafka: {topics: {runs: {name: behest.deltas}}}", "runs and deltas are both named behest.deltas"),
        ("kafka: {security: {username: me}}", "username and password go together"),
        ("kafka: {security: {ca_file: /x}}", "ca_file has no effect without tls"),
        ("kafka: {security: {tls: true, key_file: /x}}", "key_file needs certificate_file"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(SettingsInvalid, match=says):
        load("kafka", KafkaSettings, tmp_path / "b.yaml", env={})


def test_a_topic_keeps_its_other_defaults_when_one_key_is_set() -> None:
    topics = KafkaSettings.model_validate({"topics": {"deltas": {"partitions": 3}}}).topics
    assert (topics.deltas.name, topics.deltas.partitions, topics.deltas.retention_hours) == ("behest.deltas", 3, 24)


@pytest.mark.feature("P21")
def test_the_password_is_read_from_where_it_is_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "geheim")
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": "k:1", "security": {"username": "u", "password": "env:KAFKA_PASSWORD", "mechanism": "PLAIN"}}
    )
    options = client_options(settings)
    assert (options["security_protocol"], options["sasl_plain_password"], options["sasl_mechanism"]) == (
        "SASL_PLAINTEXT",
        "geheim",
        "PLAIN",
    )
    assert "geheim" not in repr(settings)
    monkeypatch.delenv("KAFKA_PASSWORD")
    with pytest.raises(SettingsInvalid, match="KAFKA_PASSWORD is not set"):
        client_options(settings)


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    settings = KafkaSettings.model_validate({"bootstrap_servers": "k:1", "security": {"tls": True, "ca_file": str(tmp_path / "none.pem")}})
    with pytest.raises(SettingsInvalid, match=r"kafka\.security: the certificates cannot be used"):
        client_options(settings)


@pytest.mark.parametrize(
    ("error", "fault", "says"),
    [
        (errors.UnknownTopicOrPartitionError("behest.runs"), TopicMissing, "behest.runs.*behest topics apply"),
        (errors.TopicAuthorizationFailedError("behest.runs"), KafkaAccessRefused, r"grant me Describe and Write on topics behest\.runs"),
        (errors.ClusterAuthorizationFailedError(), KafkaAccessRefused, "IdempotentWrite"),
        (errors.SaslAuthenticationFailed("no"), KafkaAccessRefused, r"correct kafka\.security"),
        (ssl.SSLError(1, "certificate verify failed"), KafkaAccessRefused, "certificate verify failed"),
        (ConnectionRefusedError(111, "Connection refused"), KafkaUnavailable, r"k:9092.*Connection refused"),
        (errors.RequestTimedOutError(), KafkaUnavailable, "no answer within 10 s"),
    ],
)
def test_each_failure_says_what_to_do(error: Exception, fault: type[Exception], says: str) -> None:
    settings = KafkaSettings.model_validate({"bootstrap_servers": "k:9092", "security": {"username": "me", "password": "p"}})
    with pytest.raises(fault, match=says):
        raise explained(error, settings)


def lane(*values: bytes | None) -> Lane:
    return Lane(PLACE, [Record("t", b"k", value, [("ce_id", b"%d" % index)], "/there") for index, value in enumerate(values)])


def read_batch(data: bytes) -> list[tuple[str, bytes | None, dict[str, bytes]]]:
    """The records as a consumer reads them: id, value, the other headers."""
    batches = MemoryRecords(data)
    found = []
    while batches.has_next():
        for record in batches.next_batch():
            headers = dict(record.headers)
            found.append((headers.pop("ce_id").decode(), record.value, headers))
    return found


def drain(own: Lane, identity: Identity, limit: int = 100_000) -> list[list[tuple[str, bytes | None, dict[str, bytes]]]]:
    """All batches of a lane, each acknowledged."""
    batches = []
    while not own.finished:
        batches.append(read_batch(own.next_batch(identity, limit, 1.0).data))
        assert own.settle(0, identity)
    return batches


@pytest.mark.feature("E2")
@given(st.lists(st.binary(max_size=400), max_size=30), st.integers(300, 2000))
def test_whatever_fits_into_a_batch_each_record_goes_once_and_in_order(values: list[bytes], limit: int) -> None:
    batches = drain(lane(*values), Identity(1, 0), limit)
    assert [id_ for batch in batches for id_, _, _ in batch] == [str(index) for index in range(len(values))]
    assert all(value is None or value == values[int(id_)] for batch in batches for id_, value, _ in batch)


@pytest.mark.feature("E2")
def test_a_batch_that_was_not_acknowledged_is_sent_again_to_the_byte() -> None:
    own, identity = lane(b"a", b"b"), Identity(1, 0)
    first = own.next_batch(identity, 10_000, 1.0)
    assert not own.settle(errors.NotLeaderForPartitionError.errno, identity)
    assert own.next_batch(identity, 10_000, 99.0) is first


@pytest.mark.feature("E2")
def test_sequences_go_on_per_partition_so_that_brokers_know_repetitions() -> None:
    identity = Identity(1, 0)
    drain(lane(b"a", b"b"), identity)
    drain(lane(b"c"), identity)
    assert identity.sequences == {PLACE: 3}


@pytest.mark.feature("E2")
def test_a_value_too_large_for_any_batch_goes_without_it_and_holds_nothing_up() -> None:
    batches = drain(lane(b"a", b"x" * 5000, b"c"), Identity(1, 0), limit=1000)
    found = {id_: (value, headers) for batch in batches for id_, value, headers in batch}
    assert found["1"] == (None, {"ce_omittedbytes": b"5000", "ce_dataref": b"/there"})
    assert (found["0"][0], found["2"][0]) == (b"a", b"c")


@pytest.mark.feature("E2")
def test_what_the_broker_finds_too_large_is_halved_until_only_the_culprit_goes_without_its_value() -> None:
    own, identity, seen = lane(b"a", b"b", b"x" * 500, b"d"), Identity(1, 0), []
    while not own.finished:
        batch = own.next_batch(identity, 10_000, 1.0)
        large = any(value == b"x" * 500 for _, value, _ in read_batch(batch.data))
        assert own.settle(errors.MessageSizeTooLargeError.errno if large else 0, identity)
        if large:
            own.batch = None  # as the producer does, under another identity
        else:
            seen += read_batch(batch.data)
    assert [(id_, value) for id_, value, _ in seen] == [("0", b"a"), ("1", b"b"), ("2", None), ("3", b"d")]
    assert seen[2][2]["ce_omittedbytes"] == b"500"


def test_a_broker_that_refuses_even_an_empty_record_is_not_satisfied() -> None:
    own, identity, satisfied = lane(b"x"), Identity(1, 0), []
    for _ in range(3):
        own.next_batch(identity, 10_000, 1.0)
        satisfied.append(own.settle(errors.MessageSizeTooLargeError.errno, identity))
        own.batch = None
    assert satisfied == [True, False, False]


@given(st.binary(max_size=60), st.integers(1, 50))
def test_a_key_goes_to_the_partition_that_kafkas_own_clients_choose(key: bytes, partitions: int) -> None:
    assert _hash(key) % partitions == DefaultPartitioner()(key, list(range(partitions)), [])
