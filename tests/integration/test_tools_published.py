"""Executions that the tool executor publishes to a real Kafka."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from behest.tool.v1 import tool_pb2
from chassis.kafka.envelope import Envelope, read_envelope
from chassis.kafka.settings import KafkaSettings
from kit.executor import call, open_executor, tenant
from kit.kafka import KafkaCluster


def settings(kafka: KafkaCluster) -> KafkaSettings:
    topic = {"name": kafka.topic("executions")}
    return KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": {"tool_executions": topic}})


def told(record: ConsumerRecord) -> tool_pb2.Execution:
    assert dict(record.headers)["ce_dataschema"] == b"proto:behest.tool.v1.Execution"
    return tool_pb2.Execution.FromString(record.value)


async def records(kafka: KafkaCluster, count: int) -> list[Any]:
    return await kafka.records_when(kafka.topic("executions"), lambda found: len(found) >= count)


@pytest.mark.feature("E2")
@pytest.mark.feature("E3")
async def test_ended_executions_are_published_without_what_was_said(kafka: KafkaCluster) -> None:
    await kafka.create_topic(kafka.topic("executions"))
    async with open_executor(kafka=settings(kafka)) as executor:
        with tenant("acme"):
            await executor.batch(call("c1", "echo", '{"value":"said"}'), call("c2", "nothing"), run_id="run-1")
            kept = await executor.execution("run-1/c1")
        found = {read_envelope(record.headers).id: record for record in await records(kafka, 2)}
        added, missing = told(found["run-1/c1"]), told(found["run-1/c2"])
        envelope = read_envelope(found["run-1/c1"].headers)
        assert envelope == Envelope("run-1/c1", "/tool-executor/acme", "dev.behest.execution.ended.v1", "acme", "")
        assert (found["run-1/c1"].key, found["run-1/c2"].key) == (b"session-1", b"session-1")
        assert kept.call.arguments and kept.result.content
        kept.call.arguments, kept.result.content = b"", ""
        assert added == kept
        assert missing.result.status == tool_pb2.EXECUTION_STATUS_TOOL_NOT_FOUND


@pytest.mark.feature("E2")
async def test_ended_executions_are_published_with_what_was_said_when_that_is_wanted(kafka: KafkaCluster) -> None:
    await kafka.create_topic(kafka.topic("executions"))
    async with open_executor(kafka=settings(kafka), publish_content=True) as executor:
        await executor.run("echo", '{"value":"said"}', request_id="r-1")
        (record,) = await records(kafka, 1)
        assert told(record) == await executor.execution("r-1")
        assert record.key == b"r-1"


@pytest.mark.feature("E2")
async def test_executions_that_end_while_their_topic_is_missing_are_published_once_it_is_there(kafka: KafkaCluster) -> None:
    async with open_executor(kafka=settings(kafka)) as executor:
        async with asyncio.timeout(10):
            for number in range(5):
                await executor.run("echo", '{"value":"said"}', request_id=f"r-{number}")
        await kafka.create_topic(kafka.topic("executions"))
        found = await records(kafka, 5)
        assert sorted(told(record).key for record in found) == [f"r-{number}" for number in range(5)]
