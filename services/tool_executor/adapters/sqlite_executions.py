"""The effect ledger in a SQLite file, which survives whoever is killed. Several executors may share the file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chassis.sqlite import Database
from tool_executor.adapters.gathering import Gathering
from tool_executor.adapters.unwritten import Unwritten
from tool_executor.domain.execution import Execution, Result, Status, ToolCall
from tool_executor.domain.ledger import LEASE_SECONDS, PUBLISH_SECONDS, Standing, Verdict, judge
from tool_executor.domain.sightings import Sightings
from tool_executor.operations.ports import Deleted

PURGE_CHUNK = 500

_COLUMNS = (
    "tenant, key, call_id, tool, arguments, instance, started_at, run_id, session_id, tool_version, repeatable, attempt, approved_by, "
    "status, content, full_bytes, truncated, effect_unknown, ended_at, duration"
)
_ADD = f"INSERT INTO executions ({_COLUMNS}) VALUES ({', '.join('?' * 20)}) ON CONFLICT (tenant, key) DO NOTHING"  # noqa: S608 - constants
_FIND = f"SELECT {_COLUMNS} FROM executions WHERE tenant = ? AND key = ?"  # noqa: S608 - constants
_TAKE_OVER = """
    UPDATE executions SET instance = ?, started_at = ?, attempt = ?, tool_version = ? WHERE tenant = ? AND key = ?
"""
_END = """
    UPDATE executions SET status = ?, content = ?, full_bytes = ?, truncated = ?, effect_unknown = ?, ended_at = ?, duration = ?
    WHERE tenant = ? AND key = ? AND status = 1
"""
_END_OWN = f"{_END} AND instance = ? AND attempt = ?"
_RENEW = "INSERT INTO executors VALUES (?, ?) ON CONFLICT (instance) DO UPDATE SET alive_until = max(alive_until, excluded.alive_until)"
_LEASE = "SELECT alive_until FROM executors WHERE instance = ?"
_PURGE = """
    DELETE FROM executions WHERE id IN (SELECT id FROM executions ORDER BY id LIMIT ?) AND started_at < ?
"""
_PURGE_PUBLISHED = f"""{_PURGE}
    AND NOT EXISTS (SELECT 1 FROM unpublished u WHERE u.tenant = executions.tenant AND u.key = executions.key)
"""  # noqa: S608 - constants
_OF_RUN = "tenant = ? AND key >= ? AND key < ? AND run_id = ?"  # keys are run/call, and 0 comes behind /
_DELETE = f"DELETE FROM executions WHERE {_OF_RUN} AND status <> 1"  # noqa: S608 - constants
_DELETE_PUBLISHED = f"""{_DELETE}
    AND NOT EXISTS (SELECT 1 FROM unpublished u WHERE u.tenant = executions.tenant AND u.key = executions.key)
"""  # noqa: S608 - constants
_COUNT = f"SELECT count(*) FROM executions WHERE {_OF_RUN}"  # noqa: S608 - constants
_QUEUE = "INSERT INTO unpublished (tenant, key) VALUES (?, ?) ON CONFLICT DO NOTHING"
_ANY_DUE = "SELECT 1 FROM unpublished WHERE taken_until NOT BETWEEN ? AND ? LIMIT 1"
_TAKE = """
    UPDATE unpublished SET taken_until = ?
    WHERE id IN (SELECT id FROM unpublished WHERE taken_until NOT BETWEEN ? AND ? ORDER BY id LIMIT ?)
    RETURNING id, tenant, key
