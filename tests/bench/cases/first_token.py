"""How much later a run's first token comes than that of a bare model call: two durable appends and the way through three services."""

from __future__ import annotations

import contextlib

from tests.bench.figures import Figure
from tests.bench.rounds import Bench, compare
from tests.bench.worker import open_worker

CASE = "from the order to its first token, p50"
SUITE = "tests.bench.contenders.suite"
BARE = "bare gateway call"


async def run(bench: Bench) -> list[Figure]:
    """In one process, and across four by mux."""
    folder = str(bench.folder)
    async with contextlib.AsyncExitStack() as stack:
        workers = {
            "in one process": await stack.enter_async_context(open_worker(f"{SUITE}:open_embedded", folder=folder, name="first")),
            "four processes, mux": await stack.enter_async_context(
                open_worker(f"{SUITE}:open_four", folder=folder, name="first-four", carrier="mux")
            ),
        }
        await compare(workers, 1, first_token=5)
        found = await compare(workers, bench.rounds(4), first_token=bench.size(30, 15))
    return [Figure(CASE, name, sample["run"], sample["call"], BARE, "ms") for name, sample in found.items()]
