"""Answers that Claude pauses in the middle of its own tools' work, and goes on with when it is given back what it said so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from provider_gateway.adapters.wire import opaque, state_value, states
from provider_gateway.domain.answers import (
    ChatEvent,
    ChatResult,
    Finished,
    Started,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    UsageReport,
    summed,
)
from provider_gateway.domain.chat import Message
from provider_gateway.operations.ports import ModelCall

PROVIDER = "anthropic"
PAUSED = "pause_turn"
ORDER = "order"
"""State of a message whose calls do not all stand at its end: for each call the number of parts before it."""


def paused(result: ChatResult) -> bool:
    """Whether the answer is to be gone on with."""
    return result.finish_reason_raw == PAUSED


def resumed(call: ModelCall, result: ChatResult) -> ModelCall:
    """The call that goes on with the answer."""
    return replace(call, request=replace(call.request, messages=(*call.request.messages, result.message)))


def joined(first: ChatResult, second: ChatResult) -> ChatResult:
    """Both pieces of an answer as one: all that was said, what was consumed together, and how the second one ended."""
    return replace(
        second,
        message=_one(first.message, second.message),
        usage=summed(first.usage, second.usage),
        warnings=tuple(dict.fromkeys((*first.warnings, *second.warnings))),
    )


def following(first: ChatResult, batch: Sequence[ChatEvent]) -> list[ChatEvent]:
    """The steps of the second piece as steps of the whole answer."""
    found = [_following(first, event) for event in batch]
    return [event for event in found if event is not None]


def calls_after(message: Message) -> list[int]:
    """For each call of the message how many of its parts stand before it."""
    kept = states(message, PROVIDER, ORDER) if message.provider_state else None
    places = state_value(kept[-1], "messages[].provider_state", PROVIDER, list[int]) if kept else []
    if len(places) != len(message.tool_calls):  # somebody changed the calls
        return [len(message.parts)] * len(message.tool_calls)
    return places


def _following(first: ChatResult, event: ChatEvent) -> ChatEvent | None:
    shift = len(first.message.tool_calls)
    match event:
        case Started():
            return None
        case UsageReport(usage):
            return UsageReport(summed(first.usage, usage))
        case ToolCallStarted(index) | ToolCallDelta(index) | ToolCallCompleted(index) if shift:
            return replace(event, index=index + shift)
        case Finished(result):
            return Finished(joined(first, result))
    return event


def _one(first: Message, second: Message) -> Message:
    places = [*calls_after(first), *(place + len(first.parts) for place in calls_after(second))]
    parts = first.parts + second.parts
    again = {state.kind for state in second.provider_state} | {ORDER}
    kept = tuple(state for state in first.provider_state if state.kind not in again)
    kept += tuple(state for state in second.provider_state if state.kind != ORDER)
    if any(place < len(parts) for place in places):
        kept += (opaque(PROVIDER, ORDER, places),)
    return replace(first, parts=parts, tool_calls=first.tool_calls + second.tool_calls, provider_state=kept)
