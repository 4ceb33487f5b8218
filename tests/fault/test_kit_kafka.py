"""The Kafka of the test kit: what other tests rely on when they harm it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from kit.kafka import KafkaCluster


async def test_records_come_back_by_partition_in_order_with_key_value_and_headers(kafka: KafkaCluster) -> None:
    topic = await kafka.create_topic(kafka.topic("kit"), partitions=3)
    for number in range(6):
        await kafka.send(topic, b"%d" % number, key=b"k%d" % (number % 2), headers=[("h", b"v")])
    records = await kafka.records(topic)
    assert sorted(record.value for record in records) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert [r.value for r in records if r.key == b"k1"] == [b"1", b"3", b"5"]
    assert {record.headers for record in records} == {(("h", b"v"),)}


async def test_topics_are_not_created_by_writing_to_them(kafka: KafkaCluster) -> None:
    with pytest.raises((KafkaError, asyncio.TimeoutError)):
        async with asyncio.timeout(5):
            await kafka.send(kafka.topic("nowhere"), b"x")


async def test_what_was_acknowledged_is_there_after_a_broker_was_killed_and_started_again(private_kafka: Callable[..., Any]) -> None:
    async with private_kafka() as cluster:
        topic = await cluster.create_topic("kept")
        await cluster.send(topic, b"first")
        cluster.brokers[0].kill()
        with pytest.raises(KafkaError):
            await cluster.send(topic, b"lost")
        cluster.brokers[0].start()
        await cluster.serving()
        await cluster.send(topic, b"second")
        assert [record.value for record in await cluster.records(topic)] == [b"first", b"second"]


async def test_three_brokers_serve_on_when_one_is_killed_and_another_is_frozen_for_a_while(private_kafka: Callable[..., Any]) -> None:
    async with private_kafka(3) as cluster:
        topic = await cluster.create_topic("kept", partitions=3)
        cluster.brokers[2].kill()
        await cluster.send(topic, b"two are enough", key=b"a")
        cluster.brokers[2].start()
        await cluster.serving()
        cluster.brokers[1].pause()
        await cluster.send(topic, b"frozen", key=b"a")
        cluster.brokers[1].resume()
        await cluster.serving()
        assert [record.value for record in await cluster.records(topic)] == [b"two are enough", b"frozen"]
