"""The effect ledger in PostgreSQL, shared by any number of executors. Claims and receipts of many calls share a transaction."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chassis.faults import StorageUnavailable
from chassis.postgres import Database, Statements
from tool_executor.adapters.gathering import Gathering
from tool_executor.adapters.postgres import claims, unpublished
from tool_executor.adapters.postgres.claims import Asked
from tool_executor.adapters.postgres.rows import COLUMNS, execution_of, stored
from tool_executor.adapters.postgres.writing import write
from tool_executor.adapters.unwritten import Unwritten
from tool_executor.domain.execution import Execution
from tool_executor.domain.ledger import Standing, Verdict, judge
from tool_executor.domain.sightings import Sightings
from tool_executor.operations.ports import Deleted

PURGE_CHUNK = 500
MAX_DOUBTS = 10_000

_FIND = f"SELECT {COLUMNS} FROM executions WHERE tenant = $1 AND key = $2"  # noqa: S608 - constants
_PURGE = """
    WITH oldest AS (SELECT id, started_at FROM executions ORDER BY id LIMIT $1),
        gone AS (DELETE FROM executions x USING oldest WHERE x.id = oldest.id AND oldest.started_at < $2 AND (NOT $3
            OR NOT EXISTS (SELECT 1 FROM unpublished u WHERE u.tenant = x.tenant AND u.key = x.key)) RETURNING 1)
    SELECT count(*) FROM gone
