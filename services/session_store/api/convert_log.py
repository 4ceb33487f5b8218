"""Runs, their logs and their drivers between the wire and the domain. Pure, as convert.py.

A batch is stored as a FollowResponse less the ids and positions of its events, so what an append brought is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from itertools import islice
from typing import TypeVar, cast

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as pb
from behest.tool.v1 import tool_pb2
from session_store.api.convert import check_role, model_usage, named_messages, timestamp
from session_store.domain.batch import MAX_EVENTS, Batch, position_of
from session_store.domain.bounds import check_id, check_request_id, refuse
from session_store.domain.priority import Priority
from session_store.domain.run import (
    NOWHERE,
    Append,
    Assignment,
    Command,
    Entries,
    Fork,
    OnBusy,
    Order,
    Run,
    RunPatch,
    RunState,
    refuse_mismatched_end,
    refuse_mismatched_wait,
)
from session_store.domain.session import DriverId, RunId, SessionId, Tenant
from session_store.domain.tally import NOTHING, Tally
from session_store.operations.attachment import Notice
from session_store.operations.broadcast import RunScope, Scope, SessionScope, TenantScope
from session_store.operations.follow import Delivery
from session_store.operations.leasing import SignOfLife

_ENDS = {"run_completed": RunState.COMPLETED, "run_failed": RunState.FAILED, "run_cancelled": RunState.CANCELLED}
_COUNTED = frozenset({"tool_call_completed", "tool_execution_finished"})
_ONE_CALL = Tally(tool_calls=1)
MAX_MS = 1e12  # of one call; more is nonsense and would not fit into a sum
_COMMANDS = ("cancel_requested", "input_received", "approval_resolved")
_DETAILS = ("agent", "agent_version", "title", "priority")
_NO_PATCH = RunPatch()

Chosen = TypeVar("Chosen", bound=IntEnum)


def order(tenant: Tenant, request: pb.OpenRunRequest, now: float) -> Order:
    """The run to open."""
    check_id("run.id", request.run.id)
    check_id("run.session_id", request.run.session_id)
    check_request_id(request.request_id)
    if not request.events or request.events[0].WhichOneof("kind") != "run_created":
        raise refuse("events[0]", "must be run_created: every log begins with it")
    entries = _entries(tenant, request.run.id, 0, request.events)
    if entries.session_id != request.run.session_id:
        raise refuse("events[0].session_id", "must be run.session_id")
    if entries.ends_in is not None:
        raise refuse(f"events[{entries.count - 1}]", "ends the run; a run must be opened before it can end")
    on_busy = _closed_set(OnBusy, "on_busy", request.on_busy, OnBusy.REJECT)
    return Order(
        tenant=tenant,
        run_id=RunId(request.run.id),
        session_id=SessionId(request.run.session_id),
        entries=entries,
        details=details(request.run),
        messages=named_messages(request.messages),
        request_id=request.request_id,
        payload_digest=request.payload_digest,
        input_digest=request.input_digest,
        create_session=request.create_session,
        on_busy=on_busy,
        interrupt=_interrupt(request, now) if on_busy is OnBusy.INTERRUPT else None,
        fork=_fork(request) if on_busy is OnBusy.FORK else None,
        driver_id=DriverId(request.driver_id),
        priority=_closed_set(Priority, "run.priority", request.run.priority, Priority.NORMAL),
        max_wait=_max_wait("max_wait_ms", request.max_wait_ms),
    )


def _closed_set(kind: type[Chosen], field: str, value: int, default: Chosen) -> Chosen:
    """A member of a closed set of the contract, where 0 means the default."""
    try:
        return kind(value) if value else default
    except ValueError as error:
        raise refuse(field, f"is {value}, which is none of {', '.join(str(each.value) for each in kind)}") from error


def _interrupt(request: pb.OpenRunRequest, now: float) -> Callable[[int], bytes]:
    """What asks the run under way to stop."""
    asked = event_pb2.CancelRequested(reason=f"interrupted by run {request.run.id}")
    event = event_pb2.Event(cancel_requested=asked, traceparent=request.events[0].traceparent)
    return partial(_command_data, event, now)


def _fork(request: pb.OpenRunRequest) -> Fork:
    """Where the run goes when its session is busy: its log says so."""
    check_id("fork_session_id", request.fork_session_id)
    if request.fork_session_id == request.run.session_id:
        raise refuse("fork_session_id", "is the session itself; use a new id")
    response = pb.FollowResponse(events=request.events)
    response.events[0].run_created.forked_from_session_id = request.run.session_id
    return Fork(SessionId(request.fork_session_id), _data(response))


def _max_wait(field: str, millis: int) -> float | None:
    if millis < 0:
        raise refuse(field, f"is {millis}; use a positive number, or 0 to wait for ever")
    return millis / 1000 if millis else None


def append(tenant: Tenant, request: pb.AppendRequest) -> Append:
    """A driver's write."""
    if request.expected_sequence < 1:
        raise refuse("expected_sequence", f"is {request.expected_sequence}; a log that was opened ends at 1 or later")
    if not request.events:
        raise refuse("events", "is empty; give at least one, so that a repeated append is known")
    entries = _entries(tenant, request.run_id, request.expected_sequence, request.events)
    patch = _patch(request.patch) if request.HasField("patch") else _NO_PATCH
    refuse_mismatched_end(entries, patch.state)
    wait = _max_wait("wait_ms", request.wait_ms)
    refuse_mismatched_wait(patch.state, wait)
    return Append(
        tenant=tenant,
        run_id=RunId(request.run_id),
        driver_id=DriverId(request.driver_id),
        epoch=request.epoch,
        expected_sequence=request.expected_sequence,
        entries=entries,
        messages=named_messages(request.messages) if request.messages else (),
        usage=tuple(map(model_usage, request.usage)) if request.usage else (),
        patch=patch,
        wait=wait,
    )


