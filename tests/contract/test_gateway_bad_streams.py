"""Streams that go wrong, in every protocol: each is its typed fault with what came before it, and none is a success."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from chassis.faults import (
    Fault,
    ProviderRateLimited,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    StreamIncomplete,
)
from chassis.world import SystemClock
from kit.gemini_wires import GEMINI_TEXT, gemini_sse
from kit.provider_decoding import result_of
from kit.provider_gateway import open_gateway, settings_of, steps_of
from kit.provider_requests import ask_stream
from kit.provider_upstream import Reply, open_upstream, silence, stream, whole
from kit.provider_wires import ANTHROPIC_STREAM, OPENAI_TEXT, anthropic_sse, openai_sse
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.http.aiohttp_client import AiohttpClient, HttpOptions
from provider_gateway.adapters.http.provider import Endpoint, HttpProvider
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.wire import Wire
from provider_gateway.domain.answers import ChatEvent, ReasoningDelta, TextDelta
from provider_gateway.domain.chat import ChatRequest, Message, Role, TextPart
from provider_gateway.operations.ports import ModelCall

CALL = ModelCall(ChatRequest((Message(Role.USER, (TextPart("hi"),)),)), "m")
EVENT_BYTES = 4096


@dataclass(frozen=True)
class Case:
    """A protocol: the beginning of one of its streams, with output, the rest of it, and how it says that it is overloaded."""

    wire: Wire
    begun: bytes
    rest: bytes
    error: dict[str, Any]

    def __str__(self) -> str:
        return self.wire.adapter


CASES = [
    Case(
        OpenAiWire("p"),
        openai_sse(OPENAI_TEXT[:2], done=False),
        openai_sse(OPENAI_TEXT[2:]),
        {"error": {"message": "overloaded", "type": "server_error"}},
    ),
    Case(
        AnthropicWire("p"),
        anthropic_sse(ANTHROPIC_STREAM[:4]),
        anthropic_sse(ANTHROPIC_STREAM[4:]),
        {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}},
    ),
    Case(
        GeminiWire("p"),
        gemini_sse(GEMINI_TEXT[:1]),
        gemini_sse(GEMINI_TEXT[1:]),
        {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}},
    ),
]
EACH = pytest.mark.parametrize("case", CASES, ids=str)


@contextlib.asynccontextmanager
async def answering(case: Case, reply: Reply) -> AsyncIterator[HttpProvider]:
    client = AiohttpClient(HttpOptions())
    async with open_upstream(reply) as upstream:
        try:
            yield HttpProvider("p", case.wire, Endpoint(upstream.url, event_bytes=EVENT_BYTES), client, SystemClock())
        finally:
            await client.close()


async def ended(case: Case, reply: Reply) -> tuple[list[ChatEvent], Fault | None]:
    """The steps that came, and how it ended."""
    events: list[ChatEvent] = []
    async with answering(case, reply) as provider:
        try:
            async for batch in provider.stream(CALL):
                events += batch
        except Fault as fault:
            return events, fault
    return events, None


def event(document: Any) -> bytes:
    return b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n\n"


@EACH
async def test_the_streams_of_these_tests_are_whole_before_they_are_broken(case: Case) -> None:
    events, fault = await ended(case, stream(case.begun, case.rest))
    assert fault is None
    assert result_of(events).message.parts


@pytest.mark.feature("P7")
@pytest.mark.parametrize("tail", [b"", b'data: {"typ'], ids=["between-events", "within-an-event"])
@pytest.mark.parametrize("end", [True, False], ids=["ends", "cut"])
@EACH
async def test_a_stream_that_ends_too_early_is_incomplete_and_gives_what_came(case: Case, tail: bytes, end: bool) -> None:
    events, fault = await ended(case, stream(case.begun, tail, end=end) if tail else stream(case.begun, end=end))
    assert type(fault) is StreamIncomplete
    assert any(isinstance(each, TextDelta | ReasoningDelta) for each in events)


@pytest.mark.feature("P7")
@EACH
async def test_garbage_within_a_stream_is_named_so(case: Case) -> None:
    _, fault = await ended(case, stream(case.begun + event(b"garbage"), case.rest))
    assert type(fault) is ProviderResponseInvalid


@pytest.mark.feature("P6")
@EACH
async def test_an_event_without_end_is_given_up(case: Case) -> None:
    _, fault = await ended(case, stream(case.begun, b"data: " + b"x" * (2 * EVENT_BYTES)))
    assert type(fault) is ProviderResponseInvalid
    assert str(EVENT_BYTES) in fault.message


@pytest.mark.feature("P7")
@EACH
async def test_an_error_within_a_stream_is_a_failure_with_its_type(case: Case) -> None:
    _, fault = await ended(case, stream(case.begun, event(case.error)))
    assert type(fault) is ProviderUnavailable


@pytest.mark.feature("P7")
@EACH
async def test_an_error_in_a_200_is_a_failure_with_its_type(case: Case) -> None:
    _, fault = await ended(case, whole(case.error))
    assert type(fault) is ProviderUnavailable


@pytest.mark.feature("P13")
@EACH
async def test_a_stream_that_stalls_is_left_in_time(case: Case) -> None:
    async with open_upstream(silence(case.begun)) as upstream:
        limits = {"idle_seconds": 0.1}
        provider = {"adapter": case.wire.adapter, "base_url": upstream.url, "api_key": "k", "limits": limits}
        async with open_gateway(settings_of({"p": provider})) as stub:
            with pytest.raises(ProviderTimeout):
                await steps_of(stub, ask_stream("hi", "p/m"))
        await upstream.received[0].gone.wait()


@pytest.mark.feature("P11")
async def test_googles_wish_to_wait_stands_in_the_error_itself_and_is_heeded() -> None:
    wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
    quota = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerMinute"}]}
    error = {"error": {"code": 429, "message": "exhausted", "status": "RESOURCE_EXHAUSTED", "details": [quota, wait]}}
    for reply in (whole(error, 429), stream(event(error))):
        _, fault = await ended(CASES[2], reply)
        assert type(fault) is ProviderRateLimited
        assert (fault.retry_after, fault.metadata["quota"], fault.metadata["code"]) == (34.4, "PerMinute", "RESOURCE_EXHAUSTED")
