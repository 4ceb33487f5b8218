"""Caps kept in this process's memory: exact for it, and forgotten when it ends."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.faults import StorageUnavailable
from chassis.world import Clock
from provider_gateway.domain.allowance import Claim, Grant, Row, grant
from provider_gateway.domain.budgets import Bucket, Totals
from provider_gateway.operations.bank import Standing

MOST = 100_000  # buckets, some tens of megabytes


class MemoryBank:
    """See the port. Several replicas of a test may share one."""

    def __init__(self, clock: Clock, *, shared: bool = False) -> None:
        self._clock = clock
        self.shared = shared
        self._totals: dict[Bucket, Totals] = {}
        self._rows: dict[str, Row] = {}

    async def settle(self, claims: Sequence[Claim]) -> Sequence[Grant]:
        """Grants what there is."""
        return [self._settle(claim) for claim in claims]

    async def tend(self) -> None:
        """Forgets windows that are over: whoever still holds something of one does not need it kept."""
        now = self._clock.now()
        for bucket in [bucket for bucket in self._totals if bucket.is_over(now)]:
            del self._totals[bucket]

    async def standings(self, tenant: str) -> Sequence[Standing]:
        """The tenant's buckets."""
        return [Standing(bucket, totals) for bucket, totals in self._totals.items() if bucket.tenant in (tenant, "")]

    def now(self) -> float:
        """The machine's time."""
        return self._clock.now()

    def _settle(self, claim: Claim) -> Grant:
        self._make_room(claim)
        row, totals = grant(claim, self._rows.get(claim.id), self._totals.get(claim.bucket, Totals()))
        self._totals[claim.bucket] = totals
        if row is None:
            self._rows.pop(claim.id, None)
            return Grant(None, totals)
        self._rows[claim.id] = row
        return Grant(row.granted, totals)

    def _make_room(self, claim: Claim) -> None:
        if claim.bucket in self._totals or len(self._totals) < MOST:
            return
        raise StorageUnavailable(
            f"{MOST} shares of budgets are in use, as many as one process keeps; name a PostgreSQL in provider_gateway.database, "
            "or cut the budgets by less than key and model"
        )
