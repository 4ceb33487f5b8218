"""A run as it happens: the answer as it is produced, tools as they are called, and at the end what it took."""

from __future__ import annotations

from collections.abc import AsyncIterator

from behest.event.v1 import event_pb2 as event_pb
from behest.tool.v1 import tool_pb2 as tool_pb
from chassis.faults import Fault
from suite import timeline
from suite.cli.outcome import Exit, command, message_of, tell
from suite.cli.output import Output
from suite.following import is_terminal, kind_of
from suite.handle import as_fault
from suite.plain import enum_word
from suite.transcript import Transcript


class Live:
    """Shows one run. `show` each event in order; `exit` says how the command should end."""

    def __init__(self, output: Output) -> None:
        self.exit = Exit.OK
        self._output = output
        self._transcript = Transcript()
        self._started = 0.0
        self._midline = False

    async def follow(self, events: AsyncIterator[event_pb.Event]) -> Exit:
        """Shows events until the run ends."""
        async for event in events:
            self.show(event)
        return self.exit

    def show(self, event: event_pb.Event) -> None:
        """Shows one event: as an object, or as a person wants to see it."""
        kind = kind_of(event)
        if kind in ("run_failed", "run_cancelled"):
            self.exit = Exit.FAILED
        if is_terminal(event) and not self._output.json:
            self._end_line()
        if self._output.json:
            self._output.event(event)
        else:
            self._text(event)
            self._aside(kind, event)

    def _text(self, event: event_pb.Event) -> None:
        piece = self._transcript.feed(event)
        if piece is None:
            return
        if piece.retracts:
            self._beside("the model is asked again; what it said in this turn so far does not count")
        self._output.write(piece)
        self._midline = not piece.endswith("\n") if piece else self._midline

    def _aside(self, kind: str, event: event_pb.Event) -> None:
        match kind:
            case "run_created":
                self._started = timeline.started_at(event)
            case "tool_call_completed":
                self._beside(f"⚙ {timeline.shortened(timeline.call_text(event.tool_call_completed.call))}")
            case "model_seam":
                seam = event.model_seam.seam
                self._beside(f"{seam.provider}/{seam.model} goes on where the answer broke off: {seam.fault.reason}")
            case "tool_execution_finished":
                self._tool_finished(event.tool_execution_finished.result)
            case "approval_requested":
                self._waits(event.approval_requested)
            case "approval_resolved":
                self._beside(timeline.row(event, self._started).details)
            case "doom_loop_detected":
                self._beside(f"the model repeats itself: {event.doom_loop_detected.pattern}")
            case "run_completed":
                self._summary(event, event.run_completed.turns)
            case "run_failed":
                self._failed(as_fault(event.run_failed.fault))
            case "run_cancelled":
                self._beside(": ".join(part for part in ("cancelled", event.run_cancelled.reason) if part))

    def _tool_finished(self, result: tool_pb.ToolResult) -> None:
        status = enum_word(tool_pb.ExecutionStatus.DESCRIPTOR, result.status).replace("_", " ")
        self._beside(f"  {result.tool} {status} in {result.duration_ms:.1f} ms")

    def _waits(self, requested: event_pb.ApprovalRequested) -> None:
        self._beside(f"{requested.tool} waits for approval: {command()} approve {requested.approval_id}, or {command()} deny")

    def _failed(self, fault: Fault) -> None:
        self._end_line()
        tell(message_of(fault))

    def _summary(self, event: event_pb.Event, turns: int) -> None:
        usage = event.run_completed.usage
        parts = [
            f"{turns} turn{'s' if turns != 1 else ''}",
            f"{timeline.tokens_of(usage)} tokens",
            timeline.duration(timeline.started_at(event) - self._started),
            timeline.cost_of(usage),
            f"run {event.run_id}",
            f"session {event.session_id}",
        ]
        self._end_line()
        self._output.aside_of([part for part in parts if part])

    def _beside(self, text: str) -> None:
        """Says something about the run, apart from its text."""
        self._end_line()
        self._output.aside(text)

    def _end_line(self) -> None:
        if self._midline:
            self._output.line()
            self._midline = False
