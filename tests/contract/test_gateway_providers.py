"""What every provider must do, whatever its protocol: one suite, each adapter, over real sockets where it has any."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from types import UnionType

import pytest

from chassis.faults import Fault, FieldNotExpressible, ProviderResponseInvalid, ProviderUnavailable, StreamIncomplete
from chassis.world import SystemClock
from kit.gemini_wires import GEMINI_STREAM, GEMINI_WHOLE, gemini_sse
from kit.provider_decoding import check_order, cut, result_of
from kit.provider_upstream import Upstream, in_two, open_upstream, silence, stream, whole
from kit.provider_wires import ANTHROPIC_STREAM, ANTHROPIC_WHOLE, OPENAI_CALLS, anthropic_sse, ndjson, openai_sse
from kit.responses_wires import RESPONSES_STREAM, RESPONSES_WHOLE, responses_body, responses_sse
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.http.aiohttp_client import AiohttpClient, HttpOptions
from provider_gateway.adapters.http.provider import Endpoint, HttpProvider
from provider_gateway.adapters.ollama import OllamaWire
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.openai_responses import OpenAiResponsesWire
from provider_gateway.adapters.scripted import ScriptedProvider, script_of
from provider_gateway.adapters.wire import Wire
from provider_gateway.domain.answers import ChatEvent, Finished, FinishReason, is_output
from provider_gateway.domain.chat import ChatRequest, Message, ReasoningPart, Role, TextPart
from provider_gateway.operations.ports import ModelCall, Provider

CALL = ModelCall(ChatRequest((Message(Role.USER, (TextPart("hi"),)),)), "m")
CALLS_WHOLE = {
    "id": "c2",
    "model": "m-1",
    "choices": [
        {
            "message": {
                "content": None,
                "tool_calls": [
                    {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}},
                    {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": '{"zone":"CET"}'}},
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
}
TURN = {"text": "one moment", "calls": [{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "time"}]}

Open = Callable[[str], AbstractAsyncContextManager[Provider]]


@contextlib.asynccontextmanager
async def _http(wire: Wire, answering: Upstream) -> AsyncIterator[Provider]:
    client = AiohttpClient(HttpOptions())
    try:
        yield HttpProvider("p", wire, Endpoint(answering.url), client, SystemClock())
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def open_openai(what: str) -> AsyncIterator[Provider]:
    body = openai_sse(OPENAI_CALLS)
    replies = {"whole": whole(CALLS_WHOLE), "stream": stream(*cut(body, range(0, len(body), 37))), "hang": silence(body[:200])}
    async with open_upstream(replies[what]) as upstream, _http(OpenAiWire("p"), upstream) as provider:
        yield provider


@contextlib.asynccontextmanager
async def open_anthropic(what: str) -> AsyncIterator[Provider]:
    body = anthropic_sse(ANTHROPIC_STREAM)
    replies = {"whole": whole(ANTHROPIC_WHOLE), "stream": stream(*cut(body, range(0, len(body), 97))), "hang": silence(body[:900])}
    async with open_upstream(replies[what]) as upstream, _http(AnthropicWire("p"), upstream) as provider:
        yield provider


def _ollama(message: dict[str, object], done: bool = False) -> dict[str, object]:
    end = {"done_reason": "stop", "prompt_eval_count": 20, "eval_count": 5} if done else {}
    return {"model": "m-1", "created_at": "2026-01-02T03:04:05Z", "message": {"role": "assistant", **message}, "done": done, **end}


OLLAMA_CALLS = [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}, {"function": {"name": "time", "arguments": {}}}]


@contextlib.asynccontextmanager
async def open_ollama(what: str) -> AsyncIterator[Provider]:
    steps = [{"content": "one "}, {"content": "moment"}, {"content": "", "tool_calls": OLLAMA_CALLS[:1]}, {"tool_calls": OLLAMA_CALLS[1:]}]
    body = ndjson([*map(_ollama, steps), _ollama({"content": ""}, done=True)])
    at_once = _ollama({"content": "one moment", "tool_calls": OLLAMA_CALLS}, done=True)
    as_lines = "application/x-ndjson"
    replies = {
        "whole": whole(at_once),
        "stream": stream(*cut(body, range(0, len(body), 37)), content_type=as_lines),
        "hang": silence(body[:200], content_type=as_lines),
    }
    async with open_upstream(replies[what]) as upstream, _http(OllamaWire("p"), upstream) as provider:
        yield provider


@contextlib.asynccontextmanager
async def open_gemini(what: str) -> AsyncIterator[Provider]:
    body = gemini_sse(GEMINI_STREAM)
    replies = {"whole": whole(GEMINI_WHOLE), "stream": stream(*cut(body, range(0, len(body), 61))), "hang": silence(body[:900])}
    async with open_upstream(replies[what]) as upstream, _http(GeminiWire("p"), upstream) as provider:
        yield provider


@contextlib.asynccontextmanager
async def open_responses(what: str) -> AsyncIterator[Provider]:
    body = responses_sse(RESPONSES_STREAM)
    answered = whole(responses_body(RESPONSES_WHOLE))
    replies = {"whole": answered, "stream": stream(*cut(body, range(0, len(body), 97))), "hang": silence(body[:3500])}
    async with open_upstream(replies[what]) as upstream, _http(OpenAiResponsesWire("p"), upstream) as provider:
        yield provider


@contextlib.asynccontextmanager
async def open_scripted(what: str) -> AsyncIterator[Provider]:
    turn = {**TURN, "fault": {"kind": "stall", "after_pieces": 1}} if what == "hang" else TURN
    yield ScriptedProvider("p", script_of({"turns": [turn]}, "script"), SystemClock())


HTTP = {
    "openai": open_openai,
    "anthropic": open_anthropic,
    "responses": open_responses,
    "gemini": open_gemini,
    "ollama": open_ollama,
}
EVERY = {**HTTP, "scripted": open_scripted}


@pytest.fixture(params=EVERY.values(), ids=EVERY.keys())
def open_provider(request: pytest.FixtureRequest) -> Open:
    return request.param  # type: ignore[no-any-return]


async def events_of(provider: Provider) -> list[ChatEvent]:
    return [event async for batch in provider.stream(CALL) for event in batch]


@pytest.mark.feature("P3")
async def test_a_stream_obeys_the_order_of_the_contract(open_provider: Open) -> None:
    async with open_provider("stream") as provider:
        events = await events_of(provider)
    check_order(events)
    assert result_of(events).message.tool_calls[0].name == "weather"


@pytest.mark.feature("P5")
@pytest.mark.feature("P8")
async def test_a_stream_ends_with_what_a_whole_answer_would_have_been(open_provider: Open) -> None:
    async with open_provider("stream") as provider:
        streamed = result_of(await events_of(provider))
    async with open_provider("whole") as provider:
        answered = await provider.complete(CALL)
    assert streamed.message == answered.message
    assert (streamed.finish_reason, streamed.finish_reason_raw) == (answered.finish_reason, answered.finish_reason_raw)
    assert streamed.finish_reason is FinishReason.TOOL_CALLS
    assert answered.provider == "p"
    assert streamed.usage == answered.usage


async def test_a_stream_that_was_asked_for_but_answered_whole_is_told_in_one_burst(open_provider: Open) -> None:
    async with open_provider("whole") as provider:
        check_order(await events_of(provider))


@pytest.mark.feature("P16")
async def test_a_stream_can_be_left_while_it_hangs(open_provider: Open) -> None:
    async with open_provider("hang") as provider, asyncio.timeout(5):

        async def read_on() -> None:
            async for batch in provider.stream(CALL):
                if any(map(is_output, batch)):
                    task.cancel()

        task = asyncio.create_task(read_on())
        assert await asyncio.wait([task])
        assert task.cancelled()


async def test_a_stream_can_be_closed_between_two_batches(open_provider: Open) -> None:
    async with open_provider("hang") as provider, asyncio.timeout(5), aclosing(provider.stream(CALL)) as batches:
        async for batch in batches:
            if any(map(is_output, batch)):
                break


async def test_it_says_who_it_is_and_that_it_can_be_called(open_provider: Open) -> None:
    async with open_provider("whole") as provider:
        assert provider.name == "p"
        assert provider.adapter
        assert provider.problem() == ""


@pytest.mark.feature("P1")
@pytest.mark.parametrize("open_http", HTTP.values(), ids=HTTP.keys())
async def test_what_it_cannot_express_is_refused_before_anything_is_sent(open_http: Open) -> None:
    odd = ModelCall(ChatRequest((Message(Role.USER, (ReasoningPart("x"),)),)), "m")
    async with open_http("whole") as provider:
        with pytest.raises(FieldNotExpressible):
            await provider.complete(odd)
        with pytest.raises(FieldNotExpressible):
            await anext(provider.stream(odd))


@pytest.mark.parametrize(
    ("wire", "key_header"),
    [
        (OpenAiWire("p"), "authorization"),
        (AnthropicWire("p"), "x-api-key"),
        (OpenAiResponsesWire("p"), "authorization"),
        (GeminiWire("p"), "x-goog-api-key"),
        (OllamaWire("p"), "authorization"),
    ],
)
async def test_the_key_goes_where_the_protocol_wants_it_and_the_stream_is_asked_for(wire: Wire, key_header: str) -> None:
    client = AiohttpClient(HttpOptions())
    async with open_upstream(whole({"error": {"message": "x"}}, 400)) as upstream:
        provider = HttpProvider("p", wire, Endpoint(upstream.url, lambda: "k3y", {"x-own": lambda: "1"}), client, SystemClock())
        with contextlib.suppress(Exception):
            await anext(provider.stream(CALL))
        received = upstream.received[0]
        assert "k3y" in received.headers[key_header]
        assert received.headers["x-own"] == "1"
        assert json.loads(received.body).get("stream") is True or received.path.endswith("?alt=sse")
    await client.close()


STREAMS: dict[str, tuple[Wire, bytes]] = {
    "openai": (OpenAiWire("p"), openai_sse(OPENAI_CALLS, done=False)),
    "anthropic": (AnthropicWire("p"), anthropic_sse(ANTHROPIC_STREAM)),
    "responses": (OpenAiResponsesWire("p"), responses_sse(RESPONSES_STREAM)),
}
ERROR = b'data: {"type":"error","error":{"type":"server_error","message":"boom"}}\n\n'
TOO_DEEP = ProviderResponseInvalid | StreamIncomplete  # a newer Python can read it, and finds an event that nobody knows
Faults = type[Fault] | UnionType
FAULTS: dict[str, tuple[bytes, bool, Faults]] = {
    "ends": (b"", True, StreamIncomplete),
    "breaks": (b"", False, StreamIncomplete),
    "ends within an event": (b'data: {"type":"resp', True, StreamIncomplete),
    "error in a 200": (ERROR, True, ProviderUnavailable),
    "garbage": (b"data: garbage\n\n", True, ProviderResponseInvalid),
    "nested": (b'data: {"type":"x","id":"x","y":' + b"[" * 1500 + b"]" * 1500 + b"}\n\n", True, TOO_DEEP),
    "oversize": (b"data: " + b"x" * 5000, True, ProviderResponseInvalid),
}


@pytest.mark.feature("P7")
@pytest.mark.parametrize(("tail", "end", "fault"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize(("wire", "body"), STREAMS.values(), ids=STREAMS.keys())
async def test_a_stream_that_goes_wrong_fails_by_type_and_after_what_came(
    wire: Wire, body: bytes, tail: bytes, end: bool, fault: Faults
) -> None:
    events = body.split(b"\n\n")
    begun = b"\n\n".join(events[: len(events) // 2]) + b"\n\n"
    client, seen = AiohttpClient(HttpOptions()), asyncio.Event()
    came: list[ChatEvent] = []
    async with open_upstream(in_two(begun, seen, tail, end)) as upstream:
        provider = HttpProvider("p", wire, Endpoint(upstream.url, event_bytes=4000), client, SystemClock())
        with pytest.raises(Fault) as caught:
            async for batch in provider.stream(CALL):
                came += batch
                seen.set()
    await client.close()
    assert isinstance(caught.value, fault)
    assert any(map(is_output, came))
    assert not any(isinstance(event, Finished) for event in came)
