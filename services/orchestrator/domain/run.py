"""The state of a run and how each event changes it. Everything that affects that state lives here and in LEGAL."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from orchestrator.domain import events as e
from orchestrator.domain.approvals import Approval, Vote, permission_of
from orchestrator.domain.loops import MEMORY, Step
from orchestrator.domain.values import (
    OWN_SERVICE,
    Action,
    Agent,
    CallId,
    CallStatus,
    Failure,
    Finish,
    MessageId,
    RunId,
    SessionId,
    ToolCall,
    Usage,
)


class Phase(enum.Enum):
    """Where a run stands between two events."""

    NEW = "new"
    QUEUED = "queued"
    READY = "ready"
    CALLING = "calling"
    ANSWERED = "answered"
    AWAITING = "awaiting"
    EXECUTING = "executing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class CallState:
    """A tool call of the present turn and how far it got. `content_digest` is empty until it finished."""

    call: ToolCall
    started: bool = False
    finished: bool = False
    content_digest: str = ""
    approval: Approval | None = None


class Run(NamedTuple):
    """A folded log. Times are seconds since the epoch. A named tuple, since one is made per event and that is the quickest to make.

    `attempt` counts the model calls of the turn, `refusals` those among them that failed by themselves: not because somebody
    interrupted them or their driver died.
    """

    id: RunId
    session_id: SessionId
    phase: Phase = Phase.NEW
    sequence: int = 0
    created_at: float = 0.0
    agent: Agent = Agent("")
    created: e.RunCreated | None = None
    turn: int = 0
    attempt: int = 0
    continuation: int = 0
    retrying: bool = False
    refusals: int = 0
    partial: str = ""
    finish: Finish = Finish.UNSPECIFIED
    answer_id: MessageId = MessageId("")
    calls: tuple[CallState, ...] = ()
    tool_calls: int = 0
    usage: Usage = Usage()
    failure: Failure | None = None
    cancel: str | None = None
    inputs: tuple[e.InputReceived, ...] = ()
    steps: tuple[Step, ...] = ()
    steps_taken: int = 0
    warned_at: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the terminal event was folded."""
        return self.phase is Phase.ENDED

    @property
    def deadline(self) -> float:
        """When its wall time is used up."""
        return self.created_at + self.agent.limits.max_wall_ms / 1000

    def stopped(self, now: float) -> bool:
        """Whether it was cancelled or its wall time is used up, at `now` seconds since the epoch."""
        return self.cancel is not None or now >= self.deadline

    @property
    def unfinished(self) -> tuple[CallState, ...]:
        """The calls of the present turn that have no outcome."""
        return tuple(call for call in self.calls if not call.finished)

    @property
    def unasked(self) -> tuple[CallState, ...]:
        """The calls of the present turn that need an approval which was not asked for."""
        if not self.agent.permissions:
            return ()
        return tuple(call for call in self.unfinished if call.approval is None and self.action(call) is Action.ASK)

    @property
    def undecided(self) -> tuple[Approval, ...]:
        """The approvals that calls of the present turn wait for."""
        return tuple(call.approval for call in self.calls if call.approval is not None and call.approval.pending)

    def action(self, call: CallState) -> Action:
        """What the agent's rules say of a call."""
        return permission_of(self.agent.permissions, call.call).action

    def refusal(self, call: CallState) -> str:
        """Why a call must not run, for the model; empty when it may."""
        if not self.agent.permissions:
            return ""
        if call.approval is not None:
            return call.approval.refusal
        return f"denied: agent {self.agent.name} may not call {call.call.name}" if self.action(call) is Action.DENY else ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event at its place in the log. `time` is in seconds since the epoch."""

    sequence: int
    time: float
    event: e.Event


class IllegalEvent(Exception):
    """An event that cannot happen in the run's phase, or out of sequence. It is refused before it is written."""


_UNDER_WAY = frozenset({Phase.READY, Phase.CALLING, Phase.ANSWERED, Phase.AWAITING, Phase.EXECUTING})
_OPEN = _UNDER_WAY | {Phase.QUEUED}

