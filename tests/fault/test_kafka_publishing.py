"""Bad days of publishing on real Kafka: whatever happens, every event of every run arrives, and each run's in its order."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiokafka import ConsumerRecord
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary

from behest.event.v1 import event_pb2
from behest.session.v1 import journal_service_pb2 as journal_pb
from chassis.faults import KafkaAccessRefused, KafkaUnavailable, SettingsInvalid
from chassis.kafka.publisher import KafkaPublisher, open_publisher
from chassis.kafka.publishing import Record
from chassis.kafka.settings import KafkaSettings
from chassis.kafka.topics import apply_topics, check_topics
from chassis.world import SystemClock
from kit.kafka import KafkaCluster, missing
from kit.kafka_secured import PASSWORD, USER, open_secured_kafka
from kit.outbox import Outbox, open_outbox
from kit.publishing import by_run, first_ids
from kit.store import ending, event, opening
from session_store.adapters.sqlite.storage import open_sqlite_storage

Private = Callable[..., contextlib.AbstractAsyncContextManager[KafkaCluster]]


def settings_for(servers: str, topic: str = "behest.runs", **values: Any) -> KafkaSettings:
    """Settings with a runs topic of the test's own."""
    topics = {"runs": {"name": topic, "partitions": 3}}
    return KafkaSettings.model_validate({"bootstrap_servers": servers, "topics": topics, **values})


@contextlib.asynccontextmanager
async def open_publishing(folder: Path, kafka: KafkaSettings) -> AsyncIterator[tuple[Outbox, KafkaPublisher]]:
    """A store on a file that publishes to Kafka."""
    async with (
        open_publisher(kafka, SystemClock(), "test") as publisher,
        open_sqlite_storage(str(folder / "store.db"), "normal") as storage,
        open_outbox(storage, publisher, kafka) as store,
    ):
        yield store, publisher


def ids_of(records: Iterable[ConsumerRecord]) -> list[str]:
    return [dict(record.headers)["ce_id"].decode() for record in records]


async def all_of(cluster: KafkaCluster, topic: str, ids: Iterable[str]) -> list[ConsumerRecord]:
    """The topic's records once these ids are among them."""
    wanted = set(ids)
    return await cluster.records_when(topic, lambda records: wanted <= set(ids_of(records)), 60)


def check_order(records: Iterable[ConsumerRecord], ids: Iterable[str]) -> None:
    """Everything is there, and who drops what it saw before reads each run without a gap."""
    found = first_ids(ids_of(records))
    assert sorted(found) == sorted(set(ids))
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in by_run(found).values())


async def problem_of(store: Outbox) -> str:
    """What the store says is in the way, as soon as something is."""
    return (await store.until(lambda standing: bool(standing.problem))).problem


@pytest.mark.feature("E2")
async def test_every_event_of_every_run_arrives_once_in_order_and_as_a_cloudevent(kafka: KafkaCluster, tmp_path: Path) -> None:
    topic = await kafka.create_topic(kafka.topic("runs"), partitions=3)
    async with open_publishing(tmp_path, settings_for(kafka.bootstrap_servers, topic)) as (store, _):
        ids = await store.write_many(30, sessions=9)
        records = await all_of(kafka, topic, ids)
        assert sorted(ids_of(records)) == sorted(ids), "nothing went wrong, so nothing is there twice"
        check_order(records, ids)
        stored = {f"{e.run_id}/{e.sequence}": e for e in await read_logs(store, {id_.split("/")[0] for id_ in ids})}
    for record in records:
        assert event_pb2.Event.FromString(record.value) == stored[dict(record.headers)["ce_id"].decode()]
        read = from_binary(KafkaMessage(dict(record.headers), record.key, record.value), AsItIs())  # type: ignore[arg-type]
        assert (read.get_id(), record.key.decode()) == (dict(record.headers)["ce_id"].decode(), read.get_extension("session"))


class AsItIs:
    def read_data(self, body: bytes, datacontenttype: str | None) -> bytes:
        return body


async def read_logs(store: Outbox, runs: Iterable[str]) -> list[event_pb2.Event]:
    """The events of runs as followers get them."""
    calls = [store.journal.Follow(journal_pb.FollowRequest(run_id=run, replay_only=True)) for run in runs]
    return [each for call in calls async for response in call for each in response.events]


@pytest.mark.feature("E2")
async def test_a_broker_that_is_killed_and_comes_back_loses_nothing(private_kafka: Private, tmp_path: Path) -> None:
    async with private_kafka() as cluster:
        topic = await cluster.create_topic("runs", partitions=3)
        async with open_publishing(tmp_path, settings_for(cluster.bootstrap_servers, topic)) as (store, _):
            before = await store.write("before", "s1")
            await all_of(cluster, topic, before)
            cluster.brokers[0].kill()
            during = await store.write_many(20, sessions=5)
            await problem_of(store)
            cluster.brokers[0].start()
            await cluster.serving()
            after = await store.write("after", "s1")
            records = await all_of(cluster, topic, before + during + after)
            check_order(records, before + during + after)
            await store.until_published()
            assert not (await store.standing()).problem


