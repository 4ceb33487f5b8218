"""A crowd that follows one run: its driver should not feel it, and nobody may miss or repeat an event."""

from __future__ import annotations

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench, compare
from tests.bench.worker import open_worker

CASE = "1000 followers on one run"
CROWD = 1000
MEGABYTE = 1e6


async def run(bench: Bench) -> list[Figure]:
    """The driver alone beside the driver with a crowd, at the pace of a streaming model."""
    async with open_worker("tests.bench.contenders.followers:open_followed", folder=str(bench.folder)) as worker:
        appends = bench.size(120, 60)
        await worker.measure(followers=10, appends=5)
        alone = await compare({"ours": worker}, bench.rounds(3), followers=0, appends=appends)
        crowd = await compare({"ours": worker}, bench.rounds(3), followers=CROWD, appends=appends)
    ours, lone = crowd["ours"], alone["ours"]
    return [
        Figure(CASE, "time of the driver's run", ours["wall"], lone["wall"], "no follower", "ms", Budget(aim=1.05)),
        Figure(CASE, "CPU for each delivered event, beside 1 µs", ours["cpu"], 1e-6, "1 µs", "µs"),
        Figure(CASE, "memory that they took, beside 1 MB", ours["memory"], MEGABYTE, "1 MB", "MB"),
    ]
