"""Model calls that the gateway publishes to a real Kafka."""

from __future__ import annotations

from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import ProviderUnavailable
from chassis.kafka.envelope import read_envelope
from chassis.kafka.settings import KafkaSettings
from chassis.rpc import Call, call_scope
from kit.kafka import KafkaCluster
from kit.provider_gateway import open_gateway, settings_of, steps_of

USER = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="a secret question")])


def settings(kafka: KafkaCluster, servers: str = "") -> KafkaSettings:
    topics = {"provider_calls": {"name": kafka.topic("calls")}}
    return KafkaSettings.model_validate({"bootstrap_servers": servers or kafka.bootstrap_servers, "topics": topics})


def ask(request_id: str = "", model: str = "scripted/m") -> pb.ChatRequest:
    return pb.ChatRequest(model=model, messages=[USER], request_id=request_id)


@pytest.mark.feature("E2")
@pytest.mark.feature("E3")
async def test_calls_are_published_with_their_attempts_and_without_what_was_said(kafka: KafkaCluster) -> None:
    topic = await kafka.create_topic(kafka.topic("calls"))
    turns: list[dict[str, Any]] = [
        {"text": "a secret answer", "usage": {"input": 7, "output": 3}, "fault": {"kind": "unavailable", "times": 1}}
    ]
    away = {"adapter": "scripted", "script": {"turns": [{"fault": "unavailable"}]}}
    providers = {"scripted": {"adapter": "scripted", "script": {"turns": turns}}, "away": away}
    async with open_gateway(settings_of(providers), kafka=settings(kafka)) as stub:
        with call_scope(Call(tenant="acme")):
            await steps_of(stub, pb.StreamChatRequest(request=ask("run-1/1/1")))
            with pytest.raises(ProviderUnavailable):
                await stub.Chat(ask(model="away/m"))
        first, second = await kafka.records_when(topic, lambda found: len(found) >= 2)
    answered, failed = (provider_pb2.ProviderCall.FromString(record.value) for record in (first, second))
    assert (answered.provider, answered.request_id, answered.streamed) == ("scripted", "run-1/1/1", True)
    assert (answered.usage.input_tokens, answered.usage.output_tokens) == (7, 3)
    assert [attempt.fault.reason for attempt in answered.failed_attempts] == ["PROVIDER_UNAVAILABLE"]
    assert not answered.HasField("fault") and failed.fault.reason == "PROVIDER_UNAVAILABLE"
    assert {read_envelope(record.headers).tenant for record in (first, second)} == {"acme"}
    assert first.key == b"run-1"
    assert not any(b"secret" in record.value for record in (first, second))


@pytest.mark.feature("E2")
async def test_no_call_waits_for_a_kafka_that_is_away(kafka: KafkaCluster) -> None:
    providers = {"scripted": {"adapter": "scripted", "script": {"turns": [{"text": "here"}]}}}
    async with open_gateway(settings_of(providers), kafka=settings(kafka, "127.0.0.1:1")) as stub:
        for _ in range(20):
            assert (await stub.Chat(ask(), timeout=5)).result.message.parts[0].text == "here"
