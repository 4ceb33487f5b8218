"""The quick way for appends: a group is decided in memory and written by one statement. What that cannot do takes the usual way.

When the connection is cut while the statement runs, its works are simply done again: an append that was written is acknowledged when it
comes again, and the statement that may still be on its way finds a run whose sequence is not the expected one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from chassis.postgres import Pending, Writer, is_cut, settle
from chassis.waypoints import waypoint
from session_store.adapters.postgres.hints import write_hints
from session_store.adapters.postgres.hot_rows import Draft, HotRun, HotRuns, HotTables, Later, Unknown
from session_store.adapters.postgres.hot_statement import build
from session_store.adapters.postgres.runs import standing_of
from session_store.domain.session import RunId, Tenant
from session_store.operations.ports import Hint

Place = tuple[Tenant, RunId]

_LOAD = """SELECT runs.tenant, runs.id, sessions.message_count,
        runs.key, runs.session, runs.session_id, runs.state, runs.place, runs.sequence, runs.driver, runs.epoch
    FROM unnest($1::text[], $2::text[]) AS wanted (tenant, id) JOIN runs ON runs.tenant = wanted.tenant AND runs.id = wanted.id
    JOIN sessions ON sessions.key = runs.session"""


@dataclass(slots=True)
class _Sorted:
    """Works by what they can do now."""

    ready: list[Pending] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    unknown: dict[Place, None] = field(default_factory=dict)
    waiting: list[Pending] = field(default_factory=list)  # for a run to be loaded, or for the next statement
    slow: list[Pending] = field(default_factory=list)


class HotPath:
    """Writes appends to runs that are held in memory."""

    def __init__(self) -> None:
        self._runs = HotRuns()
        self._tables = HotTables(self._runs)
        self._last_number = 0

    def touched(self, rows: Any) -> None:
        """Forgets the runs that a transaction of the usual way changed."""
        self._last_number = rows.counters.last_number
        for key in rows.touched:
            self._runs.forget(key)

    async def take(self, group: Sequence[Pending], writer: Writer) -> Sequence[Pending]:
        """Commits the appends among the group and returns the rest."""
        slow: list[Pending] = []
        missing: set[Place] = set()
        conflicts = 0
        while group:
            works = self._sort(group, missing)
            slow += works.slow
            if works.unknown:
                missing |= await self._load(works.unknown, writer)
                group = [*works.ready, *works.waiting]
                continue
            try:
                if works.ready:
                    await self._commit(works, writer)
                group = works.waiting
            except asyncpg.PostgresError as error:
                if is_cut(error):
                    raise
                self._forget(works.drafts)
                conflicts += 1
                group, failed = (works.waiting, works.ready) if conflicts > 1 else ([*works.ready, *works.waiting], [])
                slow += failed
        return slow

    def _sort(self, group: Sequence[Pending], missing: set[Place]) -> _Sorted:
        """Decides each work on what is held; one that fails here is not believed and takes the usual way."""
        works, tables = _Sorted(), self._tables
        tables.start(self._last_number)
        for pending in group:
            hints = len(tables.hints)
            tables.begin()
            try:
                pending.result, pending.error = pending.work(tables), None
                kind = works.ready if tables.accept() else works.slow
            except Unknown as unknown:
                kind = works.slow if unknown.run in missing else works.waiting
                if unknown.run not in missing:
                    works.unknown[unknown.run] = None
            except Later:
                kind = works.waiting
            except Exception:  # noqa: BLE001 — decided again on the tables
                kind = works.slow
            if kind is not works.ready:
                del tables.hints[hints:]
            kind.append(pending)
        works.drafts, works.hints = tables.drafts, tables.hints
        return works

    async def _load(self, wanted: dict[Place, None], writer: Writer) -> set[Place]:
        """Holds runs; returns those that do not exist."""
        connection = await writer.connect()
        rows = await connection.fetch(_LOAD, [tenant for tenant, _ in wanted], [run_id for _, run_id in wanted])
        for tenant, run_id, message_count, *standing in rows:
            self._runs.put(HotRun(tenant, run_id, standing_of(standing), message_count))
        return set(wanted) - {(row[0], row[1]) for row in rows}

    async def _commit(self, works: _Sorted, writer: Writer) -> None:
        guess = self._last_number
        said = write_hints(writer.id, works.hints, guess) if works.hints else ""
        sql, args = build(works.drafts, said)
        connection = await writer.connect()
        waypoint("postgres.commit.before")
        row = await connection.fetchrow(sql, *args)
        waypoint("postgres.commit.after")
        assert row is not None, "one row of counters"
        if row[0] != guess:
            self._number_again(works.ready, row[0])
        self._last_number = row[0] + len(works.drafts)
        for draft in works.drafts:
            self._runs.put(draft.after)
        settle(works.ready)

    def _number_again(self, ready: Sequence[Pending], before: int) -> None:
        """Other replicas wrote since the last number that was known: the results get the right ones by deciding once more."""
        tables = self._tables
        tables.start(before)
        for pending in ready:
            tables.begin()
            pending.result = pending.work(tables)
            tables.accept()

    def _forget(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            self._runs.forget(draft.run.standing.key)
