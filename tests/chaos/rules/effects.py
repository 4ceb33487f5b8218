"""What must be true of side effects: the log that the tools write themselves against what the runs and the ledger say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from behest.event.v1 import event_pb2
from behest.tool.v1 import tool_pb2
from chaos.history import History, Invocation, Trait, events_of
from chaos.rules import Finding
from chaos.rules.evidence import line, tail

_UNSAID = {tool_pb2.EXECUTION_STATUS_ARGUMENTS_INVALID, tool_pb2.EXECUTION_STATUS_TOOL_NOT_FOUND}
"""Outcomes that say that nothing was run."""
_CUT = {tool_pb2.EXECUTION_STATUS_TIMED_OUT, tool_pb2.EXECUTION_STATUS_CANCELLED, tool_pb2.EXECUTION_STATUS_FAILED}
_KEPT = {tool_pb2.EXECUTION_STATUS_SUCCEEDED, tool_pb2.EXECUTION_STATUS_FAILED, tool_pb2.EXECUTION_STATUS_TIMED_OUT}
"""Outcomes that only a receipt can have told."""


@dataclass(slots=True)
class Call:
    """One call as it is told from all sides."""

    key: str
    tool: str = ""
    begun: list[Invocation] = field(default_factory=list)
    done: list[Invocation] = field(default_factory=list)
    intent: event_pb2.Event | None = None
    outcome: tool_pb2.ToolResult | None = None

    @property
    def run_id(self) -> str:
        """The run it belongs to."""
        return self.key.partition("/")[0]

    def evidence(self, history: History) -> tuple[str, ...]:
        """All that is known of it."""
        lines = [str(each) for each in (*self.begun, *self.done)]
        receipt = history.receipts.get(self.key, b"")
        told = [f"ledger: {line(tool_pb2.Execution.FromString(receipt))}"] if receipt else ["ledger: nothing"]
        return (*lines, *told, *tail(history, self.run_id))


def calls_of(history: History) -> dict[str, Call]:
    """Every call that was begun or intended, by key."""
    calls: dict[str, Call] = defaultdict(lambda: Call(""))
    for invocation in history.invocations:
        call = _call(calls, invocation.key, invocation.tool)
        (call.begun if invocation.phase == "begin" else call.done).append(invocation)
    for run_id in history.runs:
        for event in events_of(history, run_id, "tool_execution_started", "tool_execution_finished"):
            _take(calls, run_id, event)
    return calls


def _call(calls: dict[str, Call], key: str, tool: str) -> Call:
    call = calls[key]
    call.key, call.tool = key, call.tool or tool
    return call


def _take(calls: dict[str, Call], run_id: str, event: event_pb2.Event) -> None:
    if event.WhichOneof("kind") == "tool_execution_started":
        started = event.tool_execution_started
        _call(calls, f"{run_id}/{started.turn}/{started.call_id}", started.tool).intent = event
    else:
        finished = event.tool_execution_finished
        _call(calls, f"{run_id}/{finished.turn}/{finished.result.call_id}", finished.result.tool).outcome = finished.result


def _trait(history: History, call: Call) -> Trait:
    return history.tools.get(call.tool, Trait(repeatable=False, read_only=False))


def effects_happen_once(history: History) -> Iterator[Finding]:
    """A call that may not be repeated begins at most once, and no call begins again after its receipt."""
    for call in calls_of(history).values():
        trait = _trait(history, call)
        if len(call.begun) > 1 and not trait.repeatable:
            yield Finding(call.run_id, f"{call.tool} ran {len(call.begun)} times for {call.key}", call.evidence(history))
        elif late := [] if trait.read_only else _after_receipt(history, call):
            yield Finding(call.run_id, f"{call.tool} ran again after its receipt for {call.key}: {late[0]}", call.evidence(history))


def _after_receipt(history: History, call: Call) -> list[Invocation]:
    """Attempts beyond the one that the receipt is of. An earlier attempt that begins late was claimed before, and only paused."""
    receipt = tool_pb2.Execution.FromString(history.receipts.get(call.key, b""))
    if not receipt.HasField("ended_at"):
        return []
    at = receipt.ended_at.seconds + receipt.ended_at.nanos / 1e9
    return [begun for begun in call.begun if begun.at > at and begun.attempt > receipt.result.attempt]


def intent_comes_first(history: History) -> Iterator[Finding]:
    """A tool begins only after its run's log says that it will, and is the tool that the log names.

    Tools tell the time by the wall clock; the log's clock comes to a new time by and by when that is set. So they are compared as
    exactly as the wall clock was true.
    """
    for call in calls_of(history).values():
        if not call.begun:
            continue
        if call.intent is None:
            yield Finding(call.run_id, f"{call.tool} ran for {call.key} and no log says so", call.evidence(history))
            continue
        intended = call.intent.time.seconds + call.intent.time.nanos / 1e9
        begun = min(begun.at for begun in call.begun) + history.clock_error
        if call.intent.tool_execution_started.tool != call.begun[0].tool or begun < intended:
            yield Finding(
                call.run_id, f"{call.begun[0].tool} ran for {call.key} before or instead of what the log says", call.evidence(history)
            )


def outcomes_are_true(history: History) -> Iterator[Finding]:
    """What did not finish is not said to have, and what may have taken effect is not said to have not."""
    for call in calls_of(history).values():
        lie = _lie(call, _trait(history, call)) if call.outcome else ""
        if lie:
            yield Finding(call.run_id, f"{call.tool} for {call.key}: {lie}", call.evidence(history))


def _lie(call: Call, trait: Trait) -> str:
    assert call.outcome is not None
    status, begun, done = call.outcome.status, bool(call.begun), bool(call.done)
    if status == tool_pb2.EXECUTION_STATUS_SUCCEEDED and not done:
        return "it is said to have succeeded and never ended"
    if status in _UNSAID and begun:
        return "it ran and is said not to have"
    if status in _CUT and begun and not done and not trait.repeatable and not call.outcome.effect_unknown:
        return "it began and did not end, and its effect is not said to be unknown"
    return ""


def the_ledger_agrees(history: History) -> Iterator[Finding]:
    """An outcome that a run's log tells is the one that the ledger holds."""
    for call in calls_of(history).values():
        if call.outcome is None or call.outcome.status not in _KEPT or _trait(history, call).read_only:
            continue
        receipt = tool_pb2.Execution.FromString(history.receipts.get(call.key, b""))
        if receipt.result.status != call.outcome.status:
            told = tool_pb2.ExecutionStatus.Name(call.outcome.status)
            kept = tool_pb2.ExecutionStatus.Name(receipt.result.status)
            yield Finding(call.run_id, f"{call.key} is {told} in the log and {kept} in the ledger", call.evidence(history))
