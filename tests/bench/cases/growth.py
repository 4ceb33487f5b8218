"""Whether a turn costs the same late in a session as early: cost must not grow with what was said before."""

from __future__ import annotations

from tests.bench.figures import Budget, Figure
from tests.bench.loop import TURNS
from tests.bench.rounds import Bench, median
from tests.bench.worker import Sample, Worker, open_worker

CASE = "one session: a turn late beside a turn early"
BUDGET = Budget(floor=1.2, aim=1.02)
LANES = 8  # sessions side by side, since one run alone is too short to measure
EARLY, FULL = slice(0, 3), slice(5, 8)  # the default history of 50 messages is full after 25 turns


async def run(bench: Bench) -> list[Figure]:
    """Runs of ten turns, one after the other, in the same sessions."""
    runs = bench.size(100, 40)
    async with open_worker("tests.bench.contenders.suite:open_embedded", folder=str(bench.folder), name="growth") as worker:
        await worker.measure(concurrency=LANES, runs=2 * LANES)
        samples = [await _one_more_run(worker, number, runs) for number in range(runs)]
    late = median(samples[-3:])
    return [*_figures(samples[EARLY], late, "turn 10", runs), *_figures(samples[FULL], late, "a full history", runs)]


async def _one_more_run(worker: Worker, number: int, runs: int) -> Sample:
    sized = number < FULL.stop or number >= runs - 3
    return await worker.measure(concurrency=LANES, runs=LANES, session="growth", size=sized)


def _figures(early_samples: list[Sample], late: Sample, since: str, runs: int) -> list[Figure]:
    early, last = median(early_samples), f"turn {runs * TURNS}"
    return [
        Figure(CASE, f"CPU, {last} beside {since}", late["cpu"], early["cpu"], since, "ms", BUDGET),
        Figure(CASE, f"bytes kept, {last} beside {since}", late["stored"], early["stored"], since, "kB", BUDGET),
    ]
