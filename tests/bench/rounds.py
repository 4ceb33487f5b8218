"""Measuring contenders in turns: every round asks each of them once, so that a slow moment of the machine hits all alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.worker import Load, Sample, Worker


@dataclass(frozen=True, slots=True)
class Bench:
    """How much to measure, and the folder that databases are put in."""

    folder: Path
    quick: bool = False

    def rounds(self, full: int) -> int:
        """How many rounds, given how many a full bench has."""
        return max(2, full // 2) if self.quick else full

    def size(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full


def median(samples: Sequence[Sample]) -> Sample:
    """The median of each value."""
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


async def compare(workers: Mapping[str, Worker], rounds: int, **load: Any) -> dict[str, Sample]:
    """The medians of each worker under one load, measured by turns."""
    return {name: median(samples) for name, samples in (await collect(workers, rounds, load)).items()}


async def collect(workers: Mapping[str, Worker], rounds: int, load: Load) -> dict[str, list[Sample]]:
    """Every sample."""
    samples: dict[str, list[Sample]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            samples[name].append(await worker.measure(**load))
    return samples
