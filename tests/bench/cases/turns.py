"""What a durable turn costs: a model call and a tool call, all persisted, beside LangGraph with its SQLite checkpointer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench, compare
from tests.bench.worker import Sample, Worker, open_worker

EMBEDDED = "durable turn, one process: CPU"
FOUR = "durable turn, four processes summed: CPU"
BYTES = "bytes of a run of ten turns"
PEER, PEER_DEFAULT = "LangGraph", "LangGraph, async"
SUITE = "tests.bench.contenders.suite"
RUNS = {1: 10, 16: 32, 64: 64}

EMBEDDED_BUDGET = Budget(floor=1 / 5, aim=1 / 15)
MANY_BUDGET, ONE_BUDGET = Budget(floor=1 / 5, aim=1 / 20), Budget(floor=1 / 1.5, aim=1 / 3)
BYTES_BUDGET = Budget(floor=1 / 10, aim=1 / 40)


async def run(bench: Bench) -> list[Figure]:
    """CPU at 1, 16 and 64 runs at once, and bytes."""
    async with contextlib.AsyncExitStack() as stack:
        workers = {name: await stack.enter_async_context(opening) for name, opening in _contenders(bench).items()}
        for worker in workers.values():
            await worker.measure(concurrency=4, runs=4)
        by_load = {
            load: await compare(workers, bench.rounds(4), concurrency=load, runs=bench.size(runs, max(4, runs // 2)))
            for load, runs in RUNS.items()
        }
        sizes = {load: await _sizes(workers, load, bench) for load in (1, 64)}
    return [*_cpu(by_load), *_bytes(sizes)]


def _contenders(bench: Bench) -> dict[str, contextlib.AbstractAsyncContextManager[Worker]]:
    folder, langgraph = str(bench.folder), "tests.bench.peers.langgraph:open_langgraph"
    return {
        PEER: open_worker(langgraph, folder=folder, durability="sync"),
        PEER_DEFAULT: open_worker(langgraph, folder=folder, durability="async"),
        "embedded": open_worker(f"{SUITE}:open_embedded", folder=folder),
        "mux": open_worker(f"{SUITE}:open_four", folder=folder, carrier="mux"),
        "grpc": open_worker(f"{SUITE}:open_four", folder=folder, carrier="grpc"),
    }


async def _sizes(workers: Mapping[str, Worker], load: int, bench: Bench) -> dict[str, Sample]:
    chosen = {name: workers[name] for name in (PEER, "embedded")}
    return await compare(chosen, 1, concurrency=load, runs=bench.size(64, 64) if load > 1 else 8, size=True)


def _cpu(by_load: Mapping[int, Mapping[str, Sample]]) -> list[Figure]:
    figures = []
    for load, found in by_load.items():
        for peer in (PEER, PEER_DEFAULT):
            name = f"{_runs(load)}, beside {peer}"
            budget = EMBEDDED_BUDGET if peer == PEER else Budget()
            figures.append(Figure(EMBEDDED, f"embedded, {name}", found["embedded"]["cpu"], found[peer]["cpu"], peer, "ms", budget))
    for carrier in ("mux", "grpc"):
        for load, found in by_load.items():
            budget = (ONE_BUDGET if load == 1 else MANY_BUDGET) if carrier == "mux" and load != 16 else Budget()
            figures.append(Figure(FOUR, f"{carrier}, {_runs(load)}", found[carrier]["cpu"], found[PEER]["cpu"], PEER, "ms", budget))
    return figures


def _bytes(sizes: Mapping[int, Mapping[str, Sample]]) -> list[Figure]:
    figures = []
    for load, found in sizes.items():
        ours, theirs = found["embedded"], found[PEER]
        figures.append(Figure(BYTES, f"kept in the database, {_runs(load)}", ours["stored"], theirs["stored"], PEER, "kB", BYTES_BUDGET))
        figures.append(Figure(BYTES, f"sent to the disk, {_runs(load)}", ours["disk"], theirs["disk"], PEER, "kB"))
    return figures


def _runs(load: int) -> str:
    return "one run" if load == 1 else f"{load} runs at once"