LEGAL: dict[type[Any], frozenset[Phase]] = {
    e.RunCreated: frozenset({Phase.NEW}),
    e.RunStarted: frozenset({Phase.QUEUED}),
    e.RunResumed: _UNDER_WAY,
    e.ContextBuilt: frozenset({Phase.READY, Phase.ANSWERED}),
    e.ModelStarted: frozenset({Phase.READY, Phase.ANSWERED}),
    e.TextDelta: frozenset({Phase.CALLING}),
    e.ReasoningDelta: frozenset({Phase.CALLING}),
    e.ToolCallStarted: frozenset({Phase.CALLING}),
    e.ToolCallDelta: frozenset({Phase.CALLING}),
    e.ToolCallCompleted: frozenset({Phase.CALLING}),
    e.ModelSeam: frozenset({Phase.CALLING}),
    e.ModelFinished: frozenset({Phase.CALLING}),
    e.ModelFailed: frozenset({Phase.CALLING}),
    e.MessagesCommitted: _OPEN,
    e.UsageRecorded: _UNDER_WAY,
    e.ToolExecutionStarted: frozenset({Phase.ANSWERED, Phase.EXECUTING}),
    e.ToolExecutionProgress: frozenset({Phase.EXECUTING}),
    e.ToolExecutionFinished: frozenset({Phase.ANSWERED, Phase.EXECUTING}),
    e.DoomLoopDetected: frozenset({Phase.READY}),
    e.InputReceived: _OPEN,
    e.CancelRequested: _OPEN,
    e.ApprovalRequested: frozenset({Phase.ANSWERED, Phase.AWAITING}),
    e.ApprovalResolved: _OPEN,
    e.RunCompleted: frozenset({Phase.ANSWERED}),
    e.RunFailed: _OPEN,
    e.RunCancelled: _OPEN,
    e.Unrecognised: _OPEN,
}
"""Which event may happen in which phase."""


def fold(run: Run, log: Iterable[Recorded]) -> Run:
    """The run after a stretch of its log."""
    for recorded in log:
        run = evolve(run, recorded)
    return run


def evolve(run: Run, recorded: Recorded) -> Run:
    """The run after one more event. Raises IllegalEvent for one that cannot be the next."""
    event = recorded.event
    if recorded.sequence != run.sequence + 1:
        raise IllegalEvent(f"{type(event).__name__} has sequence {recorded.sequence} after {run.sequence}")
    if run.phase not in LEGAL[type(event)]:
        raise IllegalEvent(f"{type(event).__name__} cannot happen to a run that is {run.phase.value}")
    apply = _APPLY.get(type(event))
    if apply is None:
        return run._replace(sequence=recorded.sequence)
    return run._replace(sequence=recorded.sequence, **apply(run, recorded))


Change = dict[str, Any]


def _created(run: Run, recorded: Recorded) -> Change:
    assert isinstance(recorded.event, e.RunCreated)
    return {"phase": Phase.QUEUED, "created": recorded.event, "agent": recorded.event.agent, "created_at": recorded.time}


def _started(run: Run, recorded: Recorded) -> Change:
    return {"phase": Phase.READY}


def _model_started(run: Run, recorded: Recorded) -> Change:
    event = recorded.event
    assert isinstance(event, e.ModelStarted)
    return {
        "phase": Phase.CALLING,
        "turn": event.turn,
        "attempt": event.attempt,
        "continuation": event.continuation,
        "retrying": False,
        "refusals": run.refusals if event.attempt > 1 else 0,
        "partial": "",
        "calls": (),
        "finish": Finish.UNSPECIFIED,
        "answer_id": MessageId(""),
    }


def _text(run: Run, recorded: Recorded) -> Change:
    assert isinstance(recorded.event, e.TextDelta)
    return {"partial": run.partial + recorded.event.text}


def _call_completed(run: Run, recorded: Recorded) -> Change:
    assert isinstance(recorded.event, e.ToolCallCompleted)
    return {"calls": (*run.calls, CallState(recorded.event.call))}


def _model_finished(run: Run, recorded: Recorded) -> Change:
    assert isinstance(recorded.event, e.ModelFinished)
    return {"phase": Phase.ANSWERED, "finish": recorded.event.finish, "failure": None}


def _model_failed(run: Run, recorded: Recorded) -> Change:
    event = recorded.event
    assert isinstance(event, e.ModelFailed)
    failure = None if event.will_retry else event.failure
    refusals = run.refusals + (event.failure.service != OWN_SERVICE)
    change: Change = {"phase": Phase.READY, "retrying": event.will_retry, "refusals": refusals, "failure": failure, "calls": ()}
    return change | {"partial": ""} if event.will_retry else change


def _committed(run: Run, recorded: Recorded) -> Change:
    event = recorded.event
    assert isinstance(event, e.MessagesCommitted)
    ids = frozenset(event.message_ids)
    waiting = tuple(i for i in run.inputs if i.entry.id not in ids)
    change: Change = {"inputs": waiting}
    if run.phase in (Phase.CALLING, Phase.ANSWERED):
        change["partial"] = ""
    if run.phase is Phase.ANSWERED and event.message_ids and not run.answer_id:
        change["answer_id"] = event.message_ids[-1]
    if run.phase is Phase.ANSWERED and len(waiting) < len(run.inputs):
        change["phase"] = Phase.READY
    return change