def command(tenant: Tenant, request: pb.RecordCommandRequest, now: float) -> Command:
    """Anybody's write. The store fills in the event's ids, sequence and, if it is unset, its time."""
    kind = request.event.WhichOneof("kind")
    if kind not in _COMMANDS:
        raise refuse("event", f"is {kind or 'unset'}; only {' and '.join(_COMMANDS)} are commands")
    if request.messages:
        raise refuse("messages", "is reserved; put the message into input_received, its driver commits it at the next turn")
    if kind == "input_received":
        check_id("event.input_received.message_id", request.event.input_received.message_id)
        check_role("event.input_received.input", request.event.input_received.input)
    check_request_id(request.request_id)
    write = partial(_command_data, request.event, now)
    if request.expected_sequence < NOWHERE:
        raise refuse("expected_sequence", f"is {request.expected_sequence}; give where the log ends, 0 for anywhere, or -1 to find only")
    return Command(
        tenant,
        RunId(request.run_id),
        write,
        cancels=kind == "cancel_requested",
        request_id=request.request_id,
        payload_digest=request.payload_digest,
        expected=request.expected_sequence or None,
        keeps_waiting=request.keeps_waiting or kind == "input_received",
    )


def _command_data(given: event_pb2.Event, now: float, sequence: int) -> bytes:
    response = pb.FollowResponse(events=[given])
    event = response.events[0]
    event.sequence = sequence
    event.ClearField("position")
    if not event.HasField("time"):
        event.time.CopyFrom(timestamp(now))
    return _data(response)


def _data(response: pb.FollowResponse) -> bytes:
    """Events as they are stored: without what `follow_response` puts back."""
    trace = ""
    for event in response.events:
        event.ClearField("run_id")
        event.ClearField("session_id")
        event.ClearField("tenant")
        # The events of one append nearly always have one cause: its trace is kept once.
        if event.traceparent == trace:
            event.ClearField("traceparent")
        trace = trace or event.traceparent
    return response.SerializeToString()


def _entries(tenant: str, run_id: str, after: int, events: Sequence[event_pb2.Event]) -> Entries:
    """Events as they are stored, once they are known to belong together."""
    if len(events) > MAX_EVENTS:
        raise refuse("events", f"has {len(events)}; append at most {MAX_EVENTS} at once")
    owner, ends_in, tally = (run_id, events[0].session_id, tenant), None, NOTHING
    for sequence, event in enumerate(events, after + 1):
        kind = event.WhichOneof("kind")
        if event.sequence != sequence or event.position or (event.run_id, event.session_id, event.tenant) != owner:
            raise _misplaced(sequence - after - 1, sequence, event)
        if kind is None or (kind == "run_created") != (sequence == 1) or ends_in is not None:
            raise refuse(
                f"events[{sequence - after - 1}]", "must have a kind; run_created comes first and only first, the end last and only last"
            )
        ends_in = _ENDS.get(kind)
        if kind in _COUNTED:
            tally += counted(event)
    return Entries(SessionId(events[0].session_id), len(events), _data(pb.FollowResponse(events=events)), ends_in, tally)


def ends_in(kind: str) -> RunState | None:
    """The state that an event of a kind ends its run in, if it does."""
    return _ENDS.get(kind)


def counted(event: event_pb2.Event) -> Tally:
    """What an event adds to its run's counts."""
    kind = event.WhichOneof("kind")
    if kind == "tool_call_completed":
        return _ONE_CALL
    if kind != "tool_execution_finished":
        return NOTHING
    result = event.tool_execution_finished.result
    unknown = result.effect_unknown or result.status == tool_pb2.EXECUTION_STATUS_UNKNOWN
    failed = not unknown and result.status != tool_pb2.EXECUTION_STATUS_SUCCEEDED
    micros = round(min(max(0.0, result.duration_ms), MAX_MS) * 1000)
    return Tally(tool_executions=1, tool_failures=int(failed), tool_unknown=int(unknown), tool_micros=micros)


