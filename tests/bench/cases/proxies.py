"""The gateway beside those that a team would otherwise take, all in one run behind one upstream: LiteLLM, Portkey, Envoy, a bare proxy.

Ours is asked by gRPC, the others by HTTP. Latency is counted from what the same HTTP client waits for at the upstream itself.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping

from tests.bench.figures import NO_BUDGET, Budget, Figure
from tests.bench.peers.proxies import PROXIES, PeerMissing
from tests.bench.rounds import Bench, compare
from tests.bench.serving import open_server_process
from tests.bench.worker import Sample, Worker, open_worker

OURS, UPSTREAM = "ours", "upstream"
CHUNK = "gateway beside proxies: CPU for each streamed chunk"
FIRST = "gateway beside proxies: wait for the first chunk, p50"
ADDED = "gateway beside proxies: latency added to a unary call"
RATE = "gateway beside proxies: unary calls for each second of CPU"
MEMORY = "gateway beside proxies: resident memory after the load"

Samples = Mapping[str, Sample]
Budgets = Mapping[str, Budget]

CHUNK_BUDGETS = {"LiteLLM": Budget(1 / 25, 1 / 100), "Portkey": Budget(1 / 2, 1 / 4), "Envoy": Budget(aim=5)}
ADDED_BUDGETS = {"LiteLLM": Budget(1 / 10, 1 / 30), "Portkey": Budget(1 / 2), "Envoy": Budget(aim=3)}
RATE_BUDGETS = {"LiteLLM": Budget(10, 40, "higher"), "Portkey": Budget(2, 5, "higher")}


async def run(bench: Bench) -> list[Figure]:
    """Streams and unary calls, one and many at once."""
    async with contextlib.AsyncExitStack() as stack:
        workers = await _open(bench, stack)
        for worker in workers.values():
            await worker.measure(streams=2, chunks=20, gap=0)
            await worker.measure(clients=2, calls=20)
        figures = list[Figure]()
        gateways = {name: worker for name, worker in workers.items() if name != UPSTREAM}
        for streams, chunks, gap, name in _streams(bench):
            found = await compare(gateways, bench.rounds(3), streams=streams, chunks=chunks, gap=gap)
            figures += _beside(CHUNK, name, found, "cpu", "µs", CHUNK_BUDGETS if streams == 50 else {})
            figures += [] if gap else _beside(FIRST, name, found, "first", "ms", {})
        for clients, calls, name in ((1, bench.size(300, 100), "one client"), (32, bench.size(20, 10), "32 clients")):
            found = await compare(workers, bench.rounds(3), clients=clients, calls=calls)
            bare = found.pop(UPSTREAM)
            for part in ("p50", "p99"):
                added = {peer: {part: max(1e-6, sample[part] - bare[part])} for peer, sample in found.items()}
                figures += _beside(ADDED, f"{part}, {name}", added, part, "ms", ADDED_BUDGETS if clients == 1 and part == "p50" else {})
            figures += _beside(RATE, name, found, "rate", "/s", RATE_BUDGETS if clients == 32 else {})
        figures += _beside(MEMORY, "32 clients", found, "memory", "MB", {})
    return sorted(figures, key=lambda figure: figure.case)


async def _open(bench: Bench, stack: contextlib.AsyncExitStack) -> dict[str, Worker]:
    """Who takes part; a peer that is not there is told of."""
    upstream = await stack.enter_async_context(open_server_process("tests.bench.contenders.sse:serve_upstream"))
    load = "tests.bench.contenders.http_load:open_http_load"
    workers = {
        OURS: await stack.enter_async_context(open_worker("tests.bench.contenders.gateway:open_gateway", upstream=upstream.address)),
        UPSTREAM: await stack.enter_async_context(open_worker(load, url=upstream.address, headers={}, pid=upstream.pid)),
    }
    for name, opening in PROXIES.items():
        try:
            proxy = await stack.enter_async_context(opening(upstream.address, bench.folder))
        except PeerMissing as missing:
            print(f"without {name}: {missing};", end=" ", file=sys.stderr, flush=True)
            continue
        workers[name] = await stack.enter_async_context(open_worker(load, url=proxy.url, headers=dict(proxy.headers), pid=proxy.pid))
    return workers


def _streams(bench: Bench) -> list[tuple[int, int, int, str]]:
    return [
        (1, bench.size(1000, 500), 0, "one stream, at once"),
        (50, bench.size(100, 50), 0, "50 streams, at once"),
        (1, bench.size(100, 50), 20, "one stream, 50 chunks/s"),
        (50, bench.size(50, 25), 20, "50 streams, 50 chunks/s each"),
    ]


def _beside(case: str, name: str, found: Samples, part: str, unit: str, budgets: Budgets) -> list[Figure]:
    ours = found[OURS][part]
    return [
        Figure(case, f"{name}, beside {peer}", ours, sample[part], peer, unit, budgets.get(peer, NO_BUDGET))
        for peer, sample in found.items()
        if peer != OURS
    ]
