"""The backend as a whole: transactions on one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from chassis.sqlite import Database, Durability, open_sqlite
from session_store.adapters.sqlite.batches import SqliteBatches
from session_store.adapters.sqlite.counts import SqliteCounts
from session_store.adapters.sqlite.ledgers import SqliteLeases, SqliteRequests, SqliteUsageSums
from session_store.adapters.sqlite.outbox import SqliteOutbox
from session_store.adapters.sqlite.runs import SqliteRuns
from session_store.adapters.sqlite.schema import MIGRATIONS
from session_store.adapters.sqlite.sessions import SqliteMessages, SqliteSessions
from session_store.domain.session import Tenant
from session_store.operations.ports import Heard, Hint, Tables

T = TypeVar("T")


class SqliteTables:
    """All rows, through one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.sessions = SqliteSessions(connection)
        self.messages = SqliteMessages(connection)
        self.runs = SqliteRuns(connection)
        self.batches = SqliteBatches(connection)
        self.requests = SqliteRequests(connection)
        self.usage = SqliteUsageSums(connection)
        self.counts = SqliteCounts(connection)
        self.leases = SqliteLeases(connection)
        self.outbox = SqliteOutbox(connection)


class SqliteStorage:
    """Runs work on a SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tables: dict[sqlite3.Connection, SqliteTables] = {}

    async def write(
        self, work: Callable[[Tables], T], announce: Callable[[T], None] | None = None, tell: Callable[[T], Sequence[Hint]] | None = None
    ) -> T:
        """Runs work in the next group commit."""
        return await self._database.write(lambda connection: work(self._of(connection)), announce)

    async def read(self, work: Callable[[Tables], T], tenant: Tenant | None = None) -> T:
        """Runs work on a snapshot."""
        return await self._database.read(lambda connection: work(self._of(connection)))

    def listen(self, hear: Callable[[Heard], None]) -> bool:
        """Nothing is told: a file has no way to."""
        return False

    async def check(self) -> None:
        """Commits nothing, which fails when the file is locked or away."""
        await self._database.write(_nothing)

    def _of(self, connection: sqlite3.Connection) -> SqliteTables:
        tables = self._tables.get(connection)
        if tables is None:
            tables = self._tables[connection] = SqliteTables(connection)
        return tables


def _nothing(_: sqlite3.Connection) -> None:
    """Writes nothing."""


@asynccontextmanager
async def open_sqlite_storage(path: str, durability: Durability = "full") -> AsyncIterator[SqliteStorage]:
    """The backend in a file, created and migrated as needed. Raises StorageUnavailable, SchemaTooNew."""
    async with open_sqlite(path, MIGRATIONS, durability, owner="session_store") as database:
        yield SqliteStorage(database)
