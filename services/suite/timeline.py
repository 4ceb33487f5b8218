"""A run's log for people: one line per event, with times, details and tokens. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from behest.chat.v1 import chat_pb2 as chat_pb
from behest.event.v1 import event_pb2 as event_pb
from behest.tool.v1 import tool_pb2 as tool_pb
from suite.following import COVERS_A_RANGE, kind_of
from suite.plain import enum_word

DETAIL_LENGTH, FAULT_LENGTH = 96, 400


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a timeline. `last` differs from `first` where deltas were folded; times are milliseconds since the run was accepted."""

    first: int
    last: int
    at_ms: float
    kind: str
    details: str
    tokens: str = ""

    @property
    def sequence(self) -> str:
        """The sequence number, or the range of them."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def rows(events: Iterable[event_pb.Event]) -> Iterator[Row]:
    """A row per event; deltas of one kind in a row share one."""
    start: float | None = None
    folded: list[event_pb.Event] = []
    for event in events:
        start = _seconds(event) if start is None else start
        if folded and not (kind_of(event) in COVERS_A_RANGE and kind_of(event) == kind_of(folded[0])):
            yield _row(folded, start)
            folded = []
        folded.append(event)
    if folded and start is not None:
        yield _row(folded, start)


def row(event: event_pb.Event, start: float) -> Row:
    """The row of one event; start is the run's first moment in seconds."""
    return _row([event], start)


def started_at(event: event_pb.Event) -> float:
    """The event's moment in seconds since the epoch."""
    return _seconds(event)


def _row(events: list[event_pb.Event], start: float) -> Row:
    first, last = events[0], events[-1]
    kind = kind_of(first)
    details = _folded(kind, events) if kind in COVERS_A_RANGE else _details(kind, first)
    length = FAULT_LENGTH if kind in ("model_failed", "run_failed") else DETAIL_LENGTH
    tokens = tokens_of(first.usage_recorded.call) if kind == "usage_recorded" else ""
    return Row(first.sequence, last.sequence, (_seconds(first) - start) * 1e3, kind.replace("_", " "), shortened(details, length), tokens)


def _seconds(event: event_pb.Event) -> float:
    return event.time.seconds + event.time.nanos / 1e9


def _folded(kind: str, events: list[event_pb.Event]) -> str:
    field = "arguments" if kind == "tool_call_delta" else "text"
    return json.dumps("".join(getattr(getattr(event, kind), field) for event in events), ensure_ascii=False)


def _details(kind: str, event: event_pb.Event) -> str:
    describe = _DESCRIBE.get(kind)
    return describe(getattr(event, kind)) if describe else ""


def shortened(text: str, length: int = DETAIL_LENGTH) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def tokens_of(usage: chat_pb.Usage) -> str:
    """Tokens read and written, such as 120 → 30."""
    return f"{usage.input_tokens} → {usage.output_tokens}"


def cost_of(usage: chat_pb.Usage) -> str:
    """The price in dollars; empty when it is not known."""
    return f"${usage.cost_nano_usd / 1e9:.6f}" if usage.cost_known and usage.cost_nano_usd else ""


def duration(seconds: float) -> str:
    """How long something took: milliseconds below a second, else seconds."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def call_text(call: chat_pb.ToolCall) -> str:
    """A tool call as one writes it: name and arguments."""
    return f"{call.name} {call.arguments.decode(errors='replace')}"


def finish_word(reason: chat_pb.FinishReason.ValueType) -> str:
    """Why a model stopped, in words."""
    return enum_word(chat_pb.FinishReason.DESCRIPTOR, reason).replace("_", " ")


def text_of(message: chat_pb.Message) -> str:
    """The readable text of a message."""
    return "".join(part.text or part.refusal or part.json.decode(errors="replace") for part in message.parts)


def _context(built: event_pb.ContextBuilt) -> str:
    sources = ", ".join(f"{source.name} {source.items} (≈{source.tokens} tokens)" for source in built.sources)
    return f"{sources}; {built.dropped_messages} older left out" if built.dropped_messages else sources


def _model_started(started: event_pb.ModelStarted) -> str:
    again = f", attempt {started.attempt}" if started.attempt > 1 else ""
    onward = f", continuation {started.continuation}" if started.continuation else ""
    return f"turn {started.turn} {started.model or 'the default model'}{again}{onward}"


def _model_finished(finished: event_pb.ModelFinished) -> str:
    answered = f"{finished.provider}/{finished.model} {finish_word(finished.finish_reason)}"
    return f"{answered}, first output {finished.first_output_ms:.0f} ms, in all {finished.duration_ms:.0f} ms"


def _result(result: tool_pb.ToolResult) -> str:
    status = enum_word(tool_pb.ExecutionStatus.DESCRIPTOR, result.status).replace("_", " ")
    remembered = ", remembered" if result.replayed else ""
    return f"{result.tool} {status}, {result.duration_ms:.1f} ms{remembered}"


def _decision(resolved: event_pb.ApprovalResolved) -> str:
    if resolved.decision == event_pb.APPROVAL_DECISION_EXPIRE:
        return f"{resolved.approval_id} expired: nobody decided in time"
    word = "approved" if resolved.decision == event_pb.APPROVAL_DECISION_APPROVE else "denied"
    reason = f": {resolved.reason}" if resolved.reason else ""
    more = f"; {resolved.outstanding} more must approve" if resolved.outstanding else ""
    return f"{resolved.approval_id} {word} by {resolved.principal}{reason}{more}"


_DESCRIBE: dict[str, Callable[[Any], str]] = {
    "run_created": lambda e: f"{e.agent.name}: {text_of(e.input)}",
    "run_started": lambda e: f"driver {e.driver_id}, epoch {e.epoch}",
    "run_resumed": lambda e: f"driver {e.driver_id}, epoch {e.epoch}",
    "context_built": _context,
    "model_started": _model_started,
    "tool_call_started": lambda e: e.tool,
    "tool_call_completed": lambda e: call_text(e.call),
    "model_seam": lambda e: f"{e.seam.provider}/{e.seam.model} goes on after {e.seam.text_characters} characters: {e.seam.fault.reason}",
    "model_finished": _model_finished,
    "model_failed": lambda e: f"{e.fault.reason}: {e.fault.message}{'; tried again' if e.will_retry else ''}",
    "messages_committed": lambda e: f"{len(e.message_ids)} message{'s' if len(e.message_ids) != 1 else ''}",
    "usage_recorded": lambda e: f"so far {tokens_of(e.total)} {cost_of(e.total)}".rstrip(),
    "tool_execution_started": lambda e: e.tool,
    "tool_execution_progress": lambda e: e.progress.message,
    "tool_execution_finished": lambda e: _result(e.result),
    "doom_loop_detected": lambda e: f"{e.pattern} of {', '.join(e.tools)}{'; warned' if e.warned else ''}",
    "input_received": lambda e: text_of(e.input),
    "cancel_requested": lambda e: e.reason,
    "approval_requested": lambda e: f"{e.tool} {e.approval_id}, until {e.expires_at.ToJsonString()}",
    "approval_resolved": _decision,
    "run_completed": lambda e: f"{finish_word(e.finish_reason)} after {e.turns} turn{'s' if e.turns != 1 else ''}",
    "run_failed": lambda e: f"{e.fault.reason}: {e.fault.message}",
    "run_cancelled": lambda e: e.reason,
}
