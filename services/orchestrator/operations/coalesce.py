"""Gathers deltas into few events: the first at once, then every 25 ms or 1 KiB (design: the log)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain import events as e
from orchestrator.domain.values import Seam
from orchestrator.operations.ports import (
    Answer,
    CallDeltaOutput,
    CallStartedOutput,
    Output,
    Progress,
    ReasoningOutput,
    SpentOutput,
    TextOutput,
)

WINDOW = 0.025
"""Seconds between two appends of deltas."""

MOST_BYTES = 1024
"""Characters that are appended without waiting for the window."""


class Coalescer:
    """Deltas of one model call or tool batch that are not in the log yet."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._events: list[e.Event] = []
        self._size = 0
        self._due = 0.0

    def add(self, output: Output | Progress) -> None:
        """Takes in one more delta; an Answer adds nothing, since it says it all again, and what was spent is no delta."""
        if isinstance(output, Answer | SpentOutput):
            return
        event, size = _delta(self._turn, output)
        self._size += size
        merged = _merge(self._events[-1], event) if self._events else None
        if merged is None:
            self._events.append(event)
        else:
            self._events[-1] = merged

    def wait(self, now: float) -> float | None:
        """Seconds until the deltas are due, 0 when they are, None when there are none. `now` is monotonic."""
        if not self._events:
            return None
        return 0.0 if self._size >= MOST_BYTES else max(0.0, self._due - now)

    def take(self, now: float) -> Sequence[e.Event]:
        """The deltas gathered so far; the next ones are due a window later."""
        events, self._events = self._events, []
        self._size, self._due = 0, now + WINDOW
        return events

    def last_words(self) -> Sequence[e.Event]:
        """The deltas that a complete answer does not say again: text, reasoning and where they have seams."""
        return [event for event in self._events if isinstance(event, e.TextDelta | e.ReasoningDelta | e.ModelSeam)]


Delta = TextOutput | ReasoningOutput | CallStartedOutput | CallDeltaOutput | Seam | Progress


def _delta(turn: int, output: Delta) -> tuple[e.Event, int]:
    match output:
        case TextOutput(text):
            return e.TextDelta(turn, text), len(text)
        case ReasoningOutput(text):
            return e.ReasoningDelta(turn, text), len(text)
        case CallStartedOutput(call_id, tool):
            return e.ToolCallStarted(turn, call_id, tool), len(tool)
        case CallDeltaOutput(call_id, arguments):
            return e.ToolCallDelta(turn, call_id, arguments), len(arguments)
        case Seam():
            return e.ModelSeam(turn, output), len(output.failure.message)
        case Progress(call_id, message, fraction):
            return e.ToolExecutionProgress(turn, call_id, message, fraction), len(message)


def _merge(last: e.Event, event: e.Event) -> e.Event | None:
    match last, event:
        case e.TextDelta(turn, before), e.TextDelta(_, text):
            return e.TextDelta(turn, before + text)
        case e.ReasoningDelta(turn, before), e.ReasoningDelta(_, text):
            return e.ReasoningDelta(turn, before + text)
        case e.ToolCallDelta(turn, call_id, before), e.ToolCallDelta(_, same, arguments) if call_id == same:
            return e.ToolCallDelta(turn, call_id, before + arguments)
    return None
