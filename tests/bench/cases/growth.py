"""Whether a turn costs the same late in a session as early: cost must not grow with what was said before."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.figures import Budget, Figure
from tests.bench.loop import TURNS
from tests.bench.rounds import Bench, median
from tests.bench.worker import Sample, Worker, open_worker

CASE = "one session: a turn late beside a turn early"
BUDGET = Budget(floor=1.2, aim=1.02)
LANES = 8  # sessions side by side, since one run alone is too short to measure
FULL_AFTER = 3  # runs: the default history of 50 messages is full after 25 turns


async def run(bench: Bench) -> list[Figure]:
    """Runs of ten turns in sessions that are old, that have a full history, and that are new; measured by turns."""
    age = bench.size(97, 37)
    async with open_worker("tests.bench.contenders.suite:open_embedded", folder=str(bench.folder), name="growth") as worker:
        for _ in range(age):
            await worker.measure(concurrency=LANES, runs=LANES, session="old")
        rounds = [await _round(worker, number) for number in range(bench.rounds(6))]
    found = {name: median([each[name] for each in rounds]) for name in rounds[0]}
    last = f"turn {(age + FULL_AFTER) * TURNS}"
    return [*_figures(found, last, "turn 10"), *_figures(found, last, "a full history")]


async def _round(worker: Worker, number: int) -> Mapping[str, Sample]:
    """One measurement of each kind; the new sessions are then filled up to be those with a full history."""
    load = {"concurrency": LANES, "runs": LANES, "size": True}
    new, old = f"new-{number}", await worker.measure(session="old", **load)
    early = await worker.measure(session=new, **load)
    for _ in range(FULL_AFTER - 1):
        await worker.measure(session=new, **load)
    return {"late": old, "turn 10": early, "a full history": await worker.measure(session=new, **load)}


def _figures(found: Mapping[str, Sample], last: str, since: str) -> list[Figure]:
    late, early = found["late"], found[since]
    return [
        Figure(CASE, f"CPU, {last} beside {since}", late["cpu"], early["cpu"], since, "ms", BUDGET),
        Figure(CASE, f"bytes kept, {last} beside {since}", late["stored"], early["stored"], since, "kB", BUDGET),
    ]