"""
_PUBLISHED = "DELETE FROM unpublished WHERE tenant = ? AND key = ?"


@asynccontextmanager
async def open_sqlite_executions(database: Database, publishes: bool = False) -> AsyncIterator[SqliteExecutions]:
    """The ledger in the database; what was to be written is, before it closes. One that publishes keeps what ends for Unpublished."""
    executions = SqliteExecutions(database, publishes)
    async with executions.unwritten.running():
        yield executions


class SqliteExecutions:
    """See the ports Executions and Unpublished."""

    def __init__(self, database: Database, publishes: bool = False) -> None:
        self._database = database
        self._publishes = publishes
        self.unwritten = Unwritten(self._write)
        self._looking = Gathering(self._look_at)
        self._sightings = Sightings()

    async def begin(self, asked: Execution, claim: bool) -> Standing:
        """What the call may do."""
        if unwritten := self.unwritten.find(asked.tenant, asked.key):
            return judge(asked, unwritten, claimant_lives=True)
        if not claim:
            standing = await self._looking.ask(asked)
            if standing.verdict not in _CHANGES:
                return standing
        return await self._database.write(lambda connection: self._begin(connection, asked, claim))

    async def finish(self, ended: Execution) -> Execution:
        """Keeps the receipt unless there is one, or somebody took the claim over."""
        return await self._database.write(lambda connection: self._finish(connection, ended))

    async def remember(self, ended: Execution) -> None:
        """Keeps the receipt, soon; when the backlog is full, now."""
        await self.unwritten.add(ended)

    async def find(self, tenant: str, key: str) -> Execution | None:
        """The record, also one that waits to be written."""
        if unwritten := self.unwritten.find(tenant, key):
            return unwritten
        return await self._database.read(lambda connection: _find(connection, tenant, key))

    async def renew(self, instance: str, until: float) -> None:
        """The claimant lives until then."""
        await self._database.write(lambda connection: connection.execute(_RENEW, (instance, until)))

    async def resign(self, instance: str) -> None:
        """The claimant is gone."""
        await self._database.write(lambda connection: connection.execute("DELETE FROM executors WHERE instance = ?", (instance,)))

    async def purge(self, before: float) -> int:
        """Forgets old records a few at a time, so that no writer waits long."""
        await self._database.write(lambda connection: connection.execute("DELETE FROM executors WHERE alive_until < ?", (before,)))
        forgotten, purge = 0, _PURGE_PUBLISHED if self._publishes else _PURGE
        while count := await self._database.write(lambda connection: connection.execute(purge, (PURGE_CHUNK, before)).rowcount):
            forgotten += count
        return forgotten

    async def delete(self, tenant: str, run_id: str) -> Deleted:
        """Forgets a run's ended executions."""
        await self.flush()
        delete = _DELETE_PUBLISHED if self._publishes else _DELETE
        return await self._database.write(lambda connection: _delete(connection, delete, (tenant, f"{run_id}/", f"{run_id}0", run_id)))

    async def due(self, now: float, limit: int) -> list[Execution]:
        """Takes ended executions to publish; writes nothing when there are none."""
        if not await self._database.read(lambda connection: connection.execute(_ANY_DUE, (now, now + 2 * PUBLISH_SECONDS)).fetchone()):
            return []
        return await self._database.write(lambda connection: _take(connection, now, limit))

    async def published(self, executions: Sequence[Execution]) -> None:
        """Has them never come again."""
        await self._database.write(lambda connection: connection.executemany(_PUBLISHED, _wheres(executions)))

    async def check(self) -> None:
        """Raises StorageUnavailable when the file cannot be read."""
        await self._database.read(lambda connection: connection.execute("SELECT 1 FROM executions LIMIT 1").fetchone())

    async def flush(self) -> None:
        """Writes what waits."""
        await self.unwritten.flush()

    async def _write(self, executions: Sequence[Execution]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            _add(connection, executions)
            self._queue(connection, executions)

        await self._database.write(work)

    def _begin(self, connection: sqlite3.Connection, asked: Execution, claim: bool) -> Standing:
        standing = _begin(connection, self._sightings, asked, claim)
        if standing.verdict is Verdict.UNKNOWN:
            self._queue(connection, [standing.execution])
        return standing

    def _finish(self, connection: sqlite3.Connection, ended: Execution) -> Execution:
        remembered = _finish(connection, ended)
        if remembered is ended:
            self._queue(connection, [ended])
        return remembered

    def _queue(self, connection: sqlite3.Connection, ended: Sequence[Execution]) -> None:
        if self._publishes:
            connection.executemany(_QUEUE, _wheres(ended))

    async def _look_at(self, asked: Sequence[Execution]) -> Sequence[Standing]:
        return await self._database.read(lambda connection: [_look(connection, self._sightings, one) for one in asked])


_CHANGES = (Verdict.TAKE_OVER, Verdict.UNKNOWN)


def _look(connection: sqlite3.Connection, sightings: Sightings, asked: Execution) -> Standing:
    held = _find(connection, asked.tenant, asked.key)
    if held is None or held.result is not None:
        return judge(asked, held, claimant_lives=False)
    return judge(asked, held, _lives(connection, sightings, held.instance, asked.started_at))


def _delete(connection: sqlite3.Connection, delete: str, of_run: tuple[str, ...]) -> Deleted:
    count = connection.execute(delete, of_run).rowcount
    return Deleted(count, int(connection.execute(_COUNT, of_run).fetchone()[0]))


def _begin(connection: sqlite3.Connection, sightings: Sightings, asked: Execution, claim: bool) -> Standing:
    """Applies the verdict in the transaction that reached it, so two executors never reach the same one."""
    standing = _look(connection, sightings, asked)
    execution = standing.execution
    if standing.verdict is Verdict.BEGIN and claim:
        _add(connection, [execution])
    if standing.verdict is Verdict.TAKE_OVER:
        taken = (execution.instance, execution.started_at, execution.attempt, execution.tool_version, execution.tenant, execution.key)
        connection.execute(_TAKE_OVER, taken)
    if standing.verdict is Verdict.UNKNOWN:
        connection.execute(_END, (*_end_row(execution), execution.tenant, execution.key))
    if standing.verdict in (Verdict.BEGIN, Verdict.TAKE_OVER):
        connection.execute(_RENEW, (execution.instance, execution.started_at + LEASE_SECONDS))
    return standing


def _finish(connection: sqlite3.Connection, ended: Execution) -> Execution:
    row = (*_end_row(ended), ended.tenant, ended.key, ended.instance, ended.attempt)
    if connection.execute(_END_OWN, row).rowcount:
        return ended
    held = _find(connection, ended.tenant, ended.key)
    return held if held is not None and held.result is not None else ended


def _find(connection: sqlite3.Connection, tenant: str, key: str) -> Execution | None:
    row = connection.execute(_FIND, (tenant, key)).fetchone()
    return None if row is None else _execution(row)


def _take(connection: sqlite3.Connection, now: float, limit: int) -> list[Execution]:
    """Those whose record is gone are dropped: there is nothing to say of them any more."""
    taken = sorted(connection.execute(_TAKE, (now + PUBLISH_SECONDS, now, now + 2 * PUBLISH_SECONDS, limit)).fetchall())
    found = {(tenant, key): _find(connection, tenant, key) for _, tenant, key in taken}
    connection.executemany(_PUBLISHED, [where for where, execution in found.items() if execution is None])
    return [execution for execution in found.values() if execution is not None]


def _wheres(executions: Sequence[Execution]) -> list[tuple[str, str]]:
    return [(execution.tenant, execution.key) for execution in executions]


def _lives(connection: sqlite3.Connection, sightings: Sightings, instance: str, now: float) -> bool:
    lease = connection.execute(_LEASE, (instance,)).fetchone()
    return sightings.lives(instance, lease and float(lease[0]), now)


def _add(connection: sqlite3.Connection, executions: Sequence[Execution]) -> None:
    connection.executemany(_ADD, [_row(execution) for execution in executions])


def _row(execution: Execution) -> tuple[Any, ...]:
    call = execution.call
    return (
        execution.tenant,
        execution.key,
        call.id,
        call.name,
        call.arguments,
        execution.instance,
        execution.started_at,
        execution.run_id,
        execution.session_id,
        execution.tool_version,
        int(execution.repeatable),
        execution.attempt,
        execution.approved_by,
        *_end_row(execution),
    )


def _end_row(execution: Execution) -> tuple[Any, ...]:
    result = execution.result or Result(Status.RUNNING)
    flags = (int(result.truncated), int(result.effect_unknown))
    return (int(result.status), result.content, result.full_bytes, *flags, execution.ended_at, execution.duration)


def _execution(row: tuple[Any, ...]) -> Execution:
    status, content, full_bytes, truncated, effect_unknown, ended_at, duration = row[13:]
    ended = Result(Status(status), content, full_bytes, bool(truncated), bool(effect_unknown))
    return Execution(
        tenant=row[0],
        key=row[1],
        call=ToolCall(row[2], row[3], row[4]),
        instance=row[5],
        started_at=row[6],
        run_id=row[7],
        session_id=row[8],
        tool_version=row[9],
        repeatable=bool(row[10]),
        attempt=row[11],
        approved_by=row[12],
        result=None if status == Status.RUNNING else ended,
        ended_at=ended_at,
        duration=duration,
    )
