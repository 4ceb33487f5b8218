"""Statistics: what runs came to."""

from __future__ import annotations

from dataclasses import dataclass

from session_store.domain.session import RunId, SessionId, Tenant
from session_store.domain.statistics import Selection, Statistics, by_day, statistics_of
from session_store.operations.appending import run_not_found
from session_store.operations.ports import Storage, Tables
from session_store.operations.sessions import found


@dataclass(frozen=True, slots=True)
class StatisticsQuery:
    """Whose runs: of a session, one, or, with both empty, all of the tenant; opened on days from since to before until."""

    tenant: Tenant
    session_id: SessionId = SessionId("")
    run_id: RunId = RunId("")
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """All, and by the number of the day."""

    total: Statistics
    days: list[tuple[int, Statistics]]


class Counting:
    """Sums up."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def count(self, query: StatisticsQuery) -> Counted:
        """The sums, all from one snapshot. Raises SessionNotFound, RunNotFound."""
        return await self._storage.read(lambda tables: _count(tables, query), query.tenant)


def _count(tables: Tables, query: StatisticsQuery) -> Counted:
    selection = _select(tables, query)
    runs, usage = tables.counts.of_runs(selection), tables.counts.of_usage(selection)
    return Counted(statistics_of(runs, usage), by_day(runs, usage))


def _select(tables: Tables, query: StatisticsQuery) -> Selection:
    session = found(tables, query.tenant, query.session_id) if query.session_id else None
    run = tables.runs.standing(query.tenant, query.run_id) if query.run_id else None
    if query.run_id and (run is None or (session is not None and run.session_key != session.key)):
        raise run_not_found(query.run_id)
    session_key = session.key if session else run.session_key if run else None
    return Selection(query.tenant, session_key, run.key if run else None, query.since, query.until)
