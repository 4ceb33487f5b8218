"""Opening a run: everything that makes it exist, as one work on the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chassis.faults import InputDuplicate, RequestIdReused, RunsExhausted, SessionBusy, SessionNotFound
from session_store.domain.batch import Announcement, Batch
from session_store.domain.bounds import refuse
from session_store.domain.run import DUPLICATE_SECONDS, MAX_WAITING, REQUEST_SECONDS, Order, Place, Run, RunState
from session_store.domain.session import DriverId, Message, RunId, Session, SessionId, Tenant
from session_store.operations.ports import Request, Tables

OPEN_RUN = "open_run"


@dataclass(frozen=True, slots=True)
class Opened:
    """A run, the epoch that its caller drives it at (0: it does not), and what to announce unless it existed."""

    run: Run
    epoch: int
    existed: bool
    announcement: Announcement | None = None


def open_run(tables: Tables, order: Order, now: float) -> Opened:
    """Opens a run, or finds the one that the same request opened before."""
    before = find_again(tables, order.tenant, OPEN_RUN, order.request_id, order.payload_digest)
    if before is not None:
        return _again(tables, order, before)
    if tables.runs.standing(order.tenant, order.run_id) is not None:
        raise refuse("run.id", f"{order.run_id!r} exists; use a new one, or repeat the request_id that opened it")
    session = tables.sessions.find(order.tenant, order.session_id)
    if session is None and not order.create_session:
        raise session_not_found(order.session_id)
    place = Place.HOLDING if session is None else _place(tables, session, order, now)
    return _store(tables, order, session, _run(tables, order, place, now), now)


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
        f"session {session.id!r} has run {session.active_run_id!r} under way; wait for its end, cancel it, or queue behind it",
        metadata={"session_id": session.id, "run_id": session.active_run_id},
    )


def _again(tables: Tables, order: Order, run_id: str) -> Opened:
    run = tables.runs.find(order.tenant, RunId(run_id))
    assert run is not None, "a request is forgotten with its run"
    drives = bool(order.driver_id) and run.driver_id == order.driver_id and not run.state.ended
    return Opened(run, run.epoch if drives else 0, existed=True)


def _place(tables: Tables, session: Session, order: Order, now: float) -> Place:
    if order.input_digest:
        _refuse_duplicate(tables, session, order.input_digest, now)
    if not session.active_run_id:
        return Place.HOLDING
    if not order.queues:
        raise session_busy(session)
    if tables.runs.count_waiting(session.key) >= MAX_WAITING:
        raise RunsExhausted(
            f"{MAX_WAITING} runs wait behind session {session.id!r}; retry when some have ended",
            metadata={"session_id": session.id, "limit": str(MAX_WAITING)},
            retry_after=1.0,
        )
    return Place.WAITING


def _refuse_duplicate(tables: Tables, session: Session, digest: str, now: float) -> None:
    earlier = tables.runs.with_input(session.key, digest, now - DUPLICATE_SECONDS)
    if earlier is not None:
        raise InputDuplicate(
            f"run {earlier.id} of session {session.id!r} had this input less than {DUPLICATE_SECONDS:.0f} s ago; follow that run instead",
            metadata={"session_id": session.id, "run_id": earlier.id},
            retry_after=max(0.0, earlier.created_at + DUPLICATE_SECONDS - now),
        )


def _run(tables: Tables, order: Order, place: Place, now: float) -> Run:
    lease = tables.leases.find(order.driver_id) if order.driver_id and place is Place.HOLDING else None
    driven = lease is not None and lease.expires_at > now
    return Run(
        tenant=order.tenant,
        id=order.run_id,
        session_id=order.session_id,
        created_at=now,
        state=RunState.RUNNING if driven else RunState.QUEUED,
        place=place,
        sequence=order.entries.count,
        driver_id=order.driver_id if driven else DriverId(""),
        started_at=now if driven else None,
        details=order.details,
        input_digest=order.input_digest,
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
    return Opened(run, run.epoch if run.driver_id else 0, existed=False, announcement=announcement)