"""

_DELETE = """
    WITH of_run AS (SELECT id, tenant, key, status FROM executions WHERE tenant = $1 AND key >= $2 AND key < $3 AND run_id = $4),
        gone AS (DELETE FROM executions x USING of_run WHERE x.id = of_run.id AND of_run.status <> 1 AND (NOT $5
            OR NOT EXISTS (SELECT 1 FROM unpublished u WHERE u.tenant = x.tenant AND u.key = x.key)) RETURNING 1)
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM of_run) - (SELECT count(*) FROM gone)
"""  # keys are run/call, and 0 comes behind /


@asynccontextmanager
async def open_postgres_executions(database: Database, publishes: bool = False) -> AsyncIterator[PostgresExecutions]:
    """The ledger in the database; what was to be written is, before it closes. One that publishes keeps what ends for Unpublished."""
    executions = PostgresExecutions(database, publishes)
    async with executions.unwritten.running():
        yield executions


class PostgresExecutions:
    """See the ports Executions and Unpublished."""

    def __init__(self, database: Database, publishes: bool = False) -> None:
        self._database = database
        self._publishes = publishes
        self.unwritten = Unwritten(self._write)
        self._sightings = Sightings()
        self._looking = Gathering(self._look)
        self._beginning = Gathering(self._begin)
        self._finishing = Gathering(self._finish)
        self._doubts: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def begin(self, asked: Execution, claim: bool) -> Standing:
        """What the call may do."""
        if unwritten := self.unwritten.find(asked.tenant, asked.key):
            return judge(asked, unwritten, claimant_lives=True)
        if not claim:
            standing = await self._looking.ask(asked)
            if standing.verdict not in (Verdict.TAKE_OVER, Verdict.UNKNOWN):
                return standing
        return await self._apply(asked, claim)

    async def finish(self, ended: Execution) -> Execution:
        """Keeps the receipt unless there is one, or somebody took the claim over."""
        return await self._finishing.ask(ended)

    async def remember(self, ended: Execution) -> None:
        """Keeps the receipt, soon; when the backlog is full, now."""
        await self.unwritten.add(ended)

    async def find(self, tenant: str, key: str) -> Execution | None:
        """The record, also one that waits to be written."""
        if unwritten := self.unwritten.find(tenant, key):
            return unwritten
        row = await self._database.read(lambda statements: statements.fetchrow(_FIND, tenant, stored(key)), tenant)
        return None if row is None else execution_of(row)

    async def renew(self, instance: str, until: float) -> None:
        """The claimant lives until then."""
        await write(self._database, lambda statements: statements.execute(claims.RENEW, instance, until))

    async def resign(self, instance: str) -> None:
        """The claimant is gone."""
        await write(self._database, lambda statements: statements.execute("DELETE FROM executors WHERE instance = $1", instance))

    async def purge(self, before: float) -> int:
        """Forgets old records a few at a time, so that no writer waits long."""
        await write(self._database, lambda statements: statements.execute("DELETE FROM executors WHERE alive_until < $1", before))
        forgotten, oldest = 0, (PURGE_CHUNK, before, self._publishes)
        while count := await write(self._database, lambda statements: int(statements.fetch(_PURGE, *oldest)[0][0])):
            forgotten += count
        return forgotten

    async def delete(self, tenant: str, run_id: str) -> Deleted:
        """Forgets a run's ended executions."""
        await self.flush()
        of_run = (tenant, stored(f"{run_id}/"), stored(f"{run_id}0"), stored(run_id))
        return await write(self._database, lambda statements: Deleted(*statements.fetch(_DELETE, *of_run, self._publishes)[0]))

    async def due(self, now: float, limit: int) -> list[Execution]:
        """Takes ended executions to publish; writes nothing when there are none."""
        if not await self._database.read(lambda statements: statements.fetch(unpublished.ANY_DUE, now)):
            return []
        return await write(self._database, lambda statements: unpublished.take(statements, now, limit))

    async def published(self, executions: Sequence[Execution]) -> None:
        """Has them never come again."""
        await write(self._database, lambda statements: unpublished.published(statements, executions))

    async def check(self) -> None:
        """Raises StorageUnavailable when the database takes no writes."""
        await self._database.check()

    async def flush(self) -> None:
        """Writes what waits."""
        await self.unwritten.flush()

    async def _apply(self, asked: Execution, claim: bool) -> Standing:
        """A claim whose commit is in doubt is remembered: when its call comes again, it is no orphan, for it did not begin."""
        where = (asked.tenant, asked.key)
        try:
            standing = await self._beginning.ask(Asked(asked, claim, self._doubts.get(where)))
        except StorageUnavailable:
            if claim:
                self._doubts.setdefault(where, asked.started_at)
                if len(self._doubts) > MAX_DOUBTS:
                    self._doubts.popitem(last=False)
            raise
        self._doubts.pop(where, None)
        return standing

    async def _write(self, executions: Sequence[Execution]) -> None:
        await write(self._database, lambda statements: self._added(statements, executions))

    async def _look(self, asked: Sequence[Execution]) -> Sequence[Standing]:
        return await self._database.read(lambda statements: claims.look(statements, self._sightings, asked))

    async def _begin(self, asked: Sequence[Asked]) -> Sequence[Standing]:
        return await write(self._database, lambda statements: self._begun(statements, asked))

    async def _finish(self, ended: Sequence[Execution]) -> Sequence[Execution]:
        return await write(self._database, lambda statements: self._finished(statements, ended))

    def _added(self, statements: Statements, executions: Sequence[Execution]) -> None:
        claims.add(statements, executions)
        self._queue(statements, executions)

    def _begun(self, statements: Statements, asked: Sequence[Asked]) -> Sequence[Standing]:
        standings = claims.begin(statements, self._sightings, asked)
        self._queue(statements, [standing.execution for standing in standings if standing.verdict is Verdict.UNKNOWN])
        return standings

    def _finished(self, statements: Statements, ended: Sequence[Execution]) -> Sequence[Execution]:
        remembered = claims.finish(statements, ended)
        self._queue(statements, [own for own, kept in zip(ended, remembered, strict=True) if own is kept])
        return remembered

    def _queue(self, statements: Statements, ended: Sequence[Execution]) -> None:
        if self._publishes:
            unpublished.queue(statements, ended)
