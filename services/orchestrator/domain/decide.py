"""What a run does next. Imported by operations/drive.py alone."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.faults import DoomLoop as DoomLoopFault
from chassis.faults import (
    Fault,
    IterationsExhausted,
    MoneyExhausted,
    ProviderResponseInvalid,
    ServiceUnavailable,
    TimeExhausted,
    TokensExhausted,
    ToolCallsExhausted,
)
from orchestrator.domain import events as e
from orchestrator.domain.approvals import Approval
from orchestrator.domain.loops import detect
from orchestrator.domain.run import CallState, Phase, Run
from orchestrator.domain.values import Failure, Finish

MAX_ATTEMPTS = 3
"""Attempts of one turn on top of one for each fallback model; the gateway retries beneath each."""


MOST_AT_ONCE = 128
"""Calls of one turn that are run together; the executor takes no more."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Say that a driver has it."""


@dataclass(frozen=True, slots=True)
class CallModel:
    """Compose the context and ask the model."""

    turn: int
    attempt: int
    continuation: int
    model: str


@dataclass(frozen=True, slots=True)
class AbandonAttempt:
    """Give up a model call whose driver died."""

    event: e.ModelFailed


@dataclass(frozen=True, slots=True)
class RunTools:
    """Run these calls; those already started are asked for again by key."""

    calls: tuple[CallState, ...]


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Ask people about these calls."""

    calls: tuple[CallState, ...]


@dataclass(frozen=True, slots=True)
class Expire:
    """Say that nobody decided these in time."""

    approvals: tuple[Approval, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """Let go of the run until somebody decides, or until a moment in seconds since the epoch."""

    until: float


@dataclass(frozen=True, slots=True)
class TakeInputs:
    """Let what was sent meanwhile join the session."""

    inputs: tuple[e.InputReceived, ...]


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the model that it repeats itself."""

    pattern: str
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class End:
    """Write the terminal event, after giving every open call a result and keeping partial text and unheard input for the next run."""

    event: e.Terminal
    unanswered: tuple[CallState, ...] = ()
    partial: str = ""
    unheard: tuple[e.InputReceived, ...] = ()


Effect = Begin | CallModel | AbandonAttempt | AskApproval | Expire | Rest | RunTools | TakeInputs | Warn | End


def decide(run: Run, now: float) -> Effect:
    """The one next thing to do, at `now` seconds since the epoch. The run has not ended."""
    if run.cancel is not None:
        return _end(run, e.RunCancelled(run.cancel, run.usage, run.turn))
    if now >= run.deadline:
        limit = f"{run.agent.limits.max_wall_ms} ms"
        return _fail(run, TimeExhausted(f"the run took longer than {limit}; raise limits.max_wall_ms or ask for less"))
    if run.phase is Phase.QUEUED:
        return Begin()
    if run.phase is Phase.CALLING:
        return _abandon(run)
    if run.phase is Phase.AWAITING:
        return _wait(run, now)
    if run.phase is Phase.EXECUTING:
        return RunTools(run.unfinished[:MOST_AT_ONCE])
    return _after_answer(run) if run.phase is Phase.ANSWERED else _before_call(run)


def will_retry(run: Run, fault: Failure) -> bool:
    """Whether a failed model call is tried again: on another model if there is one left, on the same for retryable reasons.

    A provider that failed before it said anything was asked again by the gateway already; asking again here would multiply the wait.
    """
    refusals = run.refusals + 1
    if refusals < len(run.agent.models()):
        return True
    if fault.reason.startswith("PROVIDER_") and not run.partial:
        return False
    return fault.retryable and refusals < MAX_ATTEMPTS + len(run.agent.fallback_models)


def _abandon(run: Run) -> Effect:
    fault = ServiceUnavailable("the driver of this model call is gone; another one asks again")
    return AbandonAttempt(e.ModelFailed(run.turn, run.attempt, Failure.of(fault), will_retry=True))


