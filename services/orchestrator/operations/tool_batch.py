"""Performs the tool calls of one turn: writes the intent, asks the executor, and commits the results in call order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from chassis.faults import Fault, ServiceUnavailable
from chassis.waypoints import waypoint
from chassis.world import Clock
from orchestrator.domain import events as e
from orchestrator.domain.run import CallState
from orchestrator.domain.values import CallId, CallStatus, Entry, ToolCall
from orchestrator.operations.bearing import Interruption, bear
from orchestrator.operations.coalesce import Coalescer
from orchestrator.operations.inbox import Inbox, Signal
from orchestrator.operations.log import Log
from orchestrator.operations.ports import AWAY, Outcome, Patience, Ports, Progress
from orchestrator.operations.toolbox import Toolbox

_logger = structlog.get_logger("orchestrator.tools")


@dataclass(slots=True)
class _UnderWay:
    """Calls that are being run and what has been heard of them."""

    calls: Sequence[ToolCall]
    deltas: Coalescer
    outcomes: dict[CallId, Outcome] = field(default_factory=dict)

    @property
    def open(self) -> Sequence[ToolCall]:
        """The calls without an outcome."""
        return [call for call in self.calls if call.id not in self.outcomes]

    def take(self, items: Sequence[Progress | Outcome]) -> bool:
        """Takes in what was heard; whether that was anything."""
        for item in items:
            if isinstance(item, Outcome):
                self.outcomes[item.call_id] = item
            else:
                self.deltas.add(item)
        return bool(items)


class ToolBatch:
    """Runs tools for one run."""

    def __init__(self, log: Log, ports: Ports, clock: Clock, patience: Patience, signal: Signal) -> None:
        self._log = log
        self._ports = ports
        self._clock = clock
        self._patience = patience
        self._signal = signal

    async def perform(self, calls: Sequence[CallState], toolbox: Toolbox) -> None:
        """Runs the calls; their outcomes are staged when it returns. Calls already started are asked for again by key, not run again.

        What was denied is not run: its outcome says so.
        """
        run = self._log.run
        denied = {state.call.id: self._denied(state.call, refusal) for state in calls if (refusal := run.refusal(state))}
        for state in calls:
            if not state.started and state.call.id not in denied:
                call = state.call
                self._log.stage(e.ToolExecutionStarted(run.turn, call.id, call.name, call.digest), plan=True)
        under_way = _UnderWay([state.call for state in calls], Coalescer(run.turn), denied)
        if not under_way.open:
            self._record(under_way)
        elif await self._log.commit():
            waypoint("driver.tools.before")
            await self._execute(under_way, toolbox)

    def _denied(self, call: ToolCall, refusal: str) -> Outcome:
        return Outcome(call.id, CallStatus.DENIED, refusal, True, self._ports.scribe.stopped(call, CallStatus.DENIED))

    async def _execute(self, under_way: _UnderWay, toolbox: Toolbox) -> None:
        allowed = await self._allowed(toolbox)
        if allowed is None:
            return
        interruption = Interruption(self._clock, self._patience)
        while True:
            interruption.asking()
            fault = await self._stream(under_way, allowed, interruption)
            if not under_way.open or await self._stopping():
                break
            pause = interruption.pause() if fault is None or isinstance(fault, AWAY) else None
            if pause is None:
                self._record(under_way)
                raise fault or ServiceUnavailable("the tool executor ended its stream before every call had a result")
            await self._signal.wait(pause)
        waypoint("driver.tools.after")
        self._record(under_way)

    async def _allowed(self, toolbox: Toolbox) -> Sequence[str] | None:
        """The tools that the model may have called; None when the run is to stop before that is known."""
        while not await self._stopping():
            toolset = await bear(lambda: toolbox.shown(self._log.run), self._log, self._signal, self._clock, self._patience)
            if toolset is not None:
                return toolset.names
        return None

    async def _stream(self, under_way: _UnderWay, allowed: Sequence[str], interruption: Interruption) -> Fault | None:
        open_calls, leave_at = under_way.open, None
        async with Inbox(self._ports.tools.execute(self._log.run, open_calls, allowed), self._signal) as inbox:
            while True:
                ended = inbox.ended
                if under_way.take(inbox.take()):
                    interruption.heard()
                if ended or not under_way.open:
                    return inbox.fault
                if leave_at is None and await self._stopping():
                    leave_at = self._clock.monotonic() + self._patience.stopping
                    await self._cancel(open_calls)
                if leave_at is not None and self._clock.monotonic() >= leave_at:
                    return None
                await self._flush_or_wait(under_way.deltas, leave_at)

    async def _flush_or_wait(self, deltas: Coalescer, leave_at: float | None) -> None:
        now = self._clock.monotonic()
        due = deltas.wait(now)
        if due == 0:
            for event in deltas.take(now):
                self._log.stage(event)
            await self._log.commit()
            return
        left = leave_at - now if leave_at is not None else self._log.run.deadline - self._clock.now()
        await self._signal.wait(max(0.0, left if due is None else min(due, left)))

    async def _stopping(self) -> bool:
        run = await self._log.heed(self._signal)
        return run.stopped(self._clock.now())

    async def _cancel(self, calls: Sequence[ToolCall]) -> None:
        """Asks to stop the calls. An executor that cannot do that does not keep the run from its end."""
        try:
            async with asyncio.timeout(self._patience.stopping):
                await self._ports.tools.cancel(self._log.run, calls)
        except (Fault, TimeoutError) as problem:
            _logger.warning("tool calls could not be stopped", run_id=self._log.run.id, problem=str(problem))

    def _record(self, under_way: _UnderWay) -> None:
        """Stages what is known, in call order; the messages join the session together."""
        turn = self._log.run.turn
        for event in under_way.deltas.take(self._clock.monotonic()):
            self._log.stage(event)
        entries: list[Entry] = []
        for call in under_way.calls:
            outcome = under_way.outcomes.get(call.id)
            if outcome is None:
                continue
            entry = self._ports.scribe.result(call, outcome.content, outcome.is_error)
            digest = self._ports.scribe.digest(outcome.content)
            self._log.stage(e.ToolExecutionFinished(turn, call.id, outcome.status, digest, entry.id, outcome.result), entry)
            entries.append(entry)
        if entries:
            self._log.stage(e.MessagesCommitted(turn, tuple(entry.id for entry in entries)))
