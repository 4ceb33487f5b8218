"""The consumer group of commands: what members do when the group, Kafka or a record is not as it should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from chassis.faults import KafkaAccessRefused, KafkaUnavailable, TopicMissing
from chassis.kafka.lag import group_lag
from kit.command_orders import RecordingOrders, open_member, settings_of
from kit.kafka import KafkaCluster, missing
from kit.kafka_secured import PASSWORD, USER, open_secured_kafka
from orchestrator.adapters.kafka_commands import KafkaCommands
from suite.cli.doctor_kafka import commands_finding

GROUP, COMMANDS = "group", "commands"


async def write(kafka: KafkaCluster, *values: str, partition: int = 0, **options: Any) -> None:
    async with kafka.producer(enable_idempotence=True, **options) as producer:
        for value in values:
            await producer.send_and_wait(kafka.topic(COMMANDS), value.encode(), partition=partition)


async def committed(kafka: KafkaCluster, partition: int, offset: int) -> None:
    """Returns when the group has committed the offset; fails when it passes it."""
    found: dict[int, int] = {}
    async with asyncio.timeout(20):
        while found.get(partition, -1) < offset:
            found = await kafka.committed(kafka.topic(GROUP), kafka.topic(COMMANDS))
            await asyncio.sleep(0.02)
    assert found[partition] == offset


async def problem_of(commands: KafkaCommands) -> str:
    async with asyncio.timeout(20):
        while commands.problem is None:
            await asyncio.sleep(0.02)
    return commands.problem.reason


@pytest.fixture
async def topic(kafka: KafkaCluster) -> AsyncIterator[KafkaCluster]:
    await kafka.create_topic(kafka.topic(COMMANDS), partitions=4)
    yield kafka


@pytest.mark.feature("E5")
async def test_an_offset_is_committed_only_when_its_command_is_settled(topic: KafkaCluster) -> None:
    orders = RecordingOrders(held={"b"})
    await write(topic, "a", "b", "c")
    async with open_member(topic, orders, leave=False):
        await orders.until(asked="b")
    await write(topic, "d")
    orders.held.clear()
    async with open_member(topic, orders):
        await orders.until(admitted=4)
        await committed(topic, 0, 4)
    assert orders.admitted == ["a", "b", "c", "d"]
    assert orders.asked == ["a", "b", "a", "b", "c", "d"], "what was not committed comes again, from the first on"


@pytest.mark.feature("E5")
async def test_a_command_in_the_middle_of_a_rebalance_goes_to_whoever_has_its_partition_next(topic: KafkaCluster) -> None:
    orders = RecordingOrders(held={"p0-b", "p1-b", "p2-b", "p3-b"})
    for partition in range(4):
        await write(topic, *(f"p{partition}-{name}" for name in "abc"), partition=partition)
    async with open_member(topic, orders):
        for partition in range(4):
            await orders.until(asked=f"p{partition}-b")
        async with open_member(topic, orders) as second:
            async with asyncio.timeout(30):
                while len(await second.lag()) < 2:
                    await asyncio.sleep(0.02)
            await orders.release()
            await orders.until(admitted=12)
    for partition in range(4):
        own = [value for value in orders.admitted if value.startswith(f"p{partition}")]
        assert own == [f"p{partition}-{name}" for name in "abc"]
        await committed(topic, partition, 3)


@pytest.mark.feature("E5")
async def test_while_the_store_is_away_commands_wait_in_kafka_and_nothing_is_committed_past_them(topic: KafkaCluster) -> None:
    orders = RecordingOrders(away=True)
    async with open_member(topic, orders) as member:
        await write(topic, *(str(number) for number in range(100)))
        async with asyncio.timeout(20):
            while orders.asked.count("0") < 3 or (await member.lag()).get(0, 0) < 100:
                await asyncio.sleep(0.05)
        assert set(orders.asked) == {"0"}
        assert (await topic.committed(topic.topic(GROUP), topic.topic(COMMANDS))).get(0, 0) <= 0
        await orders.release()
        await orders.until(admitted=100)
        await committed(topic, 0, 100)
        assert orders.admitted == [str(number) for number in range(100)]
        assert (await member.lag())[0] == 0


@pytest.mark.feature("E5")
async def test_the_doctor_tells_how_many_commands_wait_and_where(topic: KafkaCluster) -> None:
    orders = RecordingOrders(held={"b"})
    await write(topic, "a", "b", "c")
    await write(topic, "d", partition=2)
    settings = settings_of(topic)
    assert (await commands_finding(settings, topic.topic(GROUP)))[1:] == (
        True,
        f"4 commands wait in {topic.topic(COMMANDS)} (3 in partition 0, 1 in partition 2)",
    )
    async with open_member(topic, orders):
        await committed(topic, 2, 1)
        await orders.until(asked="b")
    assert dict(await group_lag(settings, topic.topic(GROUP), topic.topic(COMMANDS))) == {0: 2, 1: 0, 2: 0, 3: 0}
    nowhere = await commands_finding(settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"}), "group")
    assert nowhere[1] is False and "kafka.bootstrap_servers" in nowhere[2]


@pytest.mark.feature("E5")
async def test_a_missing_topic_is_named_and_taken_up_once_it_is_there(kafka: KafkaCluster) -> None:
    orders = RecordingOrders()
    async with open_member(kafka, orders) as member:
        assert await problem_of(member) == TopicMissing.reason
        assert kafka.topic(COMMANDS) in member.problem.message  # type: ignore[union-attr]
        await kafka.create_topic(kafka.topic(COMMANDS))
        await write(kafka, "a")
        await orders.until(admitted=1)
        assert member.problem is None


@pytest.mark.feature("E5")
async def test_a_record_that_cannot_be_read_holds_up_its_partition_alone_and_nothing_is_lost(
    topic: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = RecordingOrders()
    await write(topic, "before")
    await write(topic, "zipped", compression_type="gzip")
    await write(topic, "after")
    await write(topic, "other", partition=1)
    with monkeypatch.context() as without:
        without.setattr("aiokafka.record._crecords.default_records.codecs.has_gzip", lambda: False, raising=True)
        async with open_member(topic, orders):
            await orders.until(admitted=2)
            await committed(topic, 0, 1)
            await committed(topic, 1, 1)
            await write(topic, "other too", partition=1)
            await orders.until(admitted=3)
    assert sorted(orders.admitted) == ["before", "other", "other too"]
    async with open_member(topic, orders):
        await orders.until(admitted=5)
        await committed(topic, 0, 3)


@pytest.mark.feature("E5")
async def test_a_cluster_that_is_away_at_start_is_waited_for(private_kafka: Callable[..., Any]) -> None:
    orders = RecordingOrders()
    async with private_kafka() as cluster:
        await cluster.create_topic(cluster.topic(COMMANDS))
        await write(cluster, "a")
        cluster.brokers[0].kill()
        async with open_member(cluster, orders) as member:
            assert await problem_of(member) == KafkaUnavailable.reason
            cluster.brokers[0].start()
            await orders.until(admitted=1)
            assert member.problem is None


@pytest.mark.feature("E5")
async def test_commands_go_on_when_the_broker_that_coordinates_the_group_is_killed(private_kafka: Callable[..., Any]) -> None:
    orders = RecordingOrders()
    async with private_kafka(3) as cluster:
        await cluster.create_topic(cluster.topic(COMMANDS), partitions=3)
        async with open_member(cluster, orders):
            await write(cluster, "a", "b")
            await orders.until(admitted=2)
            async with cluster.admin() as admin:
                coordinator = await admin.find_coordinator(cluster.topic(GROUP))
            cluster.brokers[coordinator - 1].kill()
            await write(cluster, "c", "d", partition=1)
            await orders.until(admitted=4)
            await committed(cluster, 1, 2)
        assert sorted(orders.admitted) == ["a", "b", "c", "d"]


@pytest.mark.feature("E5")
async def test_commands_go_on_after_their_only_broker_stood_still_for_longer_than_a_session_lasts(
    private_kafka: Callable[..., Any],
) -> None:
    orders = RecordingOrders()
    async with private_kafka() as cluster:
        await cluster.create_topic(cluster.topic(COMMANDS))
        async with open_member(cluster, orders) as member:
            await write(cluster, "a")
            await orders.until(admitted=1)
            cluster.brokers[0].pause()
            await asyncio.sleep(8)  # longer than a session: what stands still cannot tell when it is over
            cluster.brokers[0].resume()
            await write(cluster, "b")
            await orders.until(admitted=2)
            await committed(cluster, 0, 2)
        assert orders.admitted == ["a", "b"]
        assert member.problem is None


@pytest.mark.feature("E5")
@pytest.mark.skipif(bool(missing()), reason=missing() or "there")
async def test_who_may_not_read_commands_is_told_which_right_is_missing_and_goes_on_when_it_has_it(tmp_path: Path) -> None:
    orders = RecordingOrders()
    async with open_secured_kafka(tmp_path / "kafka") as kafka:
        cluster = kafka.cluster
        await cluster.create_topic(cluster.topic(COMMANDS))
        await write(cluster, "a")
        security = {"username": USER, "password": PASSWORD, "mechanism": "PLAIN"}
        async with open_member(cluster, orders, bootstrap_servers=kafka.secured, security=security) as member:
            assert await problem_of(member) == KafkaAccessRefused.reason
            assert f"grant {USER} Describe and Write on topics {cluster.topic(COMMANDS)} (Read" in member.problem.message  # type: ignore[union-attr]
            await kafka.allow(USER)
            await orders.until(admitted=1)
