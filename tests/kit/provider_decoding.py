"""Decoding bytes with a wire as the gateway does, cut where a test wants it cut; and checks that hold for every stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from provider_gateway.adapters.http.sse import SseParser
from provider_gateway.adapters.wire import Wire
from provider_gateway.domain.answers import (
    ChatEvent,
    ChatResult,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
)
from provider_gateway.domain.chat import Message, ReasoningPart, RefusalPart


def decode_stream(wire: Wire, pieces: Iterable[bytes]) -> list[ChatEvent]:
    """The steps that a stream in these pieces means."""
    parser, decoder = SseParser(), wire.decoder()
    events: list[ChatEvent] = []
    for piece in pieces:
        events += decoder.feed(parser.feed(piece))
    return [*events, *decoder.feed(parser.end()), *decoder.end()]


def result_of(events: Sequence[ChatEvent]) -> ChatResult:
    """The answer at the end of a stream."""
    last = events[-1]
    assert isinstance(last, Finished), last
    return last.result


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in pieces, cut at these places."""
    bounds = [0, *sorted({place for place in places if 0 < place < len(body)}), len(body)]
    return [body[start:end] for start, end in pairwise(bounds)]


def said(message: Message) -> tuple[str, str, str]:
    """Text, reasoning and refusal of a message."""
    reasoning = "".join(part.text for part in message.parts if isinstance(part, ReasoningPart))
    refusal = "".join(part.text for part in message.parts if isinstance(part, RefusalPart))
    return message.text(), reasoning, refusal


def check_order(events: Sequence[ChatEvent]) -> None:
    """Fails unless the steps obey the contract: one Started first, one Finished last, deltas that add up, calls complete before the end."""
    kinds = [type(event) for event in events]
    assert kinds.count(Started) == 1
    assert kinds.index(Started) == 0
    assert kinds.count(Finished) == 1
    assert kinds.index(Finished) == len(kinds) - 1
    result = result_of(events)
    deltas = (TextDelta, ReasoningDelta, RefusalDelta)
    assert tuple("".join(e.text for e in events if isinstance(e, kind)) for kind in deltas) == said(result.message)
    _check_calls(events, result)


def _check_calls(events: Sequence[ChatEvent], result: ChatResult) -> None:
    calls = result.message.tool_calls
    assert [(e.index, e.id) for e in events if isinstance(e, ToolCallStarted)] == [(i, call.id) for i, call in enumerate(calls)]
    completed = [(place, e) for place, e in enumerate(events) if isinstance(e, ToolCallCompleted)]
    assert [(e.index, e.call) for _, e in completed] == list(enumerate(calls))
    last_delta = max((place for place, e in enumerate(events) if isinstance(e, ToolCallDelta)), default=-1)
    assert all(place > last_delta for place, _ in completed)
    for index, call in enumerate(calls):
        arguments = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == index)
        assert (arguments.encode() or b"{}") == call.arguments
