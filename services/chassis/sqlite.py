"""A SQLite file with one writer thread and group commit. What is stored in it is each service's own affair.

Work is a function of a connection. All writes that are pending when the writer is free go into one transaction, so many callers
share one fsync; each runs in its own savepoint, so one failure does not spoil the others. Reads run beside the writer on a snapshot.
Several processes may share a file: the transaction is the truth, nothing is cached here.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from chassis.announcing import announce_commit
from chassis.faults import SchemaTooNew, StorageUnavailable
from chassis.waypoints import waypoint

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Durability = Literal["full", "normal"]

MEMORY = ":memory:"
GROUP = 512  # writes per transaction: keeps the longest wait for the lock short
BACKLOG = 10_000  # writes that may wait; far more than callers that can be under way
BUSY_SECONDS = 5.0  # how long another process may hold the lock before a write fails
READERS = 2
PAGE_BYTES = 2048  # a lone small write sends 40 % less to the disk than with SQLite's 4096, a group of 64 sends 10 % more


@asynccontextmanager
async def open_sqlite(
    path: str,
    migrations: Sequence[str],
    durability: Durability = "full",
    busy_seconds: float = BUSY_SECONDS,
    owner: str = "",
) -> AsyncIterator[Database]:
    """An open database, migrated to the newest of migrations; `:memory:` lives as long as it is open.

    `migrations` are SQL scripts, the first brings the schema to version 1; append to them, never change one that was released.
    `owner` keeps apart the schemas of several services in one file.
    `full` survives a power cut after each acknowledged write; `normal` survives a killed process, but a power cut may lose the last writes.
    Raises StorageUnavailable, SchemaTooNew.
    """
    connection = await asyncio.to_thread(_open, path, _Schema(owner, migrations), durability, busy_seconds)
    database = Database(path, connection, busy_seconds)
    try:
        yield database
    finally:
        await database.close()


@dataclass(frozen=True, slots=True)
class _Schema:
    owner: str
    migrations: Sequence[str]


@dataclass(slots=True)
class _Pending:
    work: Work[Any]
    announce: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    committed: bool = False
    result: Any = None
    error: BaseException | None = None


class Database:
    """An open SQLite database. Made by open_sqlite."""

    def __init__(self, path: str, connection: sqlite3.Connection, busy_seconds: float) -> None:
        self.path = path
        self._connection = connection
        self._place = Path(path).absolute()
        self._file = None if path == MEMORY else _file_at(self._place)
        self._busy_seconds = busy_seconds
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._closed = False
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-read")
        self._writer = threading.Thread(target=self._run, name="sqlite-write", daemon=True)
        self._writer.start()

    async def write(self, work: Work[T], announce: Callable[[T], None] | None = None) -> T:
        """Runs work in the next transaction and returns its result once that is durable.

        `announce` is called with the result on the event loop, in the order of commits, before any writer of the group goes on,
        also when the caller was cancelled meanwhile. Work may run again in a second transaction when the first could not be committed.
        An exception of work undoes what it did. Raises StorageUnavailable.
        """
        if self._closed or self._queue.qsize() >= BACKLOG:
            raise StorageUnavailable(f"{self.path} takes no more writes: it is closing or {BACKLOG} wait; retry later", retry_after=1.0)
        pending = _Pending(work, announce, self._loop.create_future())
        self._queue.put(pending)
        result: T = await pending.future
        return result

    async def read(self, work: Work[T]) -> T:
        """Runs work on a snapshot beside the writer. Raises StorageUnavailable."""
        if self.path == MEMORY:
            return await self.write(work)
        if self._closed:
            raise StorageUnavailable(f"{self.path} is closing; retry later", retry_after=1.0)
        return await self._loop.run_in_executor(self._readers, self._read, work)

    async def close(self) -> None:
        """Finishes what was taken on, then closes."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in (*self._opened, self._connection):
            with suppress(sqlite3.Error):
                connection.close()

    def _read(self, work: Work[T]) -> T:
        try:
            self._refuse_another_file()
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise storage_fault(self.path, error) from error

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self.path, self._busy_seconds)
            connection.execute("PRAGMA query_only = ON")
            self._opened.append(connection)
        return connection

    def _refuse_another_file(self) -> None:
        """Raises StorageUnavailable when the file was deleted or replaced: what is written to it now would be gone at the end."""
        if self._file is not None and _file_at(self._place) != self._file:
            text = (
                f"the database {self.path} was deleted or replaced while in use; put it back, or restart this service to use what is there"
            )
            raise StorageUnavailable(text, metadata={"path": self.path})

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, more = self._gather(first)
            self._commit(group)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_settle, group)
            if not more:
                return

    def _gather(self, first: _Pending) -> tuple[list[_Pending], bool]:
        group = [first]
        while len(group) < GROUP:
            try:
                pending = self._queue.get_nowait()
            except queue.Empty:
                break
            if pending is None:
                return group, False
            group.append(pending)
        return group, True

    def _commit(self, group: list[_Pending]) -> None:
        live = [pending for pending in group if not pending.future.cancelled()]
        try:
            self._refuse_another_file()
        except StorageUnavailable as fault:
            for pending in live:
                pending.error = fault
            return
        if len(live) > 1 and self._together(live):
            return
        for pending in live:
            self._alone(pending)

    def _together(self, group: list[_Pending]) -> bool:
        """Whether the group is settled; if not, nothing of it was done and each is worth its own transaction."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            for pending in group:
                pending.error = storage_fault(self.path, error)
            return True
        try:
            for pending in group:
                self._in_savepoint(pending)
            waypoint("sqlite.commit.before")
            self._connection.execute("COMMIT")
            waypoint("sqlite.commit.after")
        except sqlite3.Error:
            self._roll_back()
            return False
        for pending in group:
            pending.committed = pending.error is None
        return True

    def _in_savepoint(self, pending: _Pending) -> None:
        execute = self._connection.execute
        execute("SAVEPOINT work")
        try:
            pending.result, pending.error = pending.work(self._connection), None
        except sqlite3.OperationalError:
            raise  # the storage's trouble, and perhaps the whole transaction's
        except BaseException as error:  # noqa: BLE001 — any other failure is its caller's, who gets it
            pending.error = storage_fault(self.path, error) if isinstance(error, sqlite3.Error) else error
            execute("ROLLBACK TO work")
        execute("RELEASE work")

    def _alone(self, pending: _Pending) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            pending.result, pending.error = pending.work(self._connection), None
            waypoint("sqlite.commit.before")
            self._connection.execute("COMMIT")
            waypoint("sqlite.commit.after")
            pending.committed = True
        except sqlite3.Error as error:
            self._roll_back()
            pending.error = storage_fault(self.path, error)
        except BaseException as error:  # noqa: BLE001 — the caller gets it
            self._roll_back()
            pending.error = error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def _settle(group: list[_Pending]) -> None:
    for pending in group:
        if pending.committed and pending.announce is not None:
            announce_commit(pending.announce, pending.result)
    for pending in group:
        if pending.future.done():
            continue
        if pending.error is None:
            pending.future.set_result(pending.result)
        else:
            pending.future.set_exception(pending.error)


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is there, None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: str, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_seconds, cached_statements=256)
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -16000")  # KiB
    return connection


def _enter_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Turns the log on. SQLite does not wait for others at this step, so processes that start at once on a new file try again."""
    until = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(0.01)  # in the thread that opens; SQLite itself has no way to wait here


