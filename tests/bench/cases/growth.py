"""Whether a turn costs the same late in a session as early, on both databases: cost must not grow with what was said before."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
from tests.bench.figures import Budget, Figure
from tests.bench.loop import TURNS
from tests.bench.rounds import Bench, median
from tests.bench.servers import open_postgres
from tests.bench.worker import Sample, Worker, open_worker

from kit.postgres import SUPERUSER, PostgresServer

CASE = "one session: a turn late beside a turn early"
BUDGET = Budget(floor=1.2, aim=1.02)
LANES = 8  # sessions side by side, since one run alone is too short to measure
FULL_AFTER = 3  # runs: the default history of 50 messages is full after 25 turns
SUITE = "tests.bench.contenders.suite:open_embedded"


@dataclass(frozen=True, slots=True)
class Lane:
    """A suite on one database, and the bytes of log that its database has written so far; None for what its files hold."""

    worker: Worker
    written: Callable[[], Awaitable[float]] | None = None

    async def measure(self, session: str) -> Sample:
        """What runs in sessions of that name cost; `stored` are the bytes kept in files, or written to the database's log."""
        load: dict[str, Any] = {"concurrency": LANES, "runs": LANES, "session": session}
        if self.written is None:
            return await self.worker.measure(size=True, **load)
        before = await self.written()
        sample = await self.worker.measure(**load)
        return {**sample, "stored": (await self.written() - before) / LANES}


async def run(bench: Bench) -> list[Figure]:
    """Runs of ten turns in sessions that are old, that have a full history, and that are new; measured by turns."""
    folder, figures = str(bench.folder), list[Figure]()
    async with open_worker(SUITE, folder=folder, name="growth") as worker:
        figures += await _measured(bench, Lane(worker), "SQLite", "bytes kept")
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_postgres())
        database = await server.database("session_store", "tool_executor", name="growth")
        worker = await stack.enter_async_context(open_worker(SUITE, folder=folder, name="growth-postgres", database=database))
        written = await stack.enter_async_context(_log_of(server))
        figures += await _measured(bench, Lane(worker, written), "PostgreSQL", "bytes of log")
    return figures


@contextlib.asynccontextmanager
async def _log_of(server: PostgresServer) -> Any:
    connection = await asyncpg.connect(server.url(user=SUPERUSER))

    async def written() -> float:
        return float(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    try:
        yield written
    finally:
        await connection.close()


async def _measured(bench: Bench, lane: Lane, database: str, what: str) -> list[Figure]:
    age = bench.size(97, 37)
    for _ in range(age):
        await lane.measure("old")
    rounds = [await _round(lane, number) for number in range(bench.rounds(6))]
    found = {name: median([each[name] for each in rounds]) for name in rounds[0]}
    last = f"turn {(age + FULL_AFTER) * TURNS}"
    return [figure for since in ("turn 10", "a full history") for figure in _figures(found, f"{database}, {last}", since, what)]


async def _round(lane: Lane, number: int) -> Mapping[str, Sample]:
    """One measurement of each kind; the new sessions are then filled up to be those with a full history."""
    new, old = f"new-{number}", await lane.measure("old")
    early = await lane.measure(new)
    for _ in range(FULL_AFTER - 1):
        await lane.measure(new)
    return {"late": old, "turn 10": early, "a full history": await lane.measure(new)}


def _figures(found: Mapping[str, Sample], last: str, since: str, what: str) -> list[Figure]:
    late, early = found["late"], found[since]
    return [
        Figure(CASE, f"CPU, {last} beside {since}", late["cpu"], early["cpu"], since, "ms", BUDGET),
        Figure(CASE, f"{what}, {last} beside {since}", late["stored"], early["stored"], since, "kB", BUDGET),
    ]
