"""The effect ledger in memory: for tests and for trying things out. It forgets everything with its process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from tool_executor.domain.execution import Execution
from tool_executor.domain.ledger import LEASE_SECONDS, PUBLISH_SECONDS, Standing, Verdict, judge
from tool_executor.domain.sightings import Sightings
from tool_executor.operations.ports import Deleted

MAX_KEPT = 100_000


class MemoryExecutions:
    """See the ports Executions and Unpublished. Beyond so many records the oldest are forgotten, published or not."""

    def __init__(self, limit: int = MAX_KEPT, publishes: bool = False) -> None:
        self._limit = limit
        self._publishes = publishes
        self._unpublished: dict[tuple[str, str], float] = {}
        self._held: OrderedDict[tuple[str, str], Execution] = OrderedDict()
        self._leases: dict[str, float] = {}
        self._sightings = Sightings()

    async def begin(self, asked: Execution, claim: bool) -> Standing:
        """What the call may do."""
        held = self._held.get((asked.tenant, asked.key))
        standing = judge(asked, held, held is not None and self._lives(held.instance, asked.started_at))
        if claim or standing.verdict is not Verdict.BEGIN:
            self._apply(standing)
        return standing

    async def finish(self, ended: Execution) -> Execution:
        """Keeps the receipt unless there is one, or somebody took the claim over."""
        held = self._held.get((ended.tenant, ended.key))
        if held is not None and (held.result is not None or (held.instance, held.attempt) != (ended.instance, ended.attempt)):
            return held if held.result is not None else ended
        self._keep(ended)
        return ended

    async def remember(self, ended: Execution) -> None:
        """Keeps the receipt unless there is a record."""
        if (ended.tenant, ended.key) not in self._held:
            self._keep(ended)

    async def find(self, tenant: str, key: str) -> Execution | None:
        """The record."""
        return self._held.get((tenant, key))

    async def renew(self, instance: str, until: float) -> None:
        """The claimant lives until then."""
        self._leases[instance] = until

    async def resign(self, instance: str) -> None:
        """The claimant is gone."""
        self._leases.pop(instance, None)

    async def purge(self, before: float) -> int:
        """Forgets old records, and leases that ended by then."""
        old = [where for where, held in self._held.items() if held.started_at < before and where not in self._unpublished]
        for where in old:
            del self._held[where]
        self._leases = {instance: until for instance, until in self._leases.items() if until >= before}
        return len(old)

    async def delete(self, tenant: str, run_id: str) -> Deleted:
        """Forgets a run's ended executions."""
        of_run = [where for where, held in self._held.items() if where[0] == tenant and held.run_id == run_id]
        gone = [where for where in of_run if self._held[where].result is not None and where not in self._unpublished]
        for where in gone:
            del self._held[where]
        return Deleted(len(gone), len(of_run) - len(gone))

    async def due(self, now: float, limit: int) -> list[Execution]:
        """Takes ended executions to publish."""
        due = [where for where, until in self._unpublished.items() if not now <= until <= now + 2 * PUBLISH_SECONDS][:limit]
        self._unpublished.update(dict.fromkeys(due, now + PUBLISH_SECONDS))
        return [self._held[where] for where in due]

    async def published(self, executions: Sequence[Execution]) -> None:
        """Has them never come again."""
        for execution in executions:
            self._unpublished.pop((execution.tenant, execution.key), None)

    def _apply(self, standing: Standing) -> None:
        if standing.verdict in (Verdict.BEGIN, Verdict.TAKE_OVER, Verdict.UNKNOWN):
            self._keep(standing.execution)
        if standing.verdict in (Verdict.BEGIN, Verdict.TAKE_OVER):
            self._leases[standing.execution.instance] = standing.execution.started_at + LEASE_SECONDS

    def _lives(self, instance: str, now: float) -> bool:
        return self._sightings.lives(instance, self._leases.get(instance), now)

    def _keep(self, execution: Execution) -> None:
        self._held[execution.tenant, execution.key] = execution
        if self._publishes and execution.result is not None:
            self._unpublished.setdefault((execution.tenant, execution.key), 0.0)
        while len(self._held) > self._limit:
            where, _ = self._held.popitem(last=False)
            self._unpublished.pop(where, None)
