"""What a model answers: the complete result, the steps of a streamed one, and what it consumed."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from chassis.faults import Fault
from provider_gateway.domain.chat import Message, ReasoningPart, RefusalPart, TextPart, ToolCall


class FinishReason(enum.Enum):
    """Why a model stopped; values are the contract's numbers."""

    STOP = 1
    TOOL_CALLS = 2
    LENGTH = 3
    CONTENT_FILTER = 4
    REFUSAL = 5
    ERROR = 6
    UNKNOWN = 7


_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cache_hour_tokens")
_BOUNDS = (*((name, 2**40) for name in _COUNTS), ("cost_nano_usd", 2**62))


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls consumed: cached tokens are part of the input, reasoning tokens part of the output.

    `cache_hour_tokens` is the part of cache_write_tokens that the provider keeps for an hour, which costs more.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano_usd: int = 0
    cost_known: bool = False
    calls: int = 1
    cache_hour_tokens: int = 0

    def __post_init__(self) -> None:
        """Keeps what cannot be out of bills and budgets, whoever told it: nothing is less than none, and sums stay within 64 bits."""
        for name, most in _BOUNDS:
            value = getattr(self, name)
            if not 0 <= value <= most:
                object.__setattr__(self, name, min(max(value, 0), most))


def summed(one: Usage, other: Usage) -> Usage:
    """What both consumed together; the cost is known where both are."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cache_read_tokens=one.cache_read_tokens + other.cache_read_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        cost_nano_usd=one.cost_nano_usd + other.cost_nano_usd,
        cost_known=one.cost_known and other.cost_known,
        calls=one.calls + other.calls,
        cache_hour_tokens=one.cache_hour_tokens + other.cache_hour_tokens,
    )


@dataclass(frozen=True, slots=True)
class RequestWarning:
    """What was adapted or harmlessly left out, and of which request field."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Seam:
    """A place within an answer where its target failed with `fault` and `provider` went on after so many characters of text."""

    fault: Fault
    provider: str
    model: str
    text_characters: int


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A complete answer; `cached` when it comes from the gateway's own response cache, so that nothing was consumed."""

    message: Message
    finish_reason: FinishReason
    finish_reason_raw: str = ""
    usage: Usage = field(default_factory=Usage)
    provider: str = ""
    model: str = ""
    response_id: str = ""
    warnings: tuple[RequestWarning, ...] = ()
    seams: tuple[Seam, ...] = ()
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """The provider accepted the request."""

    provider: str
    model: str
    response_id: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """More of the model's refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """A tool call began at `index` of the message's calls."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a tool call's arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallCompleted:
    """A tool call is complete."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What the call has consumed so far; replaces the previous report."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete."""

    result: ChatResult


ChatEvent = (
    Started
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallCompleted
    | UsageReport
    | Seam
    | Finished
)


def is_output(event: ChatEvent) -> bool:
    """Whether a caller that saw this event has seen a part of the answer, so that the call cannot be silently repeated."""
    return not isinstance(event, Started | UsageReport)


def burst(result: ChatResult) -> list[ChatEvent]:
    """The steps that a provider would have streamed for a result it gave at once."""
    events: list[ChatEvent] = [Started(result.provider, result.model, result.response_id)]
    for part in result.message.parts:
        events.extend(_deltas(part))
    for index, call in enumerate(result.message.tool_calls):
        arguments = call.arguments.decode("utf-8", "replace")
        events += [ToolCallStarted(index, call.id, call.name), ToolCallDelta(index, arguments)]
    events += [ToolCallCompleted(index, call) for index, call in enumerate(result.message.tool_calls)]
    return [*events, UsageReport(result.usage), Finished(result)]


def _deltas(part: object) -> list[ChatEvent]:
    match part:
        case TextPart(text) if text:
            return [TextDelta(text)]
        case ReasoningPart(text) if text:
            return [ReasoningDelta(text)]
        case RefusalPart(text) if text:
            return [RefusalDelta(text)]
    return []