@pytest.mark.feature("E2")
async def test_of_three_brokers_one_may_die_at_any_time(private_kafka: Private, tmp_path: Path) -> None:
    async with private_kafka(3) as cluster:
        topic = await cluster.create_topic("runs", partitions=6)
        async with open_publishing(tmp_path, settings_for(cluster.bootstrap_servers, topic)) as (store, _):
            await store.write("first", "s1")
            await store.until_published()
            writing = asyncio.gather(*(store.write(f"r{n}", f"s{n}", appends=8) for n in range(12)))
            cluster.brokers[0].kill()
            ids = [id_ for ids in await writing for id_ in ids]
            await store.until_published(60)
            cluster.brokers[0].start()
            await cluster.serving()
            records = await cluster.records(topic)
            assert set(ids) <= set(ids_of(records))
            check_order(records, ids_of(records))


@pytest.mark.feature("E2")
async def test_a_frozen_broker_delays_and_loses_nothing(private_kafka: Private, tmp_path: Path) -> None:
    async with private_kafka() as cluster:
        topic = await cluster.create_topic("runs", partitions=3)
        async with open_publishing(tmp_path, settings_for(cluster.bootstrap_servers, topic)) as (store, _):
            await all_of(cluster, topic, first := await store.write("r1", "s1"))
            cluster.brokers[0].pause()
            second = await store.write("r2", "s1")
            await asyncio.sleep(0.5)  # what was sent now waits in the broker's sockets
            cluster.brokers[0].resume()
            check_order(await all_of(cluster, topic, first + second), first + second)


@pytest.mark.feature("E2")
async def test_runs_go_on_while_kafka_is_away_from_the_start_and_are_all_there_when_it_comes(
    private_kafka: Private, tmp_path: Path
) -> None:
    async with private_kafka() as cluster:
        topic = await cluster.create_topic("runs", partitions=3)
        cluster.brokers[0].stop()
        with structlog.testing.capture_logs() as logs:
            async with open_publishing(tmp_path, settings_for(cluster.bootstrap_servers, topic)) as (store, publisher):
                ids = await store.write_many(40, sessions=10, appends=6)
                assert "start it, or correct kafka.bootstrap_servers" in await problem_of(store)
                async with asyncio.timeout(20):
                    while publisher.tries < 4:
                        await asyncio.sleep(0.05)
                standing = await store.standing()
                assert standing.published_number == 0 and standing.last_number == 40 * 8
                cluster.brokers[0].start()
                await cluster.serving()
                check_order(await all_of(cluster, topic, ids), ids)
    told = Counter(line["problem"] for line in logs if line["event"] == "publishing to Kafka waits")
    assert told and set(told.values()) == {1}, "each cause is said once, not at each try"
    assert [line["event"] for line in logs].count("publishing to Kafka goes on") == 1


@pytest.mark.feature("E2")
async def test_a_store_that_stops_while_kafka_is_away_goes_on_when_both_are_back(private_kafka: Private, tmp_path: Path) -> None:
    async with private_kafka() as cluster:
        topic = await cluster.create_topic("runs", partitions=3)
        settings = settings_for(cluster.bootstrap_servers, topic)
        cluster.brokers[0].stop()
        async with asyncio.timeout(20), open_publishing(tmp_path, settings) as (store, _):
            ids = await store.write_many(5)
            await problem_of(store)
        cluster.brokers[0].start()
        await cluster.serving()
        async with open_publishing(tmp_path, settings):
            records = await all_of(cluster, topic, ids)
        check_order(records, ids)


@pytest.mark.feature("E2")
async def test_a_missing_topic_is_named_with_the_command_that_creates_it(kafka: KafkaCluster, tmp_path: Path) -> None:
    settings = settings_for(kafka.bootstrap_servers, kafka.topic("runs"))
    async with open_publishing(tmp_path, settings) as (store, _):
        ids = await store.write("r1", "s1")
        assert await problem_of(store) == (
            f"Kafka has no topic {settings.topics.runs.name}; create it with `behest topics apply`, or correct kafka.topics"
        )
        await kafka.create_topic(settings.topics.runs.name, partitions=3)
        check_order(await all_of(kafka, settings.topics.runs.name, ids), ids)
        await store.until_published()


