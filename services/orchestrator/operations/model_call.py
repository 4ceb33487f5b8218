"""Performs a model call: composes the context, streams the answer into the log, and commits the message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from zlib import crc32

from chassis.faults import CallCancelled, Fault, ServiceUnavailable
from chassis.waypoints import waypoint
from chassis.world import Clock
from orchestrator.domain import events as e
from orchestrator.domain.run import Run
from orchestrator.domain.values import Failure
from orchestrator.operations.bearing import Interruption, bear
from orchestrator.operations.coalesce import Coalescer
from orchestrator.operations.context import Context, Window
from orchestrator.operations.inbox import Inbox, Signal
from orchestrator.operations.log import Log
from orchestrator.operations.ports import AWAY, Answer, Ask, Output, Patience, Ports, Spent, SpentOutput, Toolset
from orchestrator.operations.toolbox import Toolbox

WillRetry = Callable[[Run, Failure], bool]


class Attempt:
    """What one attempt has produced so far."""

    def __init__(self, turn: int, began: float) -> None:
        self.deltas = Coalescer(turn)
        self.began = began
        self.first_output: float | None = None
        self.answer: Answer | None = None
        self.wasted: list[Spent] = []
        self._spent: Spent | None = None

    def take(self, outputs: Sequence[Output], now: float) -> None:
        """Takes in more of the answer."""
        for output in outputs:
            if isinstance(output, SpentOutput):
                self._spent = output.spent
                continue
            if self.first_output is None:
                self.first_output = now
            if isinstance(output, Answer):
                self.answer = output
            else:
                self.deltas.add(output)

    def broke(self) -> None:
        """The stream ended; what it had spent without giving an answer is wasted, but not forgotten."""
        if self._spent and self.answer is None:
            self.wasted.append(self._spent)
        self._spent = None

    def milliseconds(self, now: float) -> tuple[float, float]:
        """Until the first output, and in all."""
        first = self.first_output if self.first_output is not None else now
        return round((first - self.began) * 1000, 3), round((now - self.began) * 1000, 3)


class ModelCall:
    """Calls models for one run."""

    def __init__(self, log: Log, ports: Ports, clock: Clock, patience: Patience, signal: Signal, will_retry: WillRetry) -> None:
        self._log = log
        self._ports = ports
        self._clock = clock
        self._patience = patience
        self._signal = signal
        self._will_retry = will_retry

    async def perform(self, started: e.ModelStarted, window: Window, toolbox: Toolbox) -> None:
        """Makes one attempt. Its events are staged when it returns, deltas appended before."""
        if not await self._rested():
            return
        toolset = await bear(lambda: toolbox.show(self._log.run), self._log, self._signal, self._clock, self._patience)
        if toolset is None:
            return
        context = window.compose(self._log.joining)
        self._log.stage(e.ContextBuilt(started.turn, context.shares, context.dropped), plan=True)
        self._log.stage(started, plan=True)
        if not await self._log.commit():
            return
        waypoint("driver.model.before")
        await self._attempt(self._ask(started, context, toolset))

    async def _rested(self) -> bool:
        """Leaves a model alone for a while whose answer broke; False when the run is to be decided anew."""
        run = self._log.run
        again = run.refusals - len(run.agent.models())
        if not run.retrying or again < 0:
            return True
        if not await self._log.commit():  # how it broke is not kept back
            return False
        decided = self._log.run
        await self._signal.rest(self._pause(run, again))
        return await self._log.heed(self._signal) is decided and not decided.stopped(self._clock.now())

    def _pause(self, run: Run, again: int) -> float:
        """Twice as long each time, and not the same for all runs that the same provider broke."""
        spread = 0.75 + 0.25 * crc32(run.id.encode()) / 2**32
        pause: float = min(self._patience.longest_retry, self._patience.retry * 2**again)
        return max(0.0, min(pause * spread, run.deadline - self._clock.now()))

    def _ask(self, started: e.ModelStarted, context: Context, toolset: Toolset) -> Ask:
        run = self._log.run
        key = f"{run.id}/{started.turn}/{started.continuation}/{started.attempt}"
        first, continuing = started.turn == 1 and not started.continuation, started.continuation > 0
        return Ask(key, started.model, run, context.entries, context.system, toolset, first, continuing)

    async def _attempt(self, ask: Ask) -> None:
        attempt = Attempt(self._log.run.turn, self._clock.monotonic())
        interruption = Interruption(self._clock, self._patience)
        while True:
            interruption.asking()
            fault = await self._stream(ask, attempt)
            attempt.broke()
            lost = isinstance(fault, AWAY) and attempt.first_output is None
            pause = interruption.pause() if lost else None
            if pause is None or await self._stopping():
                break
            await self._signal.wait(pause)
        waypoint("driver.model.after")
        self._conclude(attempt, ask.tools, fault)

    async def _stream(self, ask: Ask, attempt: Attempt) -> Fault | None:
        """Reads the answer until it is complete, broken, or no longer wanted."""
        async with Inbox(self._ports.models.stream(ask), self._signal) as inbox:
            while True:
                ended = inbox.ended
                attempt.take(inbox.take(), self._clock.monotonic())
                if ended or attempt.answer or await self._stopping():
                    return inbox.fault
                await self._flush_or_wait(attempt.deltas)

    async def _flush_or_wait(self, deltas: Coalescer) -> None:
        now = self._clock.monotonic()
        due = deltas.wait(now)
        if due == 0:
            self._stage(deltas.take(now))
            await self._log.commit()
        else:
            left = self._log.run.deadline - self._clock.now()
            await self._signal.wait(max(0.0, left if due is None else min(due, left)))

    async def _stopping(self) -> bool:
        """Whether the run was cancelled, interrupted, or is out of time."""
        run = await self._log.heed(self._signal)
        return any(i.interrupt for i in run.inputs) or run.stopped(self._clock.now())

    def _stage(self, events: Sequence[e.Event]) -> None:
        for event in events:
            self._log.stage(event)

    def _conclude(self, attempt: Attempt, tools: Toolset, fault: Fault | None) -> None:
        for spent in attempt.wasted:
            self._spend(spent)
        if attempt.answer:
            self._answered(attempt, attempt.answer, tools)
            return
        self._stage(attempt.deltas.take(self._clock.monotonic()))
        run = self._log.run
        if run.stopped(self._clock.now()):
            return
        if any(i.interrupt for i in run.inputs):
            self._interrupted()
        else:
            self._failed(fault or ServiceUnavailable("the model's answer ended without its end"))

    def _answered(self, attempt: Attempt, answer: Answer, tools: Toolset) -> None:
        run = self._log.run
        calls = answer.calls
        if run.agent.permissions:
            calls = tuple(replace(call, destructive=call.name in tools.destructive) for call in calls)
        self._stage(attempt.deltas.last_words())
        self._stage([e.ToolCallCompleted(run.turn, call) for call in calls])
        first, whole = attempt.milliseconds(self._clock.monotonic())
        self._log.stage(
            e.ModelFinished(
                run.turn, run.attempt, answer.finish, answer.finish_raw, answer.provider, answer.model, answer.warnings, first, whole
            )
        )
        self._spend(Spent(answer.provider, answer.model, answer.usage))
        if answer.entry:
            self._log.stage(e.MessagesCommitted(run.turn, (answer.entry.id,)), answer.entry)

    def _spend(self, spent: Spent) -> None:
        run = self._log.run
        self._log.stage(e.UsageRecorded(run.turn, spent.usage, run.usage + spent.usage), spent=spent)

    def _interrupted(self) -> None:
        run = self._log.run
        if run.partial:
            entry = self._ports.scribe.assistant(run.partial)
            self._log.stage(e.MessagesCommitted(run.turn, (entry.id,)), entry)
        failure = Failure.of(CallCancelled("new input interrupted this model call"))
        self._log.stage(e.ModelFailed(run.turn, run.attempt, failure, will_retry=True))

    def _failed(self, fault: Fault) -> None:
        run = self._log.run
        failure = Failure.of(fault, "provider-gateway")
        self._log.stage(e.ModelFailed(run.turn, run.attempt, failure, self._will_retry(run, failure)))
