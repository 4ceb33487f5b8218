"""What a cap in PostgreSQL costs a call while two replicas share it, beside two updates of the budget's row for each call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench, median
from tests.bench.servers import open_postgres
from tests.bench.worker import Sample, Worker, open_worker

CASE = "budget of two replicas on PostgreSQL"
CONTENDERS = "tests.bench.contenders.budgets"
REPLICAS = 2
NAIVE = "a row update"
CALLERS = (1, 64)


async def run(bench: Bench) -> list[Figure]:
    """Far from the cap, near it, and naively; one caller at each replica, and sixty-four."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_postgres())
        urls = {
            "far": await server.database("provider_gateway", name="far"),
            "near": await server.database("provider_gateway", name="near"),
            "naive": await server.database(name="naive"),
        }
        opened = {
            "far": [open_worker(f"{CONTENDERS}:open_budgets", url=urls["far"]) for _ in range(REPLICAS)],
            "near": [open_worker(f"{CONTENDERS}:open_budgets", url=urls["near"], advance=False) for _ in range(REPLICAS)],
            "naive": [open_worker(f"{CONTENDERS}:open_naive", url=urls["naive"]) for _ in range(REPLICAS)],
        }
        replicas = {name: [await stack.enter_async_context(worker) for worker in workers] for name, workers in opened.items()}
        await _together(replicas, callers=8, calls=200)
        found = {}
        for callers in CALLERS:
            calls = bench.size(4000, 1500) if callers > 1 else bench.size(800, 300)
            rounds = [await _together(replicas, callers, calls) for _ in range(bench.rounds(6))]
            found[callers] = {name: median([each[name] for each in rounds]) for name in replicas}
    return _figures(found)


async def _together(replicas: Mapping[str, Sequence[Worker]], callers: int, calls: int) -> dict[str, Sample]:
    """Each contender in turn, its replicas at once: their calls added up, their waits and CPU averaged."""
    found = {}
    for name, workers in replicas.items():
        samples = await asyncio.gather(*(worker.measure(callers=callers, calls=calls) for worker in workers))
        mean = {key: sum(sample[key] for sample in samples) / len(samples) for key in ("p50", "cpu")}
        found[name] = {"rate": sum(sample["rate"] for sample in samples), **mean}
    return found


def _figures(found: Mapping[int, Mapping[str, Sample]]) -> list[Figure]:
    figures = []
    for callers, samples in found.items():
        who = "one caller each" if callers == 1 else f"{callers} callers each"
        naive = samples["naive"]
        for name, told in (("far", "far from the cap"), ("near", "near the cap")):
            ours = samples[name]
            figures += [
                Figure(CASE, f"{told}, {who}: calls a second", ours["rate"], naive["rate"], NAIVE, "/s", Budget(better="higher")),
                Figure(CASE, f"{told}, {who}: wait p50", ours["p50"], naive["p50"], NAIVE, "µs"),
                Figure(CASE, f"{told}, {who}: CPU", ours["cpu"], naive["cpu"], NAIVE, "µs"),
            ]
    return figures
