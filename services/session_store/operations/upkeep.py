"""What the store does by itself to what is old: deletes sessions beyond their retention, and sweeps up after deletes.

Every step is a small transaction of its own that looks again before it deletes, so replicas that do the same at once do no harm.
Tenants are served in turn, each tenant's oldest sessions first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, field

import structlog

from chassis.faults import Fault, SessionBusy
from chassis.world import World
from session_store.domain.page import Cursor
from session_store.domain.retention import Retention, last_activity
from session_store.domain.run import RunQuery
from session_store.domain.session import Session, Tenant
from session_store.operations.broadcast import Broadcaster, SessionScope
from session_store.operations.erasure import delete, sweep
from session_store.operations.ports import Storage, Tables
from session_store.operations.telling import of_deleted

SWEEP_SECONDS = 60.0
ROUND_SECONDS = 3600.0  # retention is counted in days, and a round looks at all sessions that are old enough
PAGE = 100
TENANTS_AT_ONCE = 64  # among which deletes go round


@dataclass(slots=True)
class Round:
    """What one round did."""

    sessions: int = 0
    tenants: set[Tenant] = field(default_factory=set)
    rows: int = 0


class Upkeep:
    """Keeps the store from growing for ever. `run` must run beside the calls."""

    def __init__(self, storage: Storage, broadcaster: Broadcaster, world: World, retention: Retention, publishes: bool) -> None:
        self._storage = storage
        self._broadcaster = broadcaster
        self._world = world
        self._retention = retention
        self._publishes = publishes

    async def run(self) -> None:
        """Sweeps each minute and does a round each hour, for ever."""
        due = self._world.clock.monotonic()
        while True:
            moment = self._world.clock.monotonic()
            if moment >= due:
                due = moment + ROUND_SECONDS
                await self._tolerant(self.round())
            else:
                await self._tolerant(self._sweep())
            await self._world.clock.sleep(SWEEP_SECONDS)

    async def _tolerant(self, step: Awaitable[object]) -> None:
        """Goes on after a fault: the storage may come back."""
        try:
            await step
        except Fault as fault:
            structlog.get_logger().warning("retention waits for the storage", reason=fault.reason, problem=fault.message)
        except Exception:  # noqa: BLE001 — a defect in one round must not end the rounds: the store would fill up
            structlog.get_logger().exception("retention failed; trying again")

    async def round(self) -> Round:
        """Deletes what is due now and sweeps up; one log line when that was anything."""
        done = Round()
        done.rows += await self._sweep()
        after = ""
        while not self._retention.is_for_ever and (tenants := await self._tenants(after)):
            await self._delete_in_turn(tenants, done)
            after = tenants[-1]
        if done.rows or done.sessions:
            counts = {"sessions": done.sessions, "tenants": len(done.tenants), "rows": done.rows}
            structlog.get_logger().info("removed what is deleted or beyond its retention", **counts)
        return done

    async def _tenants(self, after: str) -> list[Tenant]:
        def work(tables: Tables) -> list[Tenant]:
            names: list[Tenant] = []
            while len(names) < TENANTS_AT_ONCE and (name := tables.sessions.next_tenant(names[-1] if names else after)) is not None:
                names.append(name)
            return names

        return await self._storage.read(work)

    async def _delete_in_turn(self, tenants: list[Tenant], done: Round) -> None:
        """One session of each tenant, then the next of each, until none has any that is due."""
        due = [self._due(tenant, seconds) for tenant in tenants if (seconds := self._retention.of(tenant)) is not None]
        while due:
            for sessions in list(due):
                session = await anext(sessions, None)
                if session is None:
                    due.remove(sessions)
                elif await self._delete(session):
                    done.sessions += 1
                    done.tenants.add(session.tenant)
                    done.rows += await self._sweep()

    async def _due(self, tenant: Tenant, seconds: float) -> AsyncGenerator[Session, None]:
        """Sessions of a tenant without activity since, oldest first."""
        before, after = self._world.clock.now() - seconds, None
        while page := await self._page(tenant, before, after):
            for session in page:
                if not session.active_run_id and session.updated_at < before:
                    yield session
            after = Cursor(page[-1].created_at, page[-1].id)

    async def _page(self, tenant: Tenant, before: float, after: Cursor | None) -> list[Session]:
        return await self._storage.read(lambda tables: tables.sessions.oldest(tenant, before, after, PAGE))

    async def _delete(self, session: Session) -> bool:
        """Deletes a session unless it was used meanwhile, or another replica did; whether it did."""
        seconds = self._retention.of(session.tenant)
        assert seconds is not None
        before, tenant, session_id = self._world.clock.now() - seconds, session.tenant, session.id

        def work(tables: Tables) -> bool:
            return _delete_idle(tables, session, before)

        def announce(deleted: bool) -> None:
            if deleted:
                self._broadcaster.lag(SessionScope(tenant, session_id))

        return await self._storage.write(work, announce, lambda deleted: of_deleted(tenant, session_id) if deleted else ())

    async def _sweep(self) -> int:
        return await sweep(self._storage, self._world.clock.now(), self._publishes)


def _delete_idle(tables: Tables, seen: Session, before: float) -> bool:
    session = tables.sessions.find(seen.tenant, seen.id)
    if session is None:
        return False
    newest = tables.runs.page(session.tenant, RunQuery(session.key), None, 1)
    if last_activity(session, newest[0] if newest else None) >= before:
        return False
    try:
        delete(tables, session)
    except SessionBusy:
        return False
    return True
