"""Rows of request ids, usage and leases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chassis.postgres import Statements
from session_store.adapters.postgres.counts import SUMS_OF_USAGE, PostgresCounts, merge_usage
from session_store.adapters.usage_rows import usage, usage_values
from session_store.domain.session import DriverId, Tenant
from session_store.domain.statistics import Selection, statistics_of
from session_store.domain.usage import ModelUsage
from session_store.operations.ports import Lease, Request

_FIND_REQUEST = "SELECT digest, outcome FROM requests WHERE tenant = $1 AND method = $2 AND request_id = $3"
_ADD_REQUEST = """INSERT INTO requests (tenant, method, request_id, digest, outcome, session, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)"""
_PURGE = """WITH purged AS (DELETE FROM requests WHERE (tenant, method, request_id) IN
        (SELECT tenant, method, request_id FROM requests WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) RETURNING 1)
    SELECT count(*) FROM purged"""

USAGE_COLUMNS = (
    "tenant, session, run, provider, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,"
    " cost_nano_usd, cost_known, calls"
)
MERGE_USAGE = merge_usage("usage", "tenant, session, run, provider, model")
_ADD_USAGE = f"""INSERT INTO usage ({USAGE_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    {MERGE_USAGE}"""  # noqa: S608 — constants only

_FIND_LEASE = "SELECT driver, stream, expires_at FROM leases WHERE driver = $1"
_PUT_LEASE = """INSERT INTO leases (driver, stream, expires_at) VALUES ($1, $2, $3)
    ON CONFLICT (driver) DO UPDATE SET stream = excluded.stream, expires_at = excluded.expires_at"""
_REMOVE_LEASE = "DELETE FROM leases WHERE driver = $1"
_LEASES = "SELECT driver, stream, expires_at FROM leases"
_MISSING = """SELECT DISTINCT driver FROM runs
    WHERE driver > '' AND state < 3 AND NOT EXISTS (SELECT FROM leases WHERE leases.driver = runs.driver)"""


class PostgresRequests:
    """Request ids."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def find(self, tenant: Tenant, method: str, request_id: str) -> Request | None:
        """What a request came to."""
        row = self._statements.fetchrow(_FIND_REQUEST, tenant, method, request_id)
        return Request(*row) if row else None

    def add(self, tenant: Tenant, method: str, request_id: str, request: Request, session_key: int, expires_at: float) -> None:
        """Remembers a request."""
        self._statements.execute(_ADD_REQUEST, tenant, method, request_id, request.digest, request.outcome, session_key, expires_at)

    def purge(self, now: float, limit: int) -> int:
        """Forgets expired requests."""
        return int(self._statements.fetch(_PURGE, now, limit)[0][0])


class PostgresUsageSums:
    """Usage."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._counts = PostgresCounts(statements)

    def add(self, tenant: Tenant, session_key: int, run_key: int, rows: Sequence[ModelUsage]) -> None:
        """Adds to a run's sums."""
        self._statements.executemany(
            _ADD_USAGE, [(tenant, session_key, run_key, row.provider, row.model, *usage_values(row.usage)) for row in rows]
        )

    def sums(self, tenant: Tenant, session_key: int | None, run_key: int | None) -> list[ModelUsage]:
        """Sums by model."""
        if session_key is None and run_key is None:
            return list(statistics_of((), self._counts.of_usage(Selection(tenant))).usage)
        conditions: list[str] = ["tenant = $1"]
        values: list[Any] = [tenant]
        for column, key in (("session", session_key), ("run", run_key)):
            if key is not None:
                values.append(key)
                conditions.append(f"{column} = ${len(values)}")
        select = f"SELECT provider, model, {SUMS_OF_USAGE} FROM usage WHERE {' AND '.join(conditions)}"  # noqa: S608 — constants only
        rows = self._statements.fetch(f"{select} GROUP BY provider, model ORDER BY provider, model", *values)
        return [ModelUsage(provider, model, usage(*sums)) for provider, model, *sums in rows]


class PostgresLeases:
    """Drivers."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def find(self, driver_id: DriverId) -> Lease | None:
        """A driver's lease."""
        row = self._statements.fetchrow(_FIND_LEASE, driver_id)
        return Lease(*row) if row else None

    def put(self, lease: Lease) -> None:
        """Stores a lease."""
        self._statements.execute(_PUT_LEASE, lease.driver_id, lease.stream_id, lease.expires_at)

    def remove(self, driver_id: DriverId) -> None:
        """Forgets a driver."""
        self._statements.execute(_REMOVE_LEASE, driver_id)

    def all(self) -> list[Lease]:
        """Every lease."""
        return [Lease(*row) for row in self._statements.fetch(_LEASES)]

    def missing(self) -> list[DriverId]:
        """Drivers of runs without a lease."""
        return [driver for (driver,) in self._statements.fetch(_MISSING)]
