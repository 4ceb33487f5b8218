"""Batches of the log as records: whole events under ids that never change, and deltas only when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary

from behest.event.v1 import event_pb2
from behest.session.v1 import journal_service_pb2 as pb
from session_store.adapters.event_records import DELTAS, EVENT_TYPES, event_records
from session_store.domain.batch import Announcement, Batch, position_of
from session_store.domain.session import RunId, SessionId, Tenant

GOLDEN = Path(__file__).parent.parent / "histories" / "event_types.txt"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def stored(*events: event_pb2.Event, first: int = 5, number: int = 77) -> Announcement:
    """Events as the store keeps them: without what all of a batch share."""
    for sequence, event in enumerate(events, first):
        event.sequence = sequence
        event.time.FromSeconds(1_700_000_000 + sequence)
    data = pb.FollowResponse(events=events).SerializeToString()
    return Announcement(Tenant("acme"), Batch(number, RunId("r1"), SessionId("s1"), first, first + len(events) - 1, data))


def of_kind(kind: str) -> event_pb2.Event:
    event = event_pb2.Event()
    getattr(event, kind).SetInParent()
    return event


@pytest.mark.feature("E3")
def test_the_types_of_events_only_ever_grow() -> None:
    """A type that is gone or renamed breaks who reads it. A new one is added to the list: tests/histories/event_types.txt."""
    assert sorted(EVENT_TYPES.values()) == GOLDEN.read_text().split()
    assert len(set(EVENT_TYPES.values())) == len(EVENT_TYPES)


@pytest.mark.feature("E2")
def test_each_event_becomes_a_record_of_its_session_with_an_id_that_never_changes() -> None:
    announcement = stored(of_kind("model_started"), of_kind("run_completed"))
    records = list(event_records(announcement, "runs", None))
    assert [(record.topic, record.key) for record in records] == [("runs", b"s1"), ("runs", b"s1")]
    assert [dict(record.headers)["ce_id"] for record in records] == [b"r1/5", b"r1/6"]
    assert [dict(record.headers)["ce_type"] for record in records] == [b"dev.behest.model.started.v1", b"dev.behest.run.completed.v1"]
    assert records == list(event_records(announcement, "runs", None))


@pytest.mark.feature("E2")
def test_the_value_is_the_event_as_followers_get_it() -> None:
    records = event_records(stored(of_kind("text_delta"), of_kind("run_completed")), "runs", "deltas")
    events = [event_pb2.Event.FromString(record.value or b"") for record in records]
    assert {(event.run_id, event.session_id, event.tenant) for event in events} == {("r1", "s1", "acme")}
    assert [(event.sequence, event.WhichOneof("kind")) for event in events] == [(5, "text_delta"), (6, "run_completed")]
    assert [event.position for event in events] == [position_of(77, 0), position_of(77, 1)]


@pytest.mark.feature("E3")
def test_the_cloudevents_sdk_reads_a_record() -> None:
    first = of_kind("model_started")
    first.traceparent = TRACE
    second = list(event_records(stored(first, of_kind("run_failed")), "runs", None))[1]

    class AsItIs:
        def read_data(self, body: bytes, datacontenttype: str | None) -> bytes:
            return body

    event = from_binary(KafkaMessage(dict(second.headers), second.key, second.value or b""), AsItIs())  # type: ignore[arg-type]
    assert (event.get_source(), event.get_id(), event.get_subject()) == ("/session-store/acme", "r1/6", "runs/r1")
    assert event.get_dataschema() == "proto:behest.event.v1.Event"
    assert event.get_extension("traceparent") == TRACE, "the trace of an event goes on until another begins"
    assert event.get_time().timestamp() == 1_700_000_006


@pytest.mark.feature("E4")
@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_deltas_go_to_their_own_topic_when_asked_for_and_everything_else_always(kind: str) -> None:
    announcement = stored(of_kind("run_started"), of_kind(kind), of_kind("run_completed"))
    asked = [record.topic for record in event_records(announcement, "runs", "deltas")]
    assert asked == ["runs", "deltas" if kind in DELTAS else "runs", "runs"]
    ids = [dict(record.headers)["ce_id"] for record in event_records(announcement, "runs", None)]
    assert ids == ([b"r1/5", b"r1/7"] if kind in DELTAS else [b"r1/5", b"r1/6", b"r1/7"])


@pytest.mark.feature("E4")
def test_deltas_are_what_the_events_that_follow_them_repeat() -> None:
    assert {"text_delta", "reasoning_delta", "tool_call_delta"} == DELTAS


def test_a_kind_of_a_newer_version_is_published_whole() -> None:
    announcement = stored(event_pb2.Event.FromString(b"\xf2\x3e\x03new"))  # field 1006
    (record,) = event_records(announcement, "runs", None)
    assert dict(record.headers)["ce_type"] == b"dev.behest.event.unknown.v1"
    assert record.value is not None and b"\xf2\x3e\x03new" in record.value
