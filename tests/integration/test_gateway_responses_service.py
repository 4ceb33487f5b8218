"""A gateway whose provider speaks Responses: what goes out and comes back over real gRPC and real HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import ProviderRateLimited, ProviderRequestRefused, StreamIncomplete
from kit.provider_gateway import open_gateway, settings_of, steps_of
from kit.provider_requests import ask, ask_stream
from kit.provider_upstream import Upstream, open_upstream, stream, whole
from kit.responses_wires import (
    CREATED,
    OUTPUT,
    RESPONSES_STREAM,
    RESPONSES_WHOLE,
    message,
    output_text,
    response,
    responses_body,
    responses_sse,
    told,
)

ANSWER = whole(responses_body(RESPONSES_WHOLE))
PLAIN = whole(responses_body(response(output=[message(output_text("Hi"))])))
NO_REASONING = whole({"error": {"message": "Encrypted content is not supported with this model.", "param": "include"}}, 400)
ENCRYPTED = ["reasoning.encrypted_content"]


def responses_at(upstream: Upstream, **fields: Any) -> dict[str, Any]:
    return {"adapter": "openai-responses", "base_url": f"{upstream.url}/v1", **fields}


def result(call_id: str) -> chat_pb2.Message:
    return chat_pb2.Message(role=chat_pb2.ROLE_TOOL, tool_call_id=call_id, parts=[chat_pb2.Part(text="done")])


@pytest.mark.feature("P2")
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_turn_of_tools_gives_the_provider_back_what_it_gave(streaming: bool) -> None:
    first = stream(responses_sse(RESPONSES_STREAM)) if streaming else ANSWER
    async with open_upstream(first, PLAIN) as upstream, open_gateway(settings_of({"o": responses_at(upstream)}), "grpc") as stub:
        request = ask("What weather?", "o/m")
        if streaming:
            answer = (await steps_of(stub, pb.StreamChatRequest(request=request)))[-1].finished.message
        else:
            answer = (await stub.Chat(request, timeout=10)).result.message
        request.messages.extend([answer, *(result(call.id) for call in answer.tool_calls)])
        followed = await stub.Chat(request, timeout=10)
    assert followed.result.message.parts[0].text == "Hi"
    assert list(followed.result.warnings) == []
    assert [received.path for received in upstream.received] == ["/v1/responses"] * 2
    sent = upstream.received[1].document
    assert (sent["store"], sent["include"]) == (False, ENCRYPTED)
    assert sent["input"][1:-2] == OUTPUT
    assert [item["call_id"] for item in sent["input"][-2:]] == ["call_a", "call_b"]


@pytest.mark.feature("P2")
async def test_a_model_that_does_not_reason_is_answered_all_the_same_and_asked_only_once() -> None:
    async with open_upstream(NO_REASONING, PLAIN) as upstream, open_gateway(settings_of({"o": responses_at(upstream)})) as stub:
        for _ in range(2):
            assert (await stub.Chat(ask("hi", "o/plain"), timeout=10)).result.message.parts[0].text == "Hi"
        await stub.Chat(ask("hi", "o/thinker"), timeout=10)
    asked = [(received.document["model"], received.document.get("include")) for received in upstream.received]
    assert asked == [("plain", ENCRYPTED), ("plain", None), ("plain", None), ("thinker", ENCRYPTED)]


@pytest.mark.feature("P11")
async def test_a_response_that_fails_before_output_is_tried_again() -> None:
    failed = told("failed", "failed", error={"code": "rate_limit_exceeded", "message": "slow down"})
    broken, good = stream(responses_sse([CREATED, failed])), stream(responses_sse(RESPONSES_STREAM))
    async with open_upstream(broken, good) as upstream, open_gateway(settings_of({"o": responses_at(upstream)})) as stub:
        steps = await steps_of(stub, ask_stream("hi", "o/m"))
    assert [step.WhichOneof("event") for step in steps].count("started") == 1
    assert steps[-1].finished.response_id == "resp_1"
    async with open_upstream(broken) as upstream, open_gateway(settings_of({"o": responses_at(upstream)})) as stub:
        with pytest.raises(ProviderRateLimited, match="slow down"):
            await steps_of(stub, ask_stream("hi", "o/m"))


@pytest.mark.feature("P7")
async def test_a_response_that_breaks_off_after_output_is_incomplete_and_not_begun_anew() -> None:
    half = stream(responses_sse(RESPONSES_STREAM[:10]))
    async with open_upstream(half) as upstream, open_gateway(settings_of({"o": responses_at(upstream)})) as stub:
        with pytest.raises(StreamIncomplete):
            await steps_of(stub, ask_stream("hi", "o/m"))
    assert len(upstream.received) == 1


@pytest.mark.feature("P1")
async def test_the_wishes_of_the_configuration_reach_the_provider() -> None:
    fields = {"store": True, "reasoning_summary": "auto"}
    async with open_upstream(PLAIN) as upstream, open_gateway(settings_of({"o": responses_at(upstream, **fields)})) as stub:
        request = ask("hi", "o/m", sampling=chat_pb2.Sampling(reasoning_effort=chat_pb2.REASONING_EFFORT_LOW))
        await stub.Chat(request, timeout=10)
    sent = upstream.received[0].document
    assert sent["store"] is True
    assert "include" not in sent
    assert sent["reasoning"] == {"effort": "low", "summary": "auto"}


@pytest.mark.feature("P11")
async def test_a_wrong_request_is_refused_with_the_vendors_words() -> None:
    error = {"message": "Unsupported parameter: 'temperature' is not supported with this model.", "type": "invalid_request_error"}
    async with open_upstream(whole({"error": error}, 400)) as upstream, open_gateway(settings_of({"o": responses_at(upstream)})) as stub:
        with pytest.raises(ProviderRequestRefused, match="'temperature' is not supported"):
            await stub.Chat(ask("hi", "o/m"), timeout=10)
    assert len(upstream.received) == 1


def test_a_setting_of_another_adapter_is_refused() -> None:
    with pytest.raises(ValueError, match="stream_usage"):
        settings_of({"o": {"adapter": "openai-responses", "stream_usage": True}})


@pytest.mark.feature("P8")
async def test_usage_is_the_providers_own() -> None:
    async with open_upstream(ANSWER) as upstream, open_gateway(settings_of({"o": responses_at(upstream)})) as stub:
        usage = (await stub.Chat(ask("hi", "o/m"), timeout=10)).result.usage
    assert json.loads(responses_body(RESPONSES_WHOLE))["usage"]["input_tokens"] == usage.input_tokens == 30
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (16, 4, 5)
