"""Reads back what Kafka holds, once the relays have had time to catch up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from aiokafka import ConsumerRecord

from chaos.history import History, Record
from chaos.rules.records import kafka_holds_every_event, letters_are_settled_once
from chaos.servers import Kafka

CATCH_UP_SECONDS = 30.0
"""Within which all commands must have been settled, and everything published, after the last fault."""


async def wait_for_letters(kafka: Kafka, group: str) -> bool:
    """Waits until every command is settled, so long at most, and returns whether they are."""
    topic, until = kafka.settings.topics.commands.name, asyncio.get_running_loop().time() + CATCH_UP_SECONDS
    while True:
        ends = {record.partition: record.offset + 1 for record in await kafka.cluster.records(topic)}
        settled = await kafka.cluster.committed(group, topic)
        if all(settled.get(partition, 0) >= end for partition, end in ends.items()):
            return True
        if asyncio.get_running_loop().time() > until:
            return False
        await asyncio.sleep(0.5)


async def with_records(history: History, kafka: Kafka) -> History:
    """The history with what Kafka holds: as soon as it is all that it should hold, at the latest when time is up."""
    until = asyncio.get_running_loop().time() + CATCH_UP_SECONDS
    while True:
        history = await _read(history, kafka)
        broken = any(True for rule in (kafka_holds_every_event, letters_are_settled_once) for _ in rule(history))
        if not broken or asyncio.get_running_loop().time() > until:
            return history
        await asyncio.sleep(0.5)


async def _read(history: History, kafka: Kafka) -> History:
    topics = kafka.settings.topics
    records = tuple(map(_record, await kafka.cluster.records(topics.runs.name)))
    dead = tuple(_header(record, "ce_id") for record in await kafka.cluster.records(topics.dead_commands.name))
    return replace(history, records=records, dead_letters=dead)


def _record(record: ConsumerRecord) -> Record:
    return Record(
        record.topic, record.partition, record.offset, (record.key or b"").decode(), _header(record, "ce_id"), record.value or b""
    )


def _header(record: ConsumerRecord, name: str) -> str:
    headers: Iterable[tuple[str, bytes]] = record.headers
    return next((value.decode() for key, value in headers if key == name), "")