def _after_answer(run: Run) -> Effect:
    if run.finish is Finish.ERROR:
        return _fail(
            run, ProviderResponseInvalid("the provider ended its answer with an error; the raw finish reason is in model_finished")
        )
    if run.calls:
        return _tools(run)
    if run.inputs:
        return TakeInputs(run.inputs)
    if run.finish is Finish.LENGTH and run.continuation < run.agent.limits.max_continuations and not _spent(run):
        return CallModel(run.turn, 1, run.continuation + 1, run.agent.model)
    return End(e.RunCompleted(run.answer_id, run.finish, run.usage, run.turn))


def _tools(run: Run) -> Effect:
    limit = run.agent.limits.max_tool_calls
    if run.tool_calls + len(run.calls) > limit:
        return _fail(run, ToolCallsExhausted(f"the run would make more than {limit} tool calls; raise limits.max_tool_calls"))
    # Nothing of a turn runs before all of it is decided: so results join the session together, in the order of the calls.
    return AskApproval(run.unasked) if run.unasked else RunTools(run.unfinished[:MOST_AT_ONCE])


def _wait(run: Run, now: float) -> Effect:
    if run.unasked:
        return AskApproval(run.unasked)
    expired = tuple(approval for approval in run.undecided if now >= approval.expires_at)
    return Expire(expired) if expired else Rest(min(run.deadline, *(approval.expires_at for approval in run.undecided)))


def _before_call(run: Run) -> Effect:
    if run.failure is not None:
        return _end(run, e.RunFailed(run.failure, run.usage, run.turn))
    if run.inputs:
        return TakeInputs(run.inputs)
    return _loop(run) or _limit(run) or _call(run)


def _loop(run: Run) -> Effect | None:
    pattern = "" if run.warned_at == run.steps_taken else detect(run.steps)
    if not pattern:
        return None
    tools = run.steps[-1].tools
    if run.warned_at is None:
        return Warn(pattern, tools)
    message = f"the model went on repeating itself ({pattern}: {', '.join(tools)}) after a warning; look at the tools' results"
    return _fail(run, DoomLoopFault(message, metadata={"pattern": pattern}))


def _limit(run: Run) -> Effect | None:
    limits = run.agent.limits
    if not run.retrying and run.turn >= limits.max_iterations:
        return _fail(run, IterationsExhausted(f"the run used its {limits.max_iterations} iterations; raise limits.max_iterations"))
    spent = _spent(run)
    return _fail(run, spent) if spent else None


def _spent(run: Run) -> Fault | None:
    limits = run.agent.limits
    if run.usage.total_tokens >= limits.max_total_tokens:
        return TokensExhausted(f"the run used {run.usage.total_tokens} of {limits.max_total_tokens} tokens; raise limits.max_total_tokens")
    if run.usage.cost_nano_usd >= limits.max_cost_nano_usd:
        return MoneyExhausted(
            f"the run cost {run.usage.cost_nano_usd} of {limits.max_cost_nano_usd} nano-USD; raise limits.max_cost_nano_usd"
        )
    return None


def _call(run: Run) -> Effect:
    models = run.agent.models()
    if run.retrying:
        return CallModel(run.turn, run.attempt + 1, run.continuation, models[min(run.refusals, len(models) - 1)])
    return CallModel(run.turn + 1, 1, 0, models[0])


def _fail(run: Run, fault: Fault) -> End:
    return _end(run, e.RunFailed(Failure.of(fault), run.usage, run.turn))


def _end(run: Run, event: e.Terminal) -> End:
    unanswered = run.unfinished if run.phase in (Phase.ANSWERED, Phase.AWAITING, Phase.EXECUTING) else ()
    unheard = () if run.phase is Phase.QUEUED else run.inputs  # a run that never began may not hold its session
    return End(event, unanswered, run.partial, unheard)


def failed(run: Run, fault: Fault) -> End:
    """The end of a run that its driver cannot go on with."""
    return _fail(run, fault)
