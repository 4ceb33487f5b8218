"""The effect ledger in a SQLite file, which survives whoever is killed. Several executors may share the file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from chassis.faults import StorageUnavailable
from chassis.sqlite import Database
from tool_executor.domain.execution import Execution, Result, Status, ToolCall
from tool_executor.domain.ledger import LEASE_SECONDS, Standing, Verdict, judge

MAX_UNWRITTEN = 10_000
LINGER_SECONDS = 0.05  # what a kill may lose is only receipts of tools that changed nothing
RETRY_SECONDS = 1.0
PURGE_CHUNK = 500

_log = structlog.get_logger("tool_executor")

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
_LIVES = "SELECT 1 FROM executors WHERE instance = ? AND alive_until > ?"
_PURGE = """
    DELETE FROM executions WHERE id IN (SELECT id FROM executions ORDER BY id LIMIT ?) AND started_at < ?
"""


@asynccontextmanager
async def open_sqlite_executions(database: Database) -> AsyncIterator[SqliteExecutions]:
    """The ledger in the database; what was to be written is, before it closes."""
    executions = SqliteExecutions(database)
    writing = asyncio.create_task(executions.write_behind())
    try:
        yield executions
    finally:
        writing.cancel()
        await asyncio.wait([writing])
        await executions.flush_last()


class SqliteExecutions:
    """See the port. Receipts of unclaimed executions are written behind: many in one transaction, and nobody waits for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: dict[tuple[str, str], Execution] = {}
        self._wake = asyncio.Event()
        self._looking = _Looking(database)

    async def begin(self, asked: Execution, claim: bool) -> Standing:
        """What the call may do."""
        if unwritten := self._unwritten.get((asked.tenant, asked.key)):
            return judge(asked, unwritten, claimant_lives=True)
        if not claim:
            standing = await self._looking.ask(asked)
            if standing.verdict not in _CHANGES:
                return standing
        return await self._database.write(lambda connection: _begin(connection, asked, claim))

    async def finish(self, ended: Execution) -> Execution:
        """Keeps the receipt unless there is one, or somebody took the claim over."""
        return await self._database.write(lambda connection: _finish(connection, ended))

    async def remember(self, ended: Execution) -> None:
        """Keeps the receipt, soon; when the backlog is full, now."""
        if len(self._unwritten) >= MAX_UNWRITTEN:
            await self._database.write(lambda connection: _add(connection, [ended]))
            return
        self._unwritten.setdefault((ended.tenant, ended.key), ended)
        self._wake.set()

    async def find(self, tenant: str, key: str) -> Execution | None:
        """The record, also one that waits to be written."""
        if unwritten := self._unwritten.get((tenant, key)):
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
        forgotten = 0
        while count := await self._database.write(lambda connection: connection.execute(_PURGE, (PURGE_CHUNK, before)).rowcount):
            forgotten += count
        return forgotten

    async def check(self) -> None:
        """Raises StorageUnavailable when the file cannot be read."""
        await self._database.read(lambda connection: connection.execute("SELECT 1 FROM executions LIMIT 1").fetchone())

    async def write_behind(self) -> None:
        """Writes what waits, until it is cancelled. A storage that fails is tried again."""
        told = ""
        while True:
            await self._wake.wait()
            await asyncio.sleep(LINGER_SECONDS)
            self._wake.clear()
            try:
                await self.flush()
                told = ""
            except Exception as problem:  # noqa: BLE001 - whatever it is, the receipts wait and are tried again
                if str(problem) != told:
                    _log.warning("receipts wait to be written", count=len(self._unwritten), problem=str(problem))
                told = str(problem)
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def flush(self) -> None:
        """Writes what waits, in one transaction."""
        waiting = list(self._unwritten.values())
        if not waiting:
            return
        await self._database.write(lambda connection: _add(connection, waiting))
        for execution in waiting:
            self._unwritten.pop((execution.tenant, execution.key), None)

    async def flush_last(self) -> None:
        """Writes what waits; when that fails at the very end, says what is lost instead of hiding why the ledger was closed."""
        try:
            await self.flush()
        except StorageUnavailable as fault:
            _log.error("receipts of read-only tools are lost", count=len(self._unwritten), problem=fault.message)


class _Looking:
    """Looks keys up, all that came up while the last look was under way in the next one: the way to the reader's thread is what costs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: list[tuple[Execution, asyncio.Future[Standing]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, asked: Execution) -> Standing:
        """What the call may do, as of now."""
        future: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        self._asked.append((asked, future))
        if self._task is None:
            self._task = asyncio.create_task(self._answer())
        return await future

    async def _answer(self) -> None:
        while self._asked:
            group, self._asked = self._asked, []
            outcome = await self._look_at([asked for asked, _ in group])
            for index, (_, future) in enumerate(group):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome[index])
        self._task = None

    async def _look_at(self, asked: list[Execution]) -> list[Standing] | Exception:
        try:
            return await self._database.read(lambda connection: [_look(connection, one) for one in asked])
        except Exception as failure:  # noqa: BLE001 - each of those who asked gets it
            return failure


_CHANGES = (Verdict.TAKE_OVER, Verdict.UNKNOWN)


def _look(connection: sqlite3.Connection, asked: Execution) -> Standing:
    held = _find(connection, asked.tenant, asked.key)
    if held is None or held.result is not None:
        return judge(asked, held, claimant_lives=False)
    return judge(asked, held, _lives(connection, held.instance, asked.started_at))


def _begin(connection: sqlite3.Connection, asked: Execution, claim: bool) -> Standing:
    """Applies the verdict in the transaction that reached it, so two executors never reach the same one."""
    standing = _look(connection, asked)
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


def _lives(connection: sqlite3.Connection, instance: str, now: float) -> bool:
    return connection.execute(_LIVES, (instance, now)).fetchone() is not None


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