def _open(path: str, schema: _Schema, durability: Durability, busy_seconds: float) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = _connect(path, busy_seconds)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _enter_wal(connection, busy_seconds)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        _migrate(path, connection, schema)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise storage_fault(path, error) from error
        raise
    return connection


def _migrate(path: str, connection: sqlite3.Connection, schema: _Schema) -> None:
    """Brings the schema forward, in one transaction, so that two processes that start at once do not both do it."""
    owner, newest = schema.owner, len(schema.migrations)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS schema_versions (owner TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT")
    row = connection.execute("SELECT version FROM schema_versions WHERE owner = ?", (owner,)).fetchone()
    version = int(row[0]) if row else 0
    if version > newest:
        raise SchemaTooNew(
            f"{path} has schema {version}, this version knows {newest}; run the version that wrote it, or a newer one",
            metadata={"found": str(version), "known": str(newest)},
        )
    for script in schema.migrations[version:]:
        for statement in _statements(script):
            _create(path, connection, statement)
    if version < newest:
        connection.execute("INSERT OR REPLACE INTO schema_versions VALUES (?, ?)", (owner, newest))
    connection.execute("COMMIT")


def _create(path: str, connection: sqlite3.Connection, statement: str) -> None:
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as error:
        if "already exists" not in str(error):
            raise
        text = f"the database {path} holds tables of another program ({error}); choose another path"
        raise StorageUnavailable(text, metadata={"path": path}) from None


def _statements(script: str) -> list[str]:
    statements, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            statements.append(rest)
            rest = ""
    if rest.strip():
        raise ValueError(f"the migration ends in the middle of a statement: {rest.strip()[:80]}")
    return statements


_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process holds its lock; stop that process or retry",
    sqlite3.SQLITE_LOCKED: "another connection holds its lock; retry",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only; make both writable for this user",
    sqlite3.SQLITE_PERM: "access is denied; make the file and its folder writable for this user",
    sqlite3.SQLITE_FULL: "the disk or its quota is full; free space, then retry",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; create its folder and make it writable for this user",
    sqlite3.SQLITE_IOERR: "the disk failed; look at the system log, then retry",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database; choose another path",
}

# Those that may pass without anybody doing anything.
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def storage_fault(path: str, error: sqlite3.Error) -> Exception:
    """The fault that tells an operator what to do about a SQLite error; defects of this program are returned as they are."""
    code = getattr(error, "sqlite_errorcode", None)
    remedy = _REMEDIES.get(code & 0xFF) if code is not None else None
    if code is None or remedy is None:
        return error
    metadata = {"path": path, "sqlite": str(getattr(error, "sqlite_errorname", code))}
    retry_after = 1.0 if code & 0xFF in _PASSING else None
    return StorageUnavailable(f"the database {path} cannot be used: {remedy}", metadata=metadata, retry_after=retry_after)
