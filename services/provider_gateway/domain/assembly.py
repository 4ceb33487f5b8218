"""Assembles a streamed answer: takes pieces in the provider's order, gives events in the contract's order and the whole at the end.

Every adapter's stream decoder feeds one of these, so the order of P3 (every completed call before finished, in index order) and the
bound on memory live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

from chassis.faults import ProviderResponseInvalid
from provider_gateway.domain.answers import (
    ChatEvent,
    ChatResult,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    RequestWarning,
    Started,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    UsageReport,
)
from provider_gateway.domain.chat import (
    ImagePart,
    Message,
    Notes,
    OpaquePart,
    OpaqueState,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCall,
)

MAX_ANSWER_CHARACTERS = 32 * 1024 * 1024
EMPTY_ARGUMENTS = b"{}"


@dataclass(slots=True)
class _OpenCall:
    index: int
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    state: list[OpaqueState] = field(default_factory=list)

    def close(self) -> ToolCall:
        arguments = "".join(self.arguments).encode()
        return ToolCall(self.id, self.name, arguments or EMPTY_ARGUMENTS, tuple(self.state))


class _Run:
    """Text of one kind that is still growing: what came since the last drain, and all of it."""

    __slots__ = ("fresh", "make_event", "make_part", "pieces", "state")

    def __init__(self, make_event: Callable[[str], ChatEvent], make_part: Callable[[str], Part]) -> None:
        self.make_event, self.make_part = make_event, make_part
        self.fresh: list[str] = []
        self.pieces: list[str] = []
        self.state: OpaqueState | None = None


class Assembly:
    """One answer in the making. `drain()` gives the events since the last drain, neighbouring text merged."""

    def __init__(self, provider: str, limit: int = MAX_ANSWER_CHARACTERS) -> None:
        self.provider = provider
        self.model = ""
        self.response_id = ""
        self.usage: Usage | None = None
        self.finish: FinishReason | None = None
        self.finish_raw = ""
        self.warnings: list[RequestWarning] = []
        self.provider_state: list[OpaqueState] = []
        self._limit, self._size = limit, 0
        self._events: list[ChatEvent] = []
        self._parts: list[Part] = []
        self._run: _Run | None = None
        self._calls: dict[Hashable, _OpenCall] = {}
        self._ordered: list[_OpenCall] = []
        self._started = False

    @property
    def parts(self) -> int:
        """How many parts are complete, which is the place of the next one."""
        return len(self._parts)

    def part_at(self, place: int) -> Part:
        """The complete part at place."""
        return self._parts[place]

    def started(self, model: str, response_id: str) -> None:
        """The provider accepted the request; later reports only fill what was missing."""
        self.model = self.model or model
        self.response_id = self.response_id or response_id
        if not self._started:
            self._started = True
            self._events.append(Started(self.provider, self.model, self.response_id))

    def text(self, piece: str) -> None:
        """More text."""
        self._grow(piece, TextDelta, TextPart)

    def reasoning(self, piece: str) -> None:
        """More reasoning."""
        self._grow(piece, ReasoningDelta, ReasoningPart)

    def refusal(self, piece: str) -> None:
        """More of a refusal."""
        self._grow(piece, RefusalDelta, RefusalPart)

    def note(self, place: int, notes: Notes) -> None:
        """Gives the complete part at place its notes."""
        self._parts[place] = replace(self._parts[place], notes=notes)

    def keep(self, state: OpaqueState) -> None:
        """State that the provider wants back with the message, or that the contract has no words for."""
        self._grew(len(state.data))
        self.provider_state.append(state)

    def reasoning_state(self, state: OpaqueState) -> None:
        """Attaches state to the reasoning under way; silent reasoning of its own where there is none."""
        self._grew(len(state.data))
        if self._run is not None and self._run.make_part is ReasoningPart:
            self._run.state = state
        else:
            self.part(ReasoningPart("", state))

    def part(self, part: Part) -> None:
        """A complete part that is not streamed."""
        self.flush()
        if isinstance(part, OpaquePart):
            self._grew(len(part.state.data))
        elif isinstance(part, ImagePart):
            self._grew(len(part.blob.data))
        self._parts.append(part)

    def flush(self) -> None:
        """Ends the text under way: what comes next is another part, even of the same kind."""
        run, self._run = self._run, None
        if run is not None:
            self._drain_run(run)
            text = "".join(run.pieces)
            self._parts.append(ReasoningPart(text, run.state) if run.make_part is ReasoningPart else run.make_part(text))

    def open_call(self, key: Hashable, call_id: str, name: str) -> None:
        """A tool call began; a made-up id stands in where the provider has none."""
        self._drain_open()
        index = len(self._ordered)
        call = _OpenCall(index, call_id or f"call_{self.response_id}_{index}", name)
        self._calls[key] = call
        self._ordered.append(call)
        self._grew(len(name))
        self._events.append(ToolCallStarted(index, call.id, name))

    def call_id(self, key: Hashable) -> str | None:
        """The id of the call under key, None when there is none."""
        call = self._calls.get(key)
        return None if call is None else call.id

    def call_name(self, key: Hashable) -> str:
        """The name of the call under key."""
        return self._calls[key].name

    def arguments_so_far(self, key: Hashable) -> str:
        """What came of the arguments of the call under key."""
        return "".join(self._calls[key].arguments)

    def rename_call(self, key: Hashable, piece: str) -> None:
        """A further piece of the name, from servers that stream it; a repetition of the whole name changes nothing."""
        call = self._calls[key]
        if piece != call.name and not call.arguments:
            call.name += piece

    def arguments(self, key: Hashable, piece: str) -> None:
        """More of a call's arguments."""
        call = self._calls[key]
        call.arguments.append(piece)
        self._grew(len(piece))
        self._drain_open()
        self._events.append(ToolCallDelta(call.index, piece))

    def has_arguments(self, key: Hashable) -> bool:
        """Whether any arguments came for the call under key."""
        return bool(self._calls[key].arguments)

    def call_state(self, key: Hashable, state: OpaqueState) -> None:
        """State that the provider wants back with the call."""
        self._grew(len(state.data))
        self._calls[key].state.append(state)

    def report(self, usage: Usage) -> None:
        """What the call has consumed so far."""
        if usage != self.usage:
            self.usage = usage
            self._drain_open()
            self._events.append(UsageReport(usage))

    def drain(self) -> list[ChatEvent]:
        """The events since the last drain."""
        self._drain_open()
        events, self._events = self._events, []
        return events

    def complete(self) -> list[ChatEvent]:
        """The last events: every completed call, then finished with the whole answer."""
        result = self.result()
        self._drain_open()
        calls = enumerate(result.message.tool_calls)
        self._events += [ToolCallCompleted(index, call) for index, call in calls]
        self._events.append(Finished(result))
        return self.drain()

    def result(self) -> ChatResult:
        """The whole answer."""
        self.flush()
        calls = tuple(call.close() for call in self._ordered)
        return ChatResult(
            message=Message(Role.ASSISTANT, tuple(self._parts), calls, provider_state=tuple(self.provider_state)),
            finish_reason=settled(self.finish or FinishReason.UNKNOWN, self._parts, calls),
            finish_reason_raw=self.finish_raw,
            usage=self.usage or Usage(),
            provider=self.provider,
            model=self.model,
            response_id=self.response_id,
            warnings=tuple(self.warnings),
        )

    def _grow(self, piece: str, make_event: Callable[[str], ChatEvent], make_part: Callable[[str], Part]) -> None:
        run = self._run
        if run is None or run.make_part is not make_part:
            self.flush()
            run = self._run = _Run(make_event, make_part)
        run.fresh.append(piece)
        self._grew(len(piece))

    def _grew(self, characters: int) -> None:
        self._size += characters
        if self._size > self._limit:
            raise ProviderResponseInvalid(
                f"{self.provider} sent an answer of more than {self._limit} characters; set sampling.max_output_tokens",
                metadata={"provider": self.provider, "limit": str(self._limit)},
            )

    def _drain_open(self) -> None:
        if self._run is not None:
            self._drain_run(self._run)

    def _drain_run(self, run: _Run) -> None:
        if run.fresh:
            piece = "".join(run.fresh)
            run.pieces.append(piece)
            run.fresh.clear()
            self._events.append(run.make_event(piece))


def settled(reason: FinishReason, parts: Sequence[Part], calls: Sequence[ToolCall]) -> FinishReason:
    """The finish reason in the light of the answer: some servers say stop although they call tools or refuse."""
    if reason is FinishReason.STOP and calls:
        return FinishReason.TOOL_CALLS
    if reason is FinishReason.STOP and any(isinstance(part, RefusalPart) for part in parts):
        return FinishReason.REFUSAL
    return reason
