"""The run log: what each call of JournalService does, save Drive (fleet.py)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from chassis.waypoints import waypoint
from chassis.world import World
from session_store.domain.page import Cursor
from session_store.domain.run import Append, Command, Order, Place, Run, RunQuery
from session_store.domain.schedule import RunLimits
from session_store.domain.session import RunId, SessionId, Tenant
from session_store.operations.appending import Appended, append, record_command, run_not_found
from session_store.operations.broadcast import Broadcaster, Scope
from session_store.operations.commanding import Recorded
from session_store.operations.fleet import Fleet
from session_store.operations.follow import Delivery, Follows
from session_store.operations.opening import Opened, open_run
from session_store.operations.ports import Storage, Tables
from session_store.operations.sessions import found
from session_store.operations.telling import of_appended, of_opened, of_recorded


class JournalOperations:
    """Opens runs, writes and reads their logs."""

    def __init__(self, storage: Storage, broadcaster: Broadcaster, fleet: Fleet, world: World, limits: RunLimits) -> None:
        self._storage = storage
        self._broadcaster = broadcaster
        self._fleet = fleet
        self._world = world
        self._limits = limits
        self._follows = Follows(storage, broadcaster)

    async def open_run(self, order: Order) -> Opened:
        """Opens a run. Raises SessionNotFound, SessionBusy, InputDuplicate, RequestIdReused, RunsExhausted."""
        now = self._world.clock.now()
        return await self._storage.write(
            lambda tables: open_run(tables, order, now, self._limits),
            self._announce_opened,
            lambda opened: of_opened(opened, self._fleet.has_room),
        )

    async def append(self, wish: Append) -> Appended:
        """Writes to a log under a lease. Raises RunNotFound, RunEnded, LeaseLost, SequenceConflict."""
        now = self._world.clock.now()

        def announce(appended: Appended) -> None:
            self._announce_appended(wish, appended)

        return await self._storage.write(
            lambda tables: append(tables, wish, now), announce, lambda appended: of_appended(wish, appended, self._fleet.has_room)
        )

    async def record_command(self, command: Command) -> Recorded:
        """Writes a command to a log and wakes its driver. Raises RunNotFound, RunEnded, RequestIdReused."""
        now = self._world.clock.now()
        return await self._storage.write(
            lambda tables: record_command(tables, command, now),
            self._announce_recorded,
            lambda recorded: of_recorded(recorded, self._fleet.has_room),
        )

    def follow(self, scope: Scope, after: int, replay_only: bool) -> AsyncGenerator[Delivery, None]:
        """Everything after a place, then what comes: see follow.py."""
        return self._follows.follow(scope, after, replay_only)

    async def get_run(self, tenant: Tenant, run_id: RunId) -> Run:
        """The run. Raises RunNotFound."""
        run = await self._storage.read(lambda tables: tables.runs.find(tenant, run_id), tenant)
        if run is None:
            raise run_not_found(run_id)
        return run

    async def list_runs(self, tenant: Tenant, session_id: SessionId, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """At most limit runs, newest first, of a session or of all. Raises SessionNotFound."""

        def work(tables: Tables) -> list[Run]:
            key = found(tables, tenant, session_id).key if session_id else None
            return tables.runs.page(tenant, replace(query, session_key=key), before, limit)

        return await self._storage.read(work, tenant)

    def _announce_opened(self, opened: Opened) -> None:
        if opened.announcement is None:
            return
        waypoint("store.open.committed")
        self._broadcaster.publish(opened.announcement)
        if opened.interrupted is not None:
            self._announce_recorded(opened.interrupted)
        if opened.epoch:
            self._fleet.given(opened.run)
        elif opened.run.place is Place.HOLDING:
            self._fleet.kick()

    def _announce_appended(self, wish: Append, appended: Appended) -> None:
        if appended.announcement is not None:
            waypoint("store.append.committed")
            self._broadcaster.publish(appended.announcement)
            waypoint("store.announced")
            self._fleet.heard(wish.driver_id, wish.run_id, left=appended.left)
            if appended.left:
                self._fleet.place_freed()
        if appended.promoted:
            self._fleet.kick()

    def _announce_recorded(self, recorded: Recorded) -> None:
        if recorded.announcement is not None:
            waypoint("store.command.committed")
            self._broadcaster.publish(recorded.announcement)
            self._fleet.wake(recorded.driver_id, recorded.run.id)
        if recorded.due:
            self._fleet.kick(overdue=True)