@pytest.mark.feature("E2")
@pytest.mark.parametrize(("topic_takes", "we_think"), [(200_000, 100_000), (100_000, 1_000_000)])
async def test_an_event_too_large_for_the_topic_goes_without_its_data_and_holds_nothing_up(
    kafka: KafkaCluster, tmp_path: Path, topic_takes: int, we_think: int
) -> None:
    topic = await kafka.create_topic(kafka.topic("runs"), partitions=1, max_message_bytes=str(topic_takes))
    async with open_publishing(tmp_path, settings_for(kafka.bootstrap_servers, topic, max_message_bytes=we_think)) as (store, _):
        await store.journal.OpenRun(opening("r1", "s1", driver_id="d1"))
        large = event("r1", 3, session_id="s1", kind="tool_call_completed")
        large.tool_call_completed.call.arguments = b"x" * 300_000
        around = [event("r1", sequence, session_id="s1", kind="tool_execution_started") for sequence in (2, 4)]
        events = [around[0], large, around[1]]
        await store.journal.Append(journal_pb.AppendRequest(run_id="r1", driver_id="d1", epoch=1, expected_sequence=1, events=events))
        await store.journal.Append(ending("r1", "d1", 4, session_id="s1"))
        records = await all_of(kafka, topic, [f"r1/{sequence}" for sequence in range(1, 6)])
        check_order(records, ids_of(records))
        (poor,) = (record for record in records if record.value is None)
        headers = dict(poor.headers)
        assert (headers["ce_id"], headers["ce_type"]) == (b"r1/3", b"dev.behest.tool_call.completed.v1")
        assert int(headers["ce_omittedbytes"]) > 300_000
        method, _, query = headers["ce_dataref"].decode().partition("?")
        assert (method, query) == ("/behest.session.v1.JournalService/Follow", "run_id=r1")
        (read,) = [each for each in await read_logs(store, ["r1"]) if each.sequence == 3]
        assert read.tool_call_completed.call.arguments == b"x" * 300_000


@pytest.mark.feature("E2")
async def test_two_stores_on_one_file_share_the_work(kafka: KafkaCluster, tmp_path: Path) -> None:
    topic = await kafka.create_topic(kafka.topic("runs"), partitions=3)
    settings = settings_for(kafka.bootstrap_servers, topic)
    async with open_publishing(tmp_path, settings) as (one, _):
        first = await one.write("first", "s1")
        await all_of(kafka, topic, first)
        await one.until_published()
        async with open_publishing(tmp_path, settings) as (two, _):
            ids = first + await two.write_many(8)
            await all_of(kafka, topic, ids)
        last = await one.write("last", "s1")
        records = await all_of(kafka, topic, ids + last)
    check_order(records, ids + last)
    assert len(records) == len(ids + last), "both were there all the time, so nothing was published twice"


