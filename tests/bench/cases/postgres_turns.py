"""What a durable turn costs on PostgreSQL, beside LangGraph with its PostgreSQL checkpointer on the same server."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench, compare
from tests.bench.servers import open_postgres
from tests.bench.worker import Sample, open_worker

EMBEDDED = "durable turn on PostgreSQL, one process: CPU"
FOUR = "durable turn on PostgreSQL, four processes summed: CPU"
PEER, PEER_DEFAULT = "LangGraph", "LangGraph, async"
SUITE, LANGGRAPH = "tests.bench.contenders.suite", "tests.bench.peers.langgraph:open_langgraph_postgres"
RUNS = {1: 10, 16: 32, 64: 64}

EMBEDDED_BUDGET = Budget(floor=1 / 5, aim=1 / 15)
MANY_BUDGET, ONE_BUDGET = Budget(floor=1 / 5, aim=1 / 20), Budget(floor=1 / 1.5, aim=1 / 3)


async def run(bench: Bench) -> list[Figure]:
    """CPU of the clients of the database, its own not counted, at 1, 16 and 64 runs at once."""
    async with contextlib.AsyncExitStack() as stack:
        server, folder = await stack.enter_async_context(open_postgres()), str(bench.folder)
        ours = [await server.database("session_store", "tool_executor", name=name) for name in ("embedded", "four")]
        theirs = [await server.database(name=name) for name in ("peer", "peer_async")]
        opened = {
            PEER: open_worker(LANGGRAPH, url=theirs[0], durability="sync"),
            PEER_DEFAULT: open_worker(LANGGRAPH, url=theirs[1], durability="async"),
            "embedded": open_worker(f"{SUITE}:open_embedded", folder=folder, name="postgres", database=ours[0]),
            "mux": open_worker(f"{SUITE}:open_four", folder=folder, name="four-postgres", carrier="mux", database=ours[1]),
        }
        workers = {name: await stack.enter_async_context(opening) for name, opening in opened.items()}
        for worker in workers.values():
            await worker.measure(concurrency=4, runs=4)
        by_load = {
            load: await compare(workers, bench.rounds(4), concurrency=load, runs=bench.size(runs, max(4, runs // 2)))
            for load, runs in RUNS.items()
        }
    return _figures(by_load)


def _figures(by_load: Mapping[int, Mapping[str, Sample]]) -> list[Figure]:
    figures = []
    for load, found in by_load.items():
        for peer in (PEER, PEER_DEFAULT):
            budget = EMBEDDED_BUDGET if peer == PEER else Budget()
            name = f"embedded, {_runs(load)}, beside {peer}"
            figures.append(Figure(EMBEDDED, name, found["embedded"]["cpu"], found[peer]["cpu"], peer, "ms", budget))
    for load, found in by_load.items():
        budget = ONE_BUDGET if load == 1 else MANY_BUDGET if load == 64 else Budget()
        figures.append(Figure(FOUR, f"mux, {_runs(load)}", found["mux"]["cpu"], found[PEER]["cpu"], PEER, "ms", budget))
    return figures


def _runs(load: int) -> str:
    return "one run" if load == 1 else f"{load} runs at once"
