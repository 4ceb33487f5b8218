"""The session-store behind the ports Journal, Histories and Runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar, cast

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as journal_pb2
from behest.session.v1 import session_pb2, session_service_pb2
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from chassis.faults import DeadlineExceeded
from chassis.rpc import StubChannel, current_call
from chassis.world import Clock
from orchestrator.domain import events as e
from orchestrator.domain.run import Phase, Recorded, Run
from orchestrator.domain.values import Entry, RunId, SessionId
from orchestrator.operations.ports import (
    AWAY,
    Assignment,
    Batch,
    Instruction,
    Lease,
    Opened,
    Order,
    Patience,
    SignOfLife,
    Spent,
    Tail,
    Terms,
)
from orchestrator.wire import entry_from_proto, event_from_proto, event_to_proto, failure_to_proto, usage_to_proto

Answer = TypeVar("Answer")

LONGEST_WAIT_MS = 1 << 53
WAIT_MARGIN_MS = 250
"""How much longer than its wall time a run may wait before the store hands it out to be ended: clocks differ a little, and who is handed
one that has time left would begin with it."""

ENDED_STATES = frozenset({run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_FAILED, run_pb2.RUN_STATE_CANCELLED})


class RpcJournal:
    """Journal and Histories over the store's stubs."""

    def __init__(self, channel: StubChannel, clock: Clock, patience: Patience) -> None:
        self._journal = JournalServiceStub(channel)
        self._sessions = SessionServiceStub(channel)
        self._clock = clock
        self._patience = patience

    async def append(self, lease: Lease, batch: Batch) -> None:
        """Makes a batch durable. Raises LeaseLost, SequenceConflict, RunEnded; while the store is away it asks again."""
        request = _append_request(lease, batch)
        if batch.rests_until is not None:
            left = max(0, round((batch.rests_until - self._clock.now()) * 1000))
            request.wait_ms = min(left, LONGEST_WAIT_MS) + WAIT_MARGIN_MS
        await self._until_back(lambda: self._journal.Append(request))

    async def read(self, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        """The run's session and its log after a sequence; asks again while the store is away."""
        return await self._until_back(lambda: _read(self._journal, run_id, after))

    async def _until_back(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the store answers, once it does."""
        backoff = self._patience.backoff
        while True:
            try:
                return await ask()
            except (*AWAY, DeadlineExceeded):
                await self._clock.sleep(backoff)
                backoff = min(2 * backoff, self._patience.longest_backoff)

    async def drive(self, signs: AsyncIterator[SignOfLife]) -> AsyncGenerator[Instruction, None]:
        """Keeps a driver registered for as long as both streams last."""
        async for response in self._journal.Drive(_drive_requests(signs)):
            assignments = tuple(Assignment(RunId(a.run_id), a.tenant, a.epoch, a.sequence) for a in response.assignments)
            yield Instruction(assignments, tuple(RunId(i) for i in response.wake_run_ids))

    async def tail(self, session_id: SessionId, count: int) -> Tail:
        """The newest messages."""
        request = session_service_pb2.ListMessagesRequest(session_id=session_id, page_size=min(count, 1000), newest_first=True)
        response = await self._sessions.ListMessages(request)
        entries = tuple(entry_from_proto(stored.id, stored.message) for stored in reversed(response.messages))
        return Tail(entries, response.messages[-1].position - 1 if entries else 0)


class RpcRuns:
    """Runs over the store's stubs."""

    def __init__(self, channel: StubChannel) -> None:
        self._journal = JournalServiceStub(channel)

    async def open(self, order: Order) -> Opened:
        """Opens a run. Raises the store's faults."""
        response = await self._journal.OpenRun(_open_request(order))
        run = response.run
        return Opened(RunId(run.id), SessionId(run.session_id), run, response.epoch, response.existed)

    async def get(self, run_id: RunId) -> tuple[run_pb2.Run, bool]:
        """A run's row and whether it has ended."""
        response = await self._journal.GetRun(journal_pb2.GetRunRequest(run_id=run_id))
        return response.run, response.run.state in ENDED_STATES

    async def read(self, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        """A run's session and its log after a sequence. Raises RunNotFound, and what keeps the store from answering."""
        return await _read(self._journal, run_id, after)

    async def command(self, run_id: RunId, event: e.Command, terms: Terms) -> tuple[int, run_pb2.Run]:
        """Records a command: its sequence and the run's row. Raises RunNotFound, RunEnded, SequenceConflict, RequestIdReused."""
        body = event_to_proto(Recorded(0, 0.0, event))
        body.ClearField("time")
        request = journal_pb2.RecordCommandRequest(
            run_id=run_id,
            event=body,
            request_id=terms.request_id,
            payload_digest=terms.payload_digest,
            expected_sequence=terms.expected or 0,
            keeps_waiting=terms.keeps_waiting,
        )
        response = await self._journal.RecordCommand(request)
        return response.sequence, response.run


async def _read(journal: JournalServiceStub, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
    log: list[event_pb2.Event] = []
    async for response in journal.Follow(journal_pb2.FollowRequest(run_id=run_id, after=after, replay_only=True)):
        log.extend(response.events)
    session_id = log[0].session_id if log else ""
    return SessionId(session_id), tuple(event_from_proto(event) for event in log)


async def _drive_requests(signs: AsyncIterator[SignOfLife]) -> AsyncGenerator[journal_pb2.DriveRequest, None]:
    async for sign in signs:
        yield journal_pb2.DriveRequest(driver_id=sign.driver_id, room=sign.room, leaving=sign.leaving)


def _open_request(order: Order) -> journal_pb2.OpenRunRequest:
    event = _enveloped(event_to_proto(Recorded(1, order.at, order.created)), order.run_id, order.session_id, current_call().tenant)
    created = event.run_created
    run = run_pb2.Run(
        id=order.run_id,
        session_id=order.session_id,
        agent=created.agent.name,
        agent_version=created.agent.version,
        metadata=created.metadata,
        title=order.title,
        limits=created.agent.limits,
        priority=cast(run_pb2.RunPriority.ValueType, order.priority.value),
    )
    return journal_pb2.OpenRunRequest(
        run=run,
        # A run id is as good as a request id: it makes sending again after a lost answer harmless.
        request_id=order.request_id or order.run_id,
        payload_digest=order.payload_digest,
        create_session=order.create_session,
        on_busy=cast(run_pb2.BusyPolicy.ValueType, order.on_busy.value),
        fork_session_id=order.fork_session_id,
        max_wait_ms=min(order.created.agent.limits.max_wall_ms, LONGEST_WAIT_MS) + WAIT_MARGIN_MS,
        events=[event],
        messages=[session_pb2.StoredMessage(id=created.input_message_id, message=created.input)],
        input_digest=order.input_digest,
        driver_id=order.driver_id,
    )


def _append_request(lease: Lease, batch: Batch) -> journal_pb2.AppendRequest:
    return journal_pb2.AppendRequest(
        run_id=lease.run_id,
        driver_id=lease.driver_id,
        epoch=lease.epoch,
        expected_sequence=batch.expected_sequence,
        events=[_enveloped(event_to_proto(r), lease.run_id, lease.session_id, lease.tenant) for r in batch.events],
        messages=[_stored(entry) for entry in batch.entries],
        usage=[_usage_row(spent) for spent in batch.usage],
        patch=_patch(batch),
    )


def _enveloped(event: event_pb2.Event, run_id: str, session_id: str, tenant: str) -> event_pb2.Event:
    event.run_id, event.session_id, event.tenant = run_id, session_id, tenant
    event.traceparent = event.traceparent or current_call().traceparent
    return event


def _stored(entry: Entry) -> session_pb2.StoredMessage:
    return session_pb2.StoredMessage(id=entry.id, message=entry.body)  # type: ignore[arg-type]  # bodies are contract messages


def _usage_row(spent: Spent) -> session_pb2.UsageRow:
    return session_pb2.UsageRow(provider=spent.provider, model=spent.model, usage=usage_to_proto(spent.usage))


def _patch(batch: Batch) -> journal_pb2.RunPatch | None:
    """What changes on the row. Batches of deltas alone change nothing."""
    last = batch.events[-1].event
    if isinstance(last, e.Terminal):
        return _terminal_patch(batch.run, last)
    if batch.rests_until is not None:
        return journal_pb2.RunPatch(state=run_pb2.RUN_STATE_AWAITING_APPROVAL, values=_values(batch.run))
    began = isinstance(batch.events[0].event, e.RunStarted)
    if not began and not batch.usage:
        return None
    return journal_pb2.RunPatch(state=run_pb2.RUN_STATE_RUNNING if began else run_pb2.RUN_STATE_UNSPECIFIED, values=_values(batch.run))


def _terminal_patch(run: Run, last: e.Terminal) -> journal_pb2.RunPatch:
    assert run.phase is Phase.ENDED
    values = _values(run)
    match last:
        case e.RunCompleted(message_id):
            values.output_message_id = message_id
            return journal_pb2.RunPatch(state=run_pb2.RUN_STATE_COMPLETED, values=values)
        case e.RunFailed(failure):
            values.fault.CopyFrom(failure_to_proto(failure))
            return journal_pb2.RunPatch(state=run_pb2.RUN_STATE_FAILED, values=values)
        case e.RunCancelled():
            return journal_pb2.RunPatch(state=run_pb2.RUN_STATE_CANCELLED, values=values)


def _values(run: Run) -> run_pb2.Run:
    return run_pb2.Run(usage=usage_to_proto(run.usage), turns=run.turn)
