"""Whether there is a place for a new run: it is driven at once, waits, or is refused. Reads only."""

from __future__ import annotations

from chassis.faults import RunsExhausted
from session_store.domain.run import MAX_WAITING, Order, Place
from session_store.domain.schedule import RunLimits
from session_store.domain.session import DriverId, Session, Tenant
from session_store.operations.ports import Tables

RETRY_SECONDS = 1.0


def admit(tables: Tables, order: Order, place: Place, limits: RunLimits) -> DriverId:
    """The driver that gets the run at once, nobody when it waits. Raises RunsExhausted when too many of its tenant wait.

    It goes straight to the driver that asks for it when no limit is reached and nobody's run waits for a driver; else to the end
    of the queue, as all others.
    """
    most = limits.of(order.tenant)
    load = tables.runs.load(order.tenant)
    room = load.running < most.running and load.running_of_all < limits.running and not load.due
    if room and place is Place.HOLDING and _lives(tables, order.driver_id):
        return order.driver_id
    if load.waiting >= most.waiting:
        raise _too_many_of_tenant(order.tenant, most.waiting)
    return DriverId("")


def refuse_long_queue(tables: Tables, session: Session) -> None:
    """Raises RunsExhausted when too many runs wait behind the session."""
    if tables.runs.count_waiting(session.key) >= MAX_WAITING:
        raise RunsExhausted(
            f"{MAX_WAITING} runs wait behind session {session.id!r}; retry when some have ended",
            metadata={"session_id": session.id, "limit": str(MAX_WAITING), "limit_name": "waiting_runs_per_session"},
            retry_after=RETRY_SECONDS,
        )


def _too_many_of_tenant(tenant: Tenant, limit: int) -> RunsExhausted:
    return RunsExhausted(
        f"{limit} runs of tenant {tenant!r} wait; retry when some have ended, or raise session_store.limits",
        metadata={"tenant": tenant, "limit": str(limit), "limit_name": "waiting_runs_per_tenant"},
        retry_after=RETRY_SECONDS,
    )


def _lives(tables: Tables, driver_id: DriverId) -> bool:
    return bool(driver_id) and tables.leases.find(driver_id) is not None