def _misplaced(index: int, sequence: int, event: event_pb2.Event) -> Exception:
    field = f"events[{index}]"
    if event.sequence != sequence:
        return refuse(f"{field}.sequence", f"is {event.sequence}, must be {sequence}: events are numbered without gaps")
    if event.position:
        return refuse(f"{field}.position", "is set; the store sets it when the event is read")
    return refuse(field, "must carry the run, the session and the tenant of the request")


def details(run: run_pb2.Run) -> bytes:
    """The part of a run that the caller says, as it is stored."""
    kept = run_pb2.Run(**{name: getattr(run, name) for name in _DETAILS}, metadata=run.metadata)
    if run.HasField("limits"):
        kept.limits.CopyFrom(run.limits)
    return kept.SerializeToString()


def _patch(patch: pb.RunPatch) -> RunPatch:
    values = patch.values
    return RunPatch(
        state=run_state(patch.state) if patch.state else None,
        usage=values.usage.SerializeToString() if values.HasField("usage") else None,
        turns=values.turns or None,
        fault=values.fault.SerializeToString() if values.HasField("fault") else None,
        output_message_id=values.output_message_id or None,
    )


def run_state(value: int) -> RunState:
    """A state, or RequestInvalid for a number that is none."""
    try:
        return RunState(value)
    except ValueError as error:
        raise refuse("state", f"{value} is not a state of runs") from error


def run(value: Run) -> run_pb2.Run:
    """A run for the wire."""
    wire = run_pb2.Run.FromString(value.details)
    wire.id, wire.session_id, wire.sequence, wire.turns = value.id, value.session_id, value.sequence, value.turns
    wire.state = cast(run_pb2.RunState.ValueType, value.state.value)
    wire.priority = wire.priority or run_pb2.RUN_PRIORITY_NORMAL
    wire.output_message_id = value.output_message_id
    wire.created_at.CopyFrom(timestamp(value.created_at))
    for name, moment in (("started_at", value.started_at), ("ended_at", value.ended_at)):
        if moment is not None:
            getattr(wire, name).CopyFrom(timestamp(moment))
    wire.usage.MergeFromString(value.usage)
    if value.fault:
        wire.fault.MergeFromString(value.fault)
    return wire


def scope(tenant: Tenant, request: pb.FollowRequest) -> Scope:
    """What is followed."""
    kind = request.WhichOneof("scope")
    if kind == "run_id":
        return RunScope(tenant, RunId(request.run_id))
    if kind == "session_id":
        return SessionScope(tenant, SessionId(request.session_id))
    if kind == "tenant" and request.tenant:
        return TenantScope(tenant)
    raise refuse("scope", "is unset; give a run_id, a session_id, or tenant = true")


def follow_response(tenant: Tenant, delivery: Delivery, by_sequence: bool) -> pb.FollowResponse:
    """The events of a delivery, whole and with their positions."""
    response = pb.FollowResponse.FromString(b"".join(batch.data for batch in delivery.batches))
    events = iter(response.events)
    for batch in delivery.batches:
        position, trace = position_of(batch.number, 0), ""
        for event in islice(events, batch.last - batch.first + 1):
            event.run_id, event.session_id, event.tenant, event.position = batch.run_id, batch.session_id, tenant, position
            position, trace = position + 1, event.traceparent or trace
            event.traceparent = trace
    seen = _seen(delivery.batches[0], delivery.after, by_sequence)
    if seen > 0:
        del response.events[:seen]
    return response


def _seen(batch: Batch, after: int, by_sequence: bool) -> int:
    """How many events of a batch lie at or before after."""
    return after - batch.first + 1 if by_sequence else after - position_of(batch.number, 0) + 1


def sign_of_life(request: pb.DriveRequest) -> SignOfLife:
    """What a driver says of itself."""
    if request.room < 0:
        raise refuse("room", f"is {request.room}; give how many more runs the driver takes, 0 for none")
    return SignOfLife(DriverId(request.driver_id), request.room, tuple(map(RunId, request.released_run_ids)), request.leaving)


def drive_response(notice: Notice) -> pb.DriveResponse:
    """What a driver should know, for the wire."""
    return pb.DriveResponse(assignments=_assignments(notice.assignments), wake_run_ids=notice.wakes, lease_ms=notice.lease_ms)


def _assignments(values: Iterable[Assignment]) -> list[pb.Assignment]:
    return [pb.Assignment(run_id=value.run_id, tenant=value.tenant, epoch=value.epoch, sequence=value.sequence) for value in values]
