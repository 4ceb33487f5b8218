"""Performs the tool calls of one turn: writes the intent, asks the executor, and commits the results in call order."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.faults import Fault, ServiceUnavailable
from chassis.world import Clock
from orchestrator.domain import events as e
from orchestrator.domain.run import CallState
from orchestrator.domain.values import CallId, Entry, ToolCall
from orchestrator.operations.coalesce import Coalescer
from orchestrator.operations.inbox import Inbox, Signal
from orchestrator.operations.log import Log
from orchestrator.operations.ports import AWAY, Outcome, Patience, Ports


class ToolBatch:
    """Runs tools for one run."""

    def __init__(self, log: Log, ports: Ports, clock: Clock, patience: Patience, signal: Signal) -> None:
        self._log = log
        self._ports = ports
        self._clock = clock
        self._patience = patience
        self._signal = signal

    async def perform(self, calls: Sequence[CallState]) -> None:
        """Runs the calls; their outcomes are staged when it returns. Calls already started are asked for again by key, not run again."""
        run = self._log.run
        for state in calls:
            if not state.started:
                call = state.call
                self._log.stage(e.ToolExecutionStarted(run.turn, call.id, call.name, call.digest), plan=True)
        if await self._log.commit():
            await self._execute([state.call for state in calls])

    async def _execute(self, calls: Sequence[ToolCall]) -> None:
        outcomes: dict[CallId, Outcome] = {}
        patience_ends, backoff = self._clock.monotonic() + self._patience.neighbour, self._patience.backoff
        while True:
            fault = await self._stream(calls, outcomes)
            if len(outcomes) == len(calls) or await self._stopping():
                break
            lost = fault is None or isinstance(fault, AWAY)
            if not lost or self._clock.monotonic() >= patience_ends:
                self._record(calls, outcomes)
                raise fault or ServiceUnavailable("the tool executor ended its stream before every call had a result")
            await self._signal.wait(backoff)
            backoff = min(2 * backoff, self._patience.longest_backoff)
        self._record(calls, outcomes)

    async def _stream(self, calls: Sequence[ToolCall], outcomes: dict[CallId, Outcome]) -> Fault | None:
        run = self._log.run
        open_calls = [call for call in calls if call.id not in outcomes]
        toolset = await self._ports.tools.visible(run.id, run.agent)
        deltas = Coalescer(run.turn)
        leave_at: float | None = None
        async with Inbox(self._ports.tools.execute(run, open_calls, toolset.names), self._signal) as inbox:
            while True:
                ended = inbox.ended
                for item in inbox.take():
                    if isinstance(item, Outcome):
                        outcomes[item.call_id] = item
                    else:
                        deltas.add(item)
                if ended or len(outcomes) == len(calls):
                    return inbox.fault
                if leave_at is None and await self._stopping():
                    leave_at = self._clock.monotonic() + self._patience.stopping
                    await self._cancel(open_calls)
                if leave_at is not None and self._clock.monotonic() >= leave_at:
                    return None
                await self._flush_or_wait(deltas, leave_at)

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
        try:
            await self._ports.tools.cancel(self._log.run, calls)
        except AWAY:
            return  # an executor that is away is not running them

    def _record(self, calls: Sequence[ToolCall], outcomes: dict[CallId, Outcome]) -> None:
        """Stages what is known, in call order; the messages join the session together."""
        turn = self._log.run.turn
        entries: list[Entry] = []
        for call in calls:
            outcome = outcomes.get(call.id)
            if outcome is None:
                continue
            entry = self._ports.scribe.result(call, outcome.content, outcome.is_error)
            digest = self._ports.scribe.digest(outcome.content)
            self._log.stage(e.ToolExecutionFinished(turn, call.id, outcome.status, digest, entry.id, outcome.result), entry)
            entries.append(entry)
        if entries:
            self._log.stage(e.MessagesCommitted(turn, tuple(entry.id for entry in entries)))
