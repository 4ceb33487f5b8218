"""Which waiting run gets a driver next, and how many may run and wait. Pure.

Among runs that wait for a driver, the tenant with the fewest running runs goes first; among the runs of one tenant, and between tenants
that run equally many, the one with the lowest rank does. A rank is the moment of acceptance, moved by the run's priority: waiting makes
up for priority, so nothing waits for ever. A tenant at its limit is passed over until one of its runs has ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from session_store.domain.run import Assignment
from session_store.domain.session import Tenant


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """How many runs of one tenant may run, and how many may wait for their session or for a driver."""

    running: int = 1000
    waiting: int = 10_000


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How many runs may run in all, and of each tenant; `tenants` have their own limits."""

    running: int = 10_000
    each: TenantLimits = TenantLimits()
    tenants: Mapping[Tenant, TenantLimits] = field(default_factory=dict)

    def of(self, tenant: Tenant) -> TenantLimits:
        """The limits of a tenant."""
        return self.tenants.get(tenant, self.each)


@dataclass(frozen=True, slots=True)
class Load:
    """How many runs of a tenant run and wait, how many run in all, and whether any run of anybody waits for a driver's room."""

    running: int
    waiting: int
    running_of_all: int
    due: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that waits for a driver."""

    key: int
    rank: float
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Queue:
    """A tenant's runs that wait for a driver, lowest rank first, and how many of its runs run."""

    tenant: Tenant
    running: int
    candidates: tuple[Candidate, ...]


def choose(queues: Iterable[Queue], limits: RunLimits, places: int) -> Iterator[Candidate]:
    """The runs that get the places, in order."""
    tenants = list(queues)
    heads = [head for place, queue in enumerate(tenants) for head in _head(queue, place, queue.running, 0, limits)]
    heapq.heapify(heads)
    for _ in range(places):
        if not heads:
            return
        running, _, _, place, index = heapq.heappop(heads)
        yield tenants[place].candidates[index]
        for head in _head(tenants[place], place, running + 1, index + 1, limits):
            heapq.heappush(heads, head)


def _head(queue: Queue, place: int, running: int, index: int, limits: RunLimits) -> list[tuple[int, float, int, int, int]]:
    """The next run of the queue at a place, unless there is none or the tenant is at its limit."""
    if index >= len(queue.candidates) or running >= limits.of(queue.tenant).running:
        return []
    candidate = queue.candidates[index]
    return [(running, candidate.rank, candidate.key, place, index)]
