"""Rows of request ids, usage and leases."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from session_store.adapters.sqlite.counts import MERGE_USAGE, SUMS_OF_USAGE, SqliteCounts
from session_store.adapters.usage_rows import usage, usage_values
from session_store.domain.session import DriverId, Tenant
from session_store.domain.statistics import Selection, statistics_of
from session_store.domain.usage import ModelUsage
from session_store.operations.ports import Lease, Request

_PURGE = """DELETE FROM requests WHERE (tenant, method, request_id) IN
    (SELECT tenant, method, request_id FROM requests WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"""

_ADD_USAGE = f"INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {MERGE_USAGE}"  # noqa: S608 — constants only

_MISSING = "SELECT DISTINCT driver FROM runs WHERE driver > '' AND state < 3 AND driver NOT IN (SELECT driver FROM leases)"


class SqliteRequests:
    """Request ids."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def find(self, tenant: Tenant, method: str, request_id: str) -> Request | None:
        """What a request came to."""
        select = "SELECT digest, outcome FROM requests WHERE tenant = ? AND method = ? AND request_id = ?"
        row = self._execute(select, (tenant, method, request_id)).fetchone()
        return Request(*row) if row else None

    def add(self, tenant: Tenant, method: str, request_id: str, request: Request, session_key: int, expires_at: float) -> None:
        """Remembers a request."""
        row = (tenant, method, request_id, request.digest, request.outcome, session_key, expires_at)
        self._execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def purge(self, now: float, limit: int) -> int:
        """Forgets expired requests."""
        return self._execute(_PURGE, (now, limit)).rowcount


class SqliteUsageSums:
    """Usage."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._counts = SqliteCounts(connection)

    def add(self, tenant: Tenant, session_key: int, run_key: int, rows: Sequence[ModelUsage]) -> None:
        """Adds to a run's sums."""
        self._executemany(_ADD_USAGE, [(tenant, session_key, run_key, row.provider, row.model, *usage_values(row.usage)) for row in rows])

    def sums(self, tenant: Tenant, session_key: int | None, run_key: int | None) -> list[ModelUsage]:
        """Sums by model."""
        if session_key is None and run_key is None:
            return list(statistics_of((), self._counts.of_usage(Selection(tenant))).usage)
        conditions: list[str] = ["tenant = ?"]
        values: list[Any] = [tenant]
        for column, key in (("session", session_key), ("run", run_key)):
            if key is not None:
                conditions.append(f"{column} = ?")
                values.append(key)
        select = f"SELECT provider, model, {SUMS_OF_USAGE} FROM usage WHERE {' AND '.join(conditions)}"  # noqa: S608 — constants only
        rows = self._execute(f"{select} GROUP BY provider, model ORDER BY provider, model", values)
        return [ModelUsage(provider, model, usage(*sums)) for provider, model, *sums in rows]


class SqliteLeases:
    """Drivers."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def find(self, driver_id: DriverId) -> Lease | None:
        """A driver's lease."""
        row = self._execute("SELECT driver, stream, expires_at FROM leases WHERE driver = ?", (driver_id,)).fetchone()
        return Lease(*row) if row else None

    def put(self, lease: Lease) -> None:
        """Stores a lease."""
        self._execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (lease.driver_id, lease.stream_id, lease.expires_at))

    def remove(self, driver_id: DriverId) -> None:
        """Forgets a driver."""
        self._execute("DELETE FROM leases WHERE driver = ?", (driver_id,))

    def all(self) -> list[Lease]:
        """Every lease."""
        return [Lease(*row) for row in self._execute("SELECT driver, stream, expires_at FROM leases")]

    def missing(self) -> list[DriverId]:
        """Drivers of runs without a lease."""
        return [driver for (driver,) in self._execute(_MISSING)]
