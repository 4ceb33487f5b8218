"""Opening a run: everything that makes it exist, as one work on the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chassis.faults import InputDuplicate, RequestIdReused, SessionBusy, SessionNotFound
from chassis.waypoints import waypoint
from session_store.domain.batch import Announcement, Batch
from session_store.domain.bounds import refuse
from session_store.domain.priority import rank
from session_store.domain.run import DUPLICATE_SECONDS, REQUEST_SECONDS, OnBusy, Order, Place, Run, RunState
from session_store.domain.schedule import RunLimits
from session_store.domain.session import DriverId, Message, RunId, Session, SessionId, Tenant
from session_store.domain.tally import Tally
from session_store.operations.admission import admit, refuse_long_queue
from session_store.operations.commanding import Recorded, write_command
from session_store.operations.forking import MAX_FORKS, fork_session, forked, refuse_taken
from session_store.operations.ports import Request, Tables

OPEN_RUN = "open_run"


@dataclass(frozen=True, slots=True)
class Opened:
    """A run, the epoch that its caller drives it at (0: it does not), what to announce unless it existed, and whom it interrupted."""

    run: Run
    epoch: int
    existed: bool
    announcement: Announcement | None = None
    interrupted: Recorded | None = None


def open_run(tables: Tables, order: Order, now: float, limits: RunLimits) -> Opened:
    """Opens a run, or finds the one that the same request opened before."""
    before = find_again(tables, order.tenant, OPEN_RUN, order.request_id, order.payload_digest)
    if before is not None:
        return _again(tables, order, before)
    if tables.runs.standing(order.tenant, order.run_id) is not None:
        raise refuse("run.id", f"{order.run_id!r} exists; use a new one, or repeat the request_id that opened it")
    session = tables.sessions.find(order.tenant, order.session_id)
    if session is None and not order.create_session:
        raise session_not_found(order.session_id)
    if session is not None and order.input_digest:
        _refuse_duplicate(tables, session, order, now)
    if session is not None and session.active_run_id:
        return _open_on_busy(tables, order, session, now, limits)
    driver_id = admit(tables, order, Place.HOLDING, limits)
    return _store(tables, order, session, _run(order, Place.HOLDING, driver_id, now), now)


def find_again(tables: Tables, tenant: Tenant, method: str, request_id: str, digest: str) -> str | None:
    """The outcome of the same request, None when it is new. Raises RequestIdReused when its payload was another."""
    request = tables.requests.find(tenant, method, request_id) if request_id else None
    if request is None:
        return None
    if request.digest != digest:
        raise RequestIdReused(
            f"request_id {request_id!r} was used with another payload; use a new one for a new request",
            metadata={"request_id": request_id, "method": method},
        )
    return request.outcome


def join_session(tables: Tables, session_key: int, run_key: int, messages: tuple[Message, ...], now: float) -> None:
    """Adds messages at the end of a session; run key 0 for those of no run."""
    if messages:
        before = tables.sessions.grow(session_key, len(messages), now)
        tables.messages.add(session_key, before + 1, run_key, now, messages)


def session_not_found(session_id: SessionId) -> SessionNotFound:
    """The fault for a session that does not exist, or not for this tenant."""
    return SessionNotFound(f"no session {session_id!r}; create it first, or let the run create it", metadata={"session_id": session_id})


def session_busy(session: Session) -> SessionBusy:
    """The fault for a session with a run under way."""
    return SessionBusy(
        f"session {session.id!r} has run {session.active_run_id!r} under way; wait for its end, cancel it,"
        " or choose another on_busy: queue, interrupt or fork",
        metadata={"session_id": session.id, "run_id": session.active_run_id},
    )


def _again(tables: Tables, order: Order, run_id: str) -> Opened:
    run = tables.runs.find(order.tenant, RunId(run_id))
    assert run is not None, "a request is forgotten with its run"
    drives = bool(order.driver_id) and run.driver_id == order.driver_id and not run.state.ended
    return Opened(run, run.epoch if drives else 0, existed=True)


def _open_on_busy(tables: Tables, order: Order, session: Session, now: float, limits: RunLimits) -> Opened:
    match order.on_busy:
        case OnBusy.QUEUE:
            return _wait(tables, order, session, now, limits)
        case OnBusy.INTERRUPT:
            return _interrupt(tables, order, session, now, limits)
        case OnBusy.FORK:
            return _fork(tables, order, session, now, limits)
    raise session_busy(session)


def _wait(tables: Tables, order: Order, session: Session, now: float, limits: RunLimits) -> Opened:
    refuse_long_queue(tables, session)
    admit(tables, order, Place.WAITING, limits)
    return _store(tables, order, session, _run(order, Place.WAITING, DriverId(""), now), now)


def _interrupt(tables: Tables, order: Order, session: Session, now: float, limits: RunLimits) -> Opened:
    """Queues the run and asks the active one to stop. Runs that waited already go first: they were accepted."""
    assert order.interrupt is not None
    active = tables.runs.find(order.tenant, session.active_run_id)
    assert active is not None, "a session's active run exists"
    opened = _wait(tables, order, session, now, limits)
    return replace(opened, interrupted=write_command(tables, active, order.interrupt, now, cancels=True))


def _fork(tables: Tables, order: Order, session: Session, now: float, limits: RunLimits) -> Opened:
    refuse_taken(tables, order)
    driver_id = admit(tables, order, Place.HOLDING, limits)
    fork, order = fork_session(tables, session, order, now), forked(order)
    return _store(tables, order, fork, _run(order, Place.HOLDING, driver_id, now), now)


def _refuse_duplicate(tables: Tables, session: Session, order: Order, now: float) -> None:
    """Raises InputDuplicate; an order that forks is compared with the forks as well."""
    since = now - DUPLICATE_SECONDS
    forks = tables.sessions.forks(order.tenant, session.id, since, MAX_FORKS) if order.on_busy is OnBusy.FORK else []
    for key in (session.key, *forks):
        earlier = tables.runs.with_input(key, order.input_digest, since)
        if earlier is not None:
            raise _input_duplicate(earlier, now)


def _input_duplicate(earlier: Run, now: float) -> InputDuplicate:
    return InputDuplicate(
        f"run {earlier.id} of session {earlier.session_id!r} had this input within {DUPLICATE_SECONDS:.0f} s; follow that run instead",
        metadata={"session_id": earlier.session_id, "run_id": earlier.id},
        retry_after=max(0.0, earlier.created_at + DUPLICATE_SECONDS - now),
    )


def _run(order: Order, place: Place, driver_id: DriverId, now: float) -> Run:
    return Run(
        tenant=order.tenant,
        id=order.run_id,
        session_id=order.session_id,
        created_at=now,
        state=RunState.RUNNING if driver_id else RunState.QUEUED,
        place=place,
        sequence=order.entries.count,
        driver_id=driver_id,
        started_at=now if driver_id else None,
        details=order.details,
        input_digest=order.input_digest,
        tally=order.entries.tally + Tally(messages=len(order.messages) if place is Place.HOLDING else 0),
        rank=rank(now, order.priority),
        ends_by=None if order.max_wait is None else now + order.max_wait,
    )


def _store(tables: Tables, order: Order, session: Session | None, run: Run, now: float) -> Opened:
    session_key = session.key if session else tables.sessions.add(Session(order.tenant, order.session_id, now, now))
    run = replace(run, session_key=session_key)
    run = replace(run, key=tables.runs.add(run))
    if run.place is Place.HOLDING:
        tables.sessions.occupy(session_key, run.id)
        join_session(tables, session_key, run.key, order.messages, now)
    else:
        tables.messages.hold(run.key, order.messages)
    number = tables.batches.add(order.tenant, session_key, run.key, 1, run.sequence, order.entries.data)
    if order.request_id:
        request = Request(order.payload_digest, run.id)
        tables.requests.add(order.tenant, OPEN_RUN, order.request_id, request, session_key, now + REQUEST_SECONDS)
    announcement = Announcement(order.tenant, Batch(number, run.id, run.session_id, 1, run.sequence, order.entries.data))
    waypoint("store.open.written")
    return Opened(run, run.epoch if run.driver_id else 0, existed=False, announcement=announcement)
