"""Rows of the logs."""

from __future__ import annotations

import sqlite3
from itertools import starmap

from session_store.domain.batch import Batch, page_of
from session_store.domain.session import Tenant

_ADD = "INSERT INTO batches VALUES (NULL, ?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT b.number, runs.id, runs.session_id, b.first, b.last, b.data FROM batches AS b CROSS JOIN runs ON runs.key = b.run WHERE"
_OF_RUN = f"{_SELECT} b.run = ? AND b.last > ? ORDER BY b.last LIMIT ?"
_OF_SESSION = f"{_SELECT} b.session = ? AND b.number >= ? ORDER BY b.number LIMIT ?"
_OF_TENANT = f"{_SELECT} b.tenant = ? AND b.number >= ? AND runs.tenant = b.tenant AND runs.place <> 3 ORDER BY b.number LIMIT ?"
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'batches'"


class SqliteBatches:
    """Logs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def add(self, tenant: Tenant, session_key: int, run_key: int, first: int, last: int, data: bytes) -> int:
        """Stores events."""
        number = self._execute(_ADD, (tenant, session_key, run_key, first, last, data)).lastrowid
        assert number is not None
        return number

    def of_run(self, run_key: int, after: int, limit: int, max_bytes: int) -> list[Batch]:
        """A run's batches."""
        return page_of(starmap(Batch, self._execute(_OF_RUN, (run_key, after, limit))), max_bytes)

    def of_session(self, session_key: int, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A session's batches."""
        return page_of(starmap(Batch, self._execute(_OF_SESSION, (session_key, from_number, limit))), max_bytes)

    def of_tenant(self, tenant: Tenant, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A tenant's batches."""
        return page_of(starmap(Batch, self._execute(_OF_TENANT, (tenant, from_number, limit))), max_bytes)

    def last_number(self) -> int:
        """The greatest number ever given."""
        row = self._execute(_LAST).fetchone()
        return int(row[0]) if row else 0