def _usage(run: Run, recorded: Recorded) -> Change:
    assert isinstance(recorded.event, e.UsageRecorded)
    return {"usage": recorded.event.total}


def _execution_started(run: Run, recorded: Recorded) -> Change:
    event = recorded.event
    assert isinstance(event, e.ToolExecutionStarted)
    calls = _with(run.calls, event.call_id, lambda call: replace(call, started=True))
    return {"phase": Phase.EXECUTING, "calls": calls, "tool_calls": run.tool_calls + 1}


def _execution_finished(run: Run, recorded: Recorded) -> Change:
    event = recorded.event
    assert isinstance(event, e.ToolExecutionFinished)
    if run.phase is Phase.ANSWERED and event.status is not CallStatus.DENIED:
        raise IllegalEvent(f"call {event.call_id!r} finished and no call was started")
    calls = _with(run.calls, event.call_id, lambda call: replace(call, finished=True, content_digest=event.content_digest))
    if any(not call.finished for call in calls):
        return {"calls": calls}
    return {"phase": Phase.READY, "calls": calls} | _step(run, calls)


def _with(calls: tuple[CallState, ...], call_id: CallId, change: Callable[[CallState], CallState]) -> tuple[CallState, ...]:
    if all(call.call.id != call_id for call in calls):
        raise IllegalEvent(f"the model asked for no call {call_id!r}")
    return tuple(change(call) if call.call.id == call_id else call for call in calls)


def _step(run: Run, calls: tuple[CallState, ...]) -> Change:
    counted = tuple(call for call in calls if call.call.name not in run.agent.loop_exempt_tools)
    if not counted:
        return {}
    step = Step.of((call.call.name, call.call.digest, call.content_digest) for call in counted)
    return {"steps": (*run.steps, step)[-MEMORY:], "steps_taken": run.steps_taken + 1}


def _looped(run: Run, recorded: Recorded) -> Change:
    return {"warned_at": run.steps_taken}


def _input(run: Run, recorded: Recorded) -> Change:
    assert isinstance(recorded.event, e.InputReceived)
    return {"inputs": (*run.inputs, recorded.event)}


def _cancel(run: Run, recorded: Recorded) -> Change:
    assert isinstance(recorded.event, e.CancelRequested)
    return {"cancel": recorded.event.reason if run.cancel is None else run.cancel}


def _requested(run: Run, recorded: Recorded) -> Change:
    event = recorded.event
    assert isinstance(event, e.ApprovalRequested)
    approval = Approval(event.approval_id, event.digest, event.needed, recorded.time, event.expires_at)
    return {"phase": Phase.AWAITING, "calls": _with(run.calls, event.call_id, lambda call: replace(call, approval=approval))}


def _resolved(run: Run, recorded: Recorded) -> Change:
    """A decision about what is decided, or was never asked for, changes nothing: the first in the log counts."""
    event = recorded.event
    assert isinstance(event, e.ApprovalResolved)
    vote = Vote(event.principal, event.decision, event.reason, recorded.time)
    calls = tuple(_voted(call, event.approval_id, vote) for call in run.calls)
    decided = run.phase is Phase.AWAITING and not any(call.approval and call.approval.pending for call in calls)
    return {"calls": calls, "phase": Phase.ANSWERED if decided else run.phase}


def _voted(call: CallState, approval_id: str, vote: Vote) -> CallState:
    if call.approval is None or call.approval.id != approval_id:
        return call
    return replace(call, approval=call.approval.with_vote(vote))


def _ended(run: Run, recorded: Recorded) -> Change:
    return {"phase": Phase.ENDED, "partial": "", "inputs": ()}


_APPLY: dict[type[Any], Callable[[Run, Recorded], Change]] = {
    e.RunCreated: _created,
    e.RunStarted: _started,
    e.ModelStarted: _model_started,
    e.TextDelta: _text,
    e.ToolCallCompleted: _call_completed,
    e.ModelFinished: _model_finished,
    e.ModelFailed: _model_failed,
    e.MessagesCommitted: _committed,
    e.UsageRecorded: _usage,
    e.ToolExecutionStarted: _execution_started,
    e.ToolExecutionFinished: _execution_finished,
    e.DoomLoopDetected: _looped,
    e.InputReceived: _input,
    e.CancelRequested: _cancel,
    e.ApprovalRequested: _requested,
    e.ApprovalResolved: _resolved,
    e.RunCompleted: _ended,
    e.RunFailed: _ended,
    e.RunCancelled: _ended,
}
