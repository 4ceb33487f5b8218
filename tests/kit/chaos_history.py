"""A history of the crash harness in which nothing is wrong: two runs of one session, one of another, as bytes like real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2 as pb
from behest.run.v1 import run_pb2
from behest.session.v1 import session_pb2
from behest.tool.v1 import tool_pb2
from chaos.history import (
    Append,
    Command,
    History,
    Invocation,
    Letter,
    Order,
    Record,
    RunRecord,
    SessionRecord,
    SessionStream,
    Stream,
    Trait,
    event_of,
    kind_of,
)

SUCCEEDED, UNKNOWN = tool_pb2.EXECUTION_STATUS_SUCCEEDED, tool_pb2.EXECUTION_STATUS_UNKNOWN
FIRST, SECOND, OTHER = "run-1", "run-2", "run-3"
CALL = chat_pb2.Usage(input_tokens=10, output_tokens=3, calls=1)
TOTAL = chat_pb2.Usage(input_tokens=20, output_tokens=6, calls=2)
TRAITS = {"charge": Trait(False, False), "put": Trait(True, False), "look": Trait(True, True)}


def good_history() -> History:
    """All of it: every rule has something to look at, and nothing to find."""
    logs = {run_id: _log(run_id, session) for run_id, session in ((FIRST, "a"), (SECOND, "a"), (OTHER, "b"))}
    place = count(1)
    for log in logs.values():
        for event in log:
            event.position = next(place)
    raws = {run_id: tuple(event.SerializeToString() for event in log) for run_id, log in logs.items()}
    return History(
        orders=tuple(_order(run_id, log) for run_id, log in logs.items()),
        commands=(Command(FIRST, "input", "i1", "p2 more", 3, 0.0), Command(OTHER, "cancel", "", "", 0, 0.0)),
        appends=(Append(FIRST, 4, tuple(event_without_position(raw) for raw in raws[FIRST][3:6])),),
        streams=tuple(
            Stream(run_id, after, raw[after:], True, "someone") for run_id, raw in raws.items() for after in (0, 3, len(raw) - 1, len(raw))
        ),
        session_streams=(SessionStream("a", 3, (*raws[FIRST][3:], *raws[SECOND][:2])), SessionStream("b", 0, raws[OTHER])),
        invocations=tuple(each for run_id in logs for each in _invocations(run_id)),
        runs={run_id: RunRecord(_row(log).SerializeToString(), raws[run_id]) for run_id, log in logs.items()},
        sessions={
            "a": _session([*logs[FIRST], *logs[SECOND]], chat_pb2.Usage(input_tokens=40, output_tokens=12, calls=4)),
            "b": _fork_of(_session(logs[FIRST], TOTAL), _session(logs[OTHER], TOTAL)),
        },
        receipts={f"{run_id}/1/{call_id}": _receipt(run_id, call_id) for run_id in logs for call_id in ("c1", "c2", "c3")},
        tools=TRAITS,
        records=tuple(_records(raws)),
        letters=(Letter("l1", "start", "p1 run-2", "", 0.0), Letter("l2", "cancel", "", OTHER, 0.0), Letter("l3", "start", "p9", "", 0.0)),
        dead_letters=("l3",),
    )


def event_without_position(raw: bytes) -> bytes:
    """An event as a driver sends it."""
    event = pb.Event.FromString(raw)
    event.ClearField("position")
    return event.SerializeToString()


def _log(run_id: str, session_id: str) -> list[pb.Event]:
    said = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=f"p1 {run_id}")])
    more = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="p2 more")])
    bodies = [
        pb.Event(run_created=pb.RunCreated(input=said, input_message_id=f"{run_id}-input")),
        pb.Event(run_started=pb.RunStarted(driver_id="d", epoch=1)),
        pb.Event(input_received=pb.InputReceived(input=more, message_id=f"{run_id}-more")),
        pb.Event(model_started=pb.ModelStarted(turn=1, attempt=1)),
        pb.Event(text_delta=pb.TextDelta(turn=1, text="hm")),
        *(pb.Event(tool_call_completed=pb.ToolCallCompleted(turn=1, call=call)) for call in _calls()),
        pb.Event(usage_recorded=pb.UsageRecorded(turn=1, call=CALL, total=CALL)),
        pb.Event(messages_committed=pb.MessagesCommitted(turn=1, message_ids=[f"{run_id}-asked"])),
        *(pb.Event(tool_execution_started=pb.ToolExecutionStarted(turn=1, call_id=c.id, tool=c.name)) for c in _calls()),
        pb.Event(run_resumed=pb.RunResumed(driver_id="e", epoch=2)),
        *(pb.Event(tool_execution_finished=pb.ToolExecutionFinished(turn=1, result=_result(c.id))) for c in _calls()),
        pb.Event(messages_committed=pb.MessagesCommitted(turn=1, message_ids=[f"{run_id}-{c.id}" for c in _calls()])),
        pb.Event(messages_committed=pb.MessagesCommitted(turn=1, message_ids=[f"{run_id}-more"])),
        pb.Event(model_started=pb.ModelStarted(turn=2, attempt=1)),
        pb.Event(usage_recorded=pb.UsageRecorded(turn=2, call=CALL, total=TOTAL)),
        pb.Event(messages_committed=pb.MessagesCommitted(turn=2, message_ids=[f"{run_id}-answer"])),
    ]
    if run_id == OTHER:
        bodies.append(pb.Event(cancel_requested=pb.CancelRequested(reason="enough")))
        bodies.append(pb.Event(run_cancelled=pb.RunCancelled(reason="enough", usage=TOTAL, turns=2)))
    else:
        bodies.append(pb.Event(run_completed=pb.RunCompleted(message_id=f"{run_id}-answer", usage=TOTAL, turns=2)))
    for sequence, event in enumerate(bodies, 1):
        event.run_id, event.session_id, event.tenant, event.sequence = run_id, session_id, "default", sequence
        event.time.FromMilliseconds(1000 * sequence)
    return bodies


def _calls() -> list[chat_pb2.ToolCall]:
    return [chat_pb2.ToolCall(id=call_id, name=tool) for call_id, tool in (("c1", "charge"), ("c2", "put"), ("c3", "charge"))]


def _result(call_id: str) -> tool_pb2.ToolResult:
    """The first two calls succeeded; of the third nobody knows."""
    tool = {call.id: call.name for call in _calls()}[call_id]
    status = UNKNOWN if call_id == "c3" else SUCCEEDED
    return tool_pb2.ToolResult(call_id=call_id, tool=tool, status=status, attempt=1, effect_unknown=status == UNKNOWN)


def _invocations(run_id: str) -> Iterator[Invocation]:
    yield Invocation(f"{run_id}/1/c1", "charge", "begin", 1, 20.0)
    yield Invocation(f"{run_id}/1/c1", "charge", "end", 1, 21.0)
    yield Invocation(f"{run_id}/1/c2", "put", "begin", 1, 20.0)
    yield Invocation(f"{run_id}/1/c2", "put", "begin", 2, 22.0)
    yield Invocation(f"{run_id}/1/c2", "put", "end", 2, 23.0)
    yield Invocation(f"{run_id}/1/c3", "charge", "begin", 1, 20.0)


def _receipt(run_id: str, call_id: str) -> bytes:
    execution = tool_pb2.Execution(key=f"{run_id}/1/{call_id}", run_id=run_id, result=_result(call_id))
    execution.result.attempt = 2 if call_id == "c2" else 1
    execution.ended_at.FromMilliseconds(24_000)
    return execution.SerializeToString()


def _row(log: Sequence[pb.Event]) -> run_pb2.Run:
    row = run_pb2.Run(id=log[0].run_id, session_id=log[0].session_id, sequence=len(log), usage=TOTAL, turns=2)
    if log[-1].WhichOneof("kind") == "run_completed":
        row.state, row.output_message_id = run_pb2.RUN_STATE_COMPLETED, log[-1].run_completed.message_id
    else:
        row.state = run_pb2.RUN_STATE_CANCELLED
    return row


def _order(run_id: str, log: Sequence[pb.Event]) -> Order:
    at = {FIRST: 0.0, SECOND: 1.0, OTHER: 0.5}[run_id]
    return Order(f"order {run_id}", f"p1 {run_id}", at, at + 0.1, run_id, log[0].session_id, 2, max_tool_calls=3, max_iterations=2)


def _session(events: Sequence[pb.Event], usage: chat_pb2.Usage) -> SessionRecord:
    position, messages = count(1), list[bytes]()
    for run_id in dict.fromkeys(event.run_id for event in events):
        for id_, message in _messages(run_id):
            stored = session_pb2.StoredMessage(id=id_, position=next(position), run_id=run_id, message=message)
            messages.append(stored.SerializeToString())
    return SessionRecord(tuple(messages), tuple(event.SerializeToString() for event in events), usage.SerializeToString())


def _fork_of(origin: SessionRecord, own: SessionRecord) -> SessionRecord:
    """A session forked from `a` after its first run."""
    before = len(origin.messages)
    moved = [session_pb2.StoredMessage.FromString(raw) for raw in own.messages]
    for message in moved:
        message.position += before
    messages = (*origin.messages, *(message.SerializeToString() for message in moved))
    return replace(own, messages=messages, forked_from="a", forked_at=before)


def _messages(run_id: str) -> Iterator[tuple[str, chat_pb2.Message]]:
    yield f"{run_id}-input", chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=f"p1 {run_id}")])
    yield f"{run_id}-asked", chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, tool_calls=_calls())
    for call in _calls():
        yield f"{run_id}-{call.id}", chat_pb2.Message(role=chat_pb2.ROLE_TOOL, tool_call_id=call.id)
    yield f"{run_id}-more", chat_pb2.Message(role=chat_pb2.ROLE_USER)
    yield f"{run_id}-answer", chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT)


def _records(logs: dict[str, tuple[bytes, ...]]) -> Iterator[Record]:
    """Every event but deltas; some twice, as a relay that died before it could say so would leave them."""
    offset = count()
    for run_id, log in logs.items():
        raws = [event_without_position(raw) for raw in log if kind_of(raw) != "text_delta"]
        for raw in [*raws[:5], *raws[3:]]:
            event = event_of(raw)
            yield Record("behest.events", 0, next(offset), event.session_id, f"{run_id}/{event.sequence}", raw)