@pytest.mark.feature("E2")
async def test_publishing_that_is_cancelled_loses_and_reorders_nothing(kafka: KafkaCluster) -> None:
    topic = await kafka.create_topic(kafka.topic("t"), partitions=3)
    records = [Record(topic, b"k%d" % (n % 5), b"%d" % n, [("ce_id", b"r%d/%d" % (n % 5, n // 5 + 1))]) for n in range(500)]
    async with open_publisher(settings_for(kafka.bootstrap_servers), SystemClock(), "test") as publisher:
        for patience in (0.0, 0.001, 0.002, 0.005, 0.01):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await publisher.publish(records)
        await publisher.publish(records)
    check_order(await kafka.records(topic), ids_of(records))  # type: ignore[arg-type]


@pytest.mark.feature("E2")
async def test_what_is_published_after_a_cancelled_call_is_not_taken_for_its_repetition(kafka: KafkaCluster) -> None:
    topic = await kafka.create_topic(kafka.topic("t"))
    first, second, third = ([Record(topic, b"k", b"%d %d" % (each, n), [("ce_id", b"x")]) for n in range(5)] for each in range(3))
    async with open_publisher(settings_for(kafka.bootstrap_servers), SystemClock(), "test") as publisher:
        await publisher.publish(first)
        cancelled = asyncio.create_task(publisher.publish(second))
        while not publisher._producer._in_flight:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the request is on its way
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await publisher.publish(third)
    values = [record.value for record in await kafka.records(topic)]
    assert {record.value for record in third} <= set(values), "the broker took them for those of the cancelled call"


@pytest.mark.feature("E2")
async def test_records_of_several_callers_at_once_are_all_kept(kafka: KafkaCluster) -> None:
    topic = await kafka.create_topic(kafka.topic("t"), partitions=3)
    runs = [[Record(topic, b"%d" % run, b"x", [("ce_id", b"r%d/%d" % (run, n))]) for n in range(1, 40)] for run in range(8)]
    async with open_publisher(settings_for(kafka.bootstrap_servers), SystemClock(), "test") as publisher:
        await asyncio.gather(*map(publisher.publish, runs))
    found = await kafka.records(topic)
    assert len(found) == 8 * 39
    check_order(found, [dict(record.headers)["ce_id"].decode() for run in runs for record in run])


@pytest.mark.feature("E2")
@pytest.mark.skipif(bool(missing()), reason=missing() or "there")
async def test_who_may_not_publish_is_told_which_right_is_missing_and_goes_on_when_it_has_it(tmp_path: Path) -> None:
    async with open_secured_kafka(tmp_path / "kafka") as kafka:
        topic = await kafka.cluster.create_topic("runs", partitions=3)
        security = {"username": USER, "password": PASSWORD, "mechanism": "PLAIN"}
        async with open_publishing(tmp_path, settings_for(kafka.secured, topic, security=security)) as (store, publisher):
            ids = await store.write("r1", "s1")
            assert "grant app Describe and Write on topics runs" in await problem_of(store)
            assert isinstance(publisher.problem, KafkaAccessRefused) and PASSWORD not in publisher.problem.message
            await kafka.allow(USER)
            check_order(await all_of(kafka.cluster, topic, ids), ids)


@pytest.mark.feature("E2")
@pytest.mark.skipif(bool(missing()), reason=missing() or "there")
async def test_a_wrong_password_is_said_to_be_that_and_never_shown(tmp_path: Path) -> None:
    async with open_secured_kafka(tmp_path / "kafka") as kafka:
        security = {"username": USER, "password": "battery-staple", "mechanism": "PLAIN"}
        with pytest.raises(KafkaAccessRefused, match=r"refuses who we are.*Authentication failed") as refused:
            await check_topics(settings_for(kafka.secured, security=security))
        assert "battery-staple" not in refused.value.message
        with pytest.raises(KafkaAccessRefused, match=r"does not let app create the topic .*; grant it Create on the cluster"):
            await apply_topics(settings_for(kafka.secured, security={**security, "password": PASSWORD}))


@pytest.mark.feature("E2")
async def test_topics_are_created_once_as_set_and_differences_are_told_not_mended(kafka: KafkaCluster) -> None:
    def settings(partitions: int, hours: float, **values: Any) -> KafkaSettings:
        topics = {
            purpose: {"name": kafka.topic(purpose), "partitions": partitions, "retention_hours": hours}
            for purpose in KafkaSettings().topics.by_purpose()
        }
        return KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": topics, **values})

    small = settings(2, 12.5)
    assert [(each.good, each.text) for each in await check_topics(small)] == 5 * [(False, "missing")]
    assert [(each.good, each.text) for each in await apply_topics(small)] == 5 * [(True, "created")]
    assert [(each.good, each.text) for each in await apply_topics(small)] == 5 * [(True, "as set")]
    found = await apply_topics(settings(3, 24, deltas=True, max_message_bytes=2_000_000))
    texts = {each.purpose: each.text for each in found}
    assert texts.pop("deltas") == "created", "the topic of deltas is made when they are published"
    assert set(texts.values()) == {
        "has 2 partitions, the settings say 3; keeps records 12.5 h, the settings say 24 h; "
        "takes 1000512 bytes, kafka.max_message_bytes is 2000000"
    }
    assert [each.text for each in await check_topics(small)] == 5 * ["as set"]


@pytest.mark.feature("E2")
async def test_more_copies_than_brokers_are_refused_with_the_setting_to_change(kafka: KafkaCluster) -> None:
    settings = settings_for(kafka.bootstrap_servers, kafka.topic("runs"), replication=50)
    with pytest.raises(SettingsInvalid, match=r"cannot have 50 copies.*lower kafka\.replication"):
        await apply_topics(settings)


@pytest.mark.feature("E2")
async def test_topics_of_brokers_that_are_away_are_not_judged() -> None:
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1 cannot be used"):
        await check_topics(settings_for("127.0.0.1:1"))


@pytest.mark.feature("X6")
async def test_the_reader_that_is_shown_reads_each_event_once(
    kafka: KafkaCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = await kafka.create_topic(kafka.topic("runs"), partitions=2)
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    (code,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.S) if "AIOKafkaConsumer" in text)
    names: dict[str, Any] = {}
    exec(code, names)
    async with open_publishing(tmp_path, settings_for(kafka.bootstrap_servers, topic)) as (store, publisher):
        ids = await store.write_many(6, sessions=2)
        records = await all_of(kafka, topic, ids)
        again = [Record(topic, each.key, each.value, list(each.headers)) for each in records[:20]]
        await publisher.publish(again)
    reading = asyncio.create_task(names["read"](topic, kafka.bootstrap_servers))
    shown: list[str] = []
    async with asyncio.timeout(30):
        while len(shown) < len(ids):
            await asyncio.sleep(0.05)
            shown += [line for line in capsys.readouterr().out.splitlines() if " dev.behest." in line]
    reading.cancel()
    await asyncio.wait([reading])
    assert sorted(line.split()[0] + "/" + line.split()[1] for line in shown) == sorted(ids)
