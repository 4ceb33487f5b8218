"""Request ids, usage and leases in memory."""

from __future__ import annotations

from collections.abc import Sequence

from session_store.adapters.memory.counts import MemoryCounts
from session_store.adapters.memory.rows import RequestRow, Rows
from session_store.domain.session import DriverId, Tenant
from session_store.domain.statistics import Selection, statistics_of
from session_store.domain.usage import ModelUsage, Usage
from session_store.operations.ports import Lease, Request


class MemoryRequests:
    """Request ids."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, tenant: Tenant, method: str, request_id: str) -> Request | None:
        """What a request came to."""
        row = self._rows.requests.get((tenant, method, request_id))
        return row.request if row else None

    def add(self, tenant: Tenant, method: str, request_id: str, request: Request, session_key: int, expires_at: float) -> None:
        """Remembers a request."""
        self._rows.requests[tenant, method, request_id] = RequestRow(request, session_key, expires_at)

    def purge(self, now: float, limit: int) -> int:
        """Forgets expired requests."""
        expired = [name for name, row in self._rows.requests.items() if row.expires_at <= now][:limit]
        for name in expired:
            del self._rows.requests[name]
        return len(expired)


class MemoryUsageSums:
    """Usage."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add(self, tenant: Tenant, session_key: int, run_key: int, rows: Sequence[ModelUsage]) -> None:
        """Adds to a run's sums."""
        for row in rows:
            name = (tenant, session_key, run_key, row.provider, row.model)
            self._rows.usage[name] = self._rows.usage.get(name, Usage()) + row.usage

    def sums(self, tenant: Tenant, session_key: int | None, run_key: int | None) -> list[ModelUsage]:
        """Sums by model."""
        selection = Selection(tenant, session_key, run_key)
        return list(statistics_of((), MemoryCounts(self._rows).of_usage(selection)).usage)


class MemoryLeases:
    """Drivers."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, driver_id: DriverId) -> Lease | None:
        """A driver's lease."""
        return self._rows.leases.get(driver_id)

    def put(self, lease: Lease) -> None:
        """Stores a lease."""
        self._rows.leases[lease.driver_id] = lease

    def remove(self, driver_id: DriverId) -> None:
        """Forgets a driver."""
        self._rows.leases.pop(driver_id, None)

    def all(self) -> list[Lease]:
        """Every lease."""
        return list(self._rows.leases.values())

    def missing(self) -> list[DriverId]:
        """Drivers of runs without a lease."""
        drivers = {self._rows.runs[key].driver_id for key in self._rows.live}
        return sorted(driver for driver in drivers if driver and driver not in self._rows.leases)
