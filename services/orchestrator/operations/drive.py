"""The loop: fold, decide, perform, append, repeat. There is no other, fresh or resumed, streaming or not."""

from __future__ import annotations

from chassis.faults import Fault
from chassis.world import Clock
from orchestrator.domain import events as e
from orchestrator.domain.approvals import Decision, permission_of
from orchestrator.domain.decide import (
    AbandonAttempt,
    AskApproval,
    Begin,
    CallModel,
    Effect,
    End,
    Expire,
    Rest,
    RunTools,
    TakeInputs,
    Warn,
    decide,
    failed,
    will_retry,
)
from orchestrator.domain.run import CallState, Phase, Run
from orchestrator.domain.values import CallStatus, Entry
from orchestrator.operations.bearing import bear
from orchestrator.operations.context import Window, newest, source_named
from orchestrator.operations.inbox import Signal
from orchestrator.operations.log import Log
from orchestrator.operations.model_call import ModelCall
from orchestrator.operations.ports import Lease, Patience, Ports
from orchestrator.operations.tool_batch import ToolBatch
from orchestrator.operations.toolbox import Toolbox

WARNING = (
    "[behest] You are repeating the same tool calls with the same results ({pattern}: {tools}). "
    "Do not repeat them: use what you know, try something else, or answer the user."
)
NOT_RUN = "not run: the run ended first"
OUTCOME_UNKNOWN = "the run ended while this was under way; whether it took effect is unknown"


class Drive:
    """Drives one run to its end, or until it awaits approval, as long as this driver holds its lease."""

    def __init__(self, run: Run, lease: Lease, ports: Ports, clock: Clock, patience: Patience, signal: Signal) -> None:
        self._ports = ports
        self._clock = clock
        self._lease = lease
        self._patience = patience
        self._signal = signal
        self._window: Window | None = None
        self._rests = False
        self._toolbox = Toolbox(ports.tools)
        self._log = Log(run, lease, ports.journal, clock, self._joined)
        self._models = ModelCall(self._log, ports, clock, patience, signal, will_retry)
        self._tools = ToolBatch(self._log, ports, clock, patience, signal)

    @property
    def run(self) -> Run:
        """The run as far as it got."""
        return self._log.run

    async def to_the_end(self) -> None:
        """Drives until the terminal event is durable, or nobody has to drive. Raises LeaseLost when another driver has the run."""
        if self.run.phase is not Phase.QUEUED:
            self._log.stage(e.RunResumed(self._lease.driver_id, self._lease.epoch))
        while not self.run.ended and not self._rests:
            await self._perform(decide(self.run, self._clock.now()))

    async def fail(self, fault: Fault) -> None:
        """Ends a run that cannot go on, whatever state it is in. An end that was planned and could not be written is none."""
        self._log.drop_plans()
        while not self.run.ended:
            await self._end(failed(self.run, fault))

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Begin():
                self._log.stage(e.RunStarted(self._lease.driver_id, self._lease.epoch))
            case AbandonAttempt(event):
                self._log.stage(event)
            case CallModel(turn, attempt, continuation, model):
                started = e.ModelStarted(turn, attempt, model, continuation)
                window = await self._open_window()
                if window is not None:
                    await self._models.perform(started, window, self._toolbox)
            case AskApproval(calls):
                self._ask(calls)
            case Expire(approvals):
                for approval in approvals:
                    self._log.stage(e.ApprovalResolved(approval.id, Decision.EXPIRE), plan=True)
            case Rest(until):
                self._rests = await self._log.rest(until)
            case RunTools(calls):
                await self._tools.perform(calls, self._toolbox)
            case TakeInputs(inputs):
                self._take(inputs)
            case Warn(pattern, tools):
                self._warn(pattern, tools)
            case End():
                await self._end(effect)

    async def _open_window(self) -> Window | None:
        """The messages that the model may see; None when the run is to be decided anew instead."""
        if self._window is None:
            agent, session_id = self.run.agent, self.run.session_id
            with source_named("history"):
                tail = await bear(
                    lambda: newest(self._ports.histories, session_id, agent), self._log, self._signal, self._clock, self._patience
                )
            self._window = None if tail is None else Window(agent, tail)
        return self._window

    def _joined(self, entries: tuple[Entry, ...]) -> None:
        if self._window is not None:
            self._window.joined(entries)

    def _ask(self, calls: tuple[CallState, ...]) -> None:
        run, now = self.run, self._clock.now()
        for call in calls:
            rule = permission_of(run.agent.permissions, call.call)
            id_, digest = f"{run.id}/{run.turn}/{call.call.id}", self._ports.scribe.exact_digest(call.call)
            expires_at = min(now + rule.expires_ms / 1000, run.deadline)
            event = e.ApprovalRequested(run.turn, id_, call.call.id, call.call.name, digest, expires_at, rule.needed)
            self._log.stage(event, plan=True)

    def _take(self, inputs: tuple[e.InputReceived, ...]) -> None:
        entries = tuple(i.entry for i in inputs)
        self._log.stage(e.MessagesCommitted(self.run.turn, tuple(entry.id for entry in entries)), *entries, plan=True)

    def _warn(self, pattern: str, tools: tuple[str, ...]) -> None:
        entry = self._ports.scribe.user(WARNING.format(pattern=pattern, tools=", ".join(tools)))
        event = e.DoomLoopDetected(self.run.turn, pattern, tools, warned=True, message_id=entry.id)
        self._log.stage(event, entry, plan=True)

    async def _end(self, end: End) -> None:
        closing = [self._close(call) for call in end.unanswered]
        if end.partial:
            closing.insert(0, self._ports.scribe.assistant(end.partial))
        closing += [unheard.entry for unheard in end.unheard]
        if closing:
            self._log.stage(e.MessagesCommitted(self.run.turn, tuple(entry.id for entry in closing)), *closing, plan=True)
        self._log.stage(end.event, plan=True)
        await self._log.commit()

    def _close(self, call: CallState) -> Entry:
        entry = self._ports.scribe.result(call.call, OUTCOME_UNKNOWN if call.started else NOT_RUN, is_error=True)
        if call.started:
            record = self._ports.scribe.stopped(call.call, CallStatus.UNKNOWN)
            digest = self._ports.scribe.digest(OUTCOME_UNKNOWN)
            finished = e.ToolExecutionFinished(self.run.turn, call.call.id, CallStatus.UNKNOWN, digest, entry.id, record)
            self._log.stage(finished, plan=True)
        return entry
