"""How long an append waits, beside a bare commit of the same database, and what group commit makes of many writers."""

from __future__ import annotations

import contextlib

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench, compare
from tests.bench.servers import open_postgres
from tests.bench.worker import Worker, open_worker

CASE = "append, acknowledged when it is on the disk"
STORE = "tests.bench.contenders.store"


async def run(bench: Bench) -> list[Figure]:
    """One writer, and sixty-four, on SQLite and on PostgreSQL."""
    return [*await _on_sqlite(bench), *await _on_postgres(bench)]


async def _on_sqlite(bench: Bench) -> list[Figure]:
    async with contextlib.AsyncExitStack() as stack:
        workers = {
            "bare": await stack.enter_async_context(open_worker(f"{STORE}:open_bare", folder=str(bench.folder))),
            "ours": await stack.enter_async_context(open_worker(f"{STORE}:open_store", folder=str(bench.folder))),
        }
        return await _figures(bench, workers, CASE)


async def _on_postgres(bench: Bench) -> list[Figure]:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_postgres())
        bare, ours = await server.database(name="bare"), await server.database("session_store", name="ours")
        workers = {
            "bare": await stack.enter_async_context(open_worker(f"{STORE}:open_bare_postgres", url=bare)),
            "ours": await stack.enter_async_context(open_worker(f"{STORE}:open_store", url=ours)),
        }
        return await _figures(bench, workers, f"{CASE}: PostgreSQL")


async def _figures(bench: Bench, workers: dict[str, Worker], case: str) -> list[Figure]:
    await compare(workers, 1, writers=1, appends=50)
    one = await compare(workers, bench.rounds(6), writers=1, appends=bench.size(300, 150))
    many = await compare({"ours": workers["ours"]}, bench.rounds(6), writers=64, appends=bench.size(3000, 1500))
    ours, bare, crowd = one["ours"], one["bare"], many["ours"]
    return [
        Figure(case, "one writer, wait p50", ours["p50"], bare["p50"], "bare commit", "µs", Budget(floor=2.0)),
        Figure(case, "64 writers, appends a second", crowd["rate"], ours["rate"], "one writer", "/s", Budget(aim=20.0, better="higher")),
        Figure(case, "64 writers, appends a second, beside commits", crowd["rate"], bare["rate"], "bare commit", "/s"),
        Figure(case, "64 writers, CPU", crowd["cpu"], bare["cpu"], "bare commit", "µs"),
    ]
