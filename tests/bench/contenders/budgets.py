"""One replica of a gateway that holds calls to one cap in PostgreSQL: ours, ours without allowances in advance, and a naive row update."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
from tests.bench.meters import Meter
from tests.bench.worker import Sample

from chassis.world import World
from kit.budgets import cap, expense
from provider_gateway.adapters.postgres import open_postgres_storage
from provider_gateway.domain import allowance
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.budgets import Unit
from provider_gateway.operations.budgets import Budgets, keeping

LIMIT = 10**15
WORST, REAL = 100, Usage(input_tokens=10, output_tokens=40)
CONNECTIONS = 16
CAP = cap(LIMIT, Unit.TOKENS)

_RESERVE = "UPDATE naive SET reserved = reserved + $1 WHERE id = 1 AND spent + reserved + $1 <= cap RETURNING id"
_SETTLE = "UPDATE naive SET reserved = reserved - $1, spent = spent + $2 WHERE id = 1"


class Naive:
    """Two updates of the budget's row for each call, on a pool of connections."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @asynccontextmanager
    async def reserved(self) -> AsyncIterator[None]:
        """A call within the cap."""
        assert await self._pool.fetchval(_RESERVE, WORST)
        try:
            yield
        finally:
            await self._pool.execute(_SETTLE, WORST, REAL.input_tokens + REAL.output_tokens)


class Ours:
    """Budgets as the gateway has them."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    @asynccontextmanager
    async def reserved(self) -> AsyncIterator[None]:
        """A call within the cap."""
        async with self._budgets.reserve(expense()) as reservation:
            yield
            reservation.used(REAL)


class Calls:
    """Calls whose upstream answers at once: what remains is the cost of the cap."""

    def __init__(self, capped: Naive | Ours) -> None:
        self._capped = capped

    async def measure(self, callers: int, calls: int) -> Sample:
        """Calls a second, the median wait until a call may begin, and CPU for each."""
        meter, waits, left = Meter((os.getpid(),)), list[float](), iter(range(calls))
        await asyncio.gather(*(self._call(left, waits) for _ in range(callers)))
        spent = meter.spent()
        return {"rate": calls / spent.wall, "p50": statistics.median(waits), "cpu": spent.cpu / calls}

    async def _call(self, left: Iterator[int], waits: list[float]) -> None:
        for _ in left:
            began = time.perf_counter()
            async with self._capped.reserved():
                waits.append(time.perf_counter() - began)


@contextlib.asynccontextmanager
async def open_naive(url: str) -> AsyncIterator[Calls]:
    """The naive one; its table is made by whoever comes first."""
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        with contextlib.suppress(asyncpg.DuplicateTableError, asyncpg.UniqueViolationError):
            await pool.execute("CREATE TABLE naive (id int PRIMARY KEY, cap bigint, spent bigint, reserved bigint) WITH (fillfactor = 50)")
            await pool.execute(f"INSERT INTO naive VALUES (1, {LIMIT}, 0, 0)")
        yield Calls(Naive(pool))


@contextlib.asynccontextmanager
async def open_budgets(url: str, advance: bool = True) -> AsyncIterator[Calls]:
    """Ours. Without allowances in advance every call asks, in one question with all that wait, as near a cap."""
    if not advance:
        allowance.FAR = LIMIT

    async with open_postgres_storage(lambda: url, World()) as opened, keeping(Budgets([CAP], opened.bank, World())) as budgets:
        yield Calls(Ours(budgets))
