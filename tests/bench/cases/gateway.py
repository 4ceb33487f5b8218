"""What a streamed chunk costs in the gateway, beside reading the same bytes with httpx and doing nothing with them.

Whole gateways and proxies are its peers in tests/bench/cases/proxies.py.
"""

from __future__ import annotations

import contextlib

from tests.bench.figures import Figure
from tests.bench.rounds import Bench, compare
from tests.bench.serving import open_server_process
from tests.bench.worker import open_worker

CASE = "gateway, by plain gRPC: CPU for each streamed chunk"
WAIT = "gateway, by plain gRPC: wait for the first chunk, p50"
PEER = "bare httpx"


async def run(bench: Bench) -> list[Figure]:
    """One stream and fifty, as fast as they come and paced like a model's."""
    figures = list[Figure]()
    async with contextlib.AsyncExitStack() as stack:
        upstream = (await stack.enter_async_context(open_server_process("tests.bench.contenders.sse:serve_upstream"))).address
        workers = {
            "ours": await stack.enter_async_context(open_worker("tests.bench.contenders.gateway:open_gateway", upstream=upstream)),
            PEER: await stack.enter_async_context(open_worker("tests.bench.peers.httpx_relay:open_relay", upstream=upstream)),
        }
        for worker in workers.values():
            await worker.measure(streams=2, chunks=50, gap=0)
        for streams, chunks, gap, name in _loads(bench):
            found = await compare(workers, bench.rounds(4), streams=streams, chunks=chunks, gap=gap)
            ours, theirs = found["ours"], found[PEER]
            figures.append(Figure(CASE, name, ours["cpu"], theirs["cpu"], PEER, "µs"))
            if not gap:
                figures.append(Figure(WAIT, f"first chunk, {name}", ours["first"], theirs["first"], PEER, "ms"))
    return sorted(figures, key=lambda figure: figure.case)


def _loads(bench: Bench) -> list[tuple[int, int, int, str]]:
    paced = bench.size(100, 50)
    return [
        (1, bench.size(2000, 1000), 0, "one stream, at once"),
        (50, bench.size(200, 100), 0, "50 streams, at once"),
        (1, paced, 10, "one stream, 100 chunks/s each"),
        (50, paced, 20, "50 streams, 50 chunks/s each"),
    ]
