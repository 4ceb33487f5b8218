"""A call that does nothing, by each carrier."""

from __future__ import annotations

import contextlib

from tests.bench.figures import NO_BUDGET, Budget, Figure
from tests.bench.rounds import Bench, compare
from tests.bench.worker import open_worker

CASE = "carriers: one unary call, both sides"
CALLS = {"local": 20_000, "mux": 1_500, "grpc": 500}
# What a prototype without deadlines, tenants and faults reached; nothing is promised of a call alone.
MUX_OF_GRPC = {1: NO_BUDGET, 16: NO_BUDGET, 64: Budget(aim=1 / 37)}


async def run(bench: Bench) -> list[Figure]:
    """CPU and waits at 1, 16 and 64 callers."""
    figures = []
    async with contextlib.AsyncExitStack() as stack:
        workers = {
            carrier: await stack.enter_async_context(open_worker("tests.bench.contenders.carriers:open_caller", carrier=carrier))
            for carrier in CALLS
        }
        for callers in (1, 16, 64):
            calls = bench.size(3000, 1000) if callers > 1 else bench.size(1000, 300)
            for worker in workers.values():
                await worker.measure(callers=callers, calls=100)
            found = await compare(workers, bench.rounds(4), callers=callers, calls=calls)
            local, mux, grpc = found["local"], found["mux"], found["grpc"]
            figures += [
                Figure(CASE, f"mux, CPU, {callers} callers", mux["cpu"], grpc["cpu"], "grpc", "µs", MUX_OF_GRPC[callers]),
                Figure(CASE, f"mux, wait p50, {callers} callers", mux["p50"], grpc["p50"], "grpc", "µs"),
                Figure(CASE, f"local, CPU, {callers} callers", local["cpu"], grpc["cpu"], "grpc", "µs"),
            ]
    return figures
