"""The crash harness: breaks everything that can break under a workload, heals it, and judges what was promised.

`make chaos DURATION=60 SEED=7`. The seed determines what clients decide, what the model says, which faults come when and at which points
in the code processes end themselves. What the machine does meanwhile it does not determine: a seed that fails finds the same fault again
nearly always, not always. Everything is kept in the folder named at the end; `--judge FOLDER` judges its history again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from chaos.clients import Client
from chaos.clock import ClockWatch
from chaos.cluster import GROUP, Cluster, Shape, open_cluster
from chaos.faults import Fault, schedule
from chaos.history import History, events_of, load, save
from chaos.letters import Correspondent
from chaos.mail import wait_for_letters, with_records
from chaos.nemesis import Nemesis, targets
from chaos.notebook import Notebook
from chaos.player import Player
from chaos.processes import ROOT
from chaos.proxy import HOST
from chaos.readback import read_back, wait_for_rest
from chaos.report import command_of, tell_findings, tell_summary
from chaos.rules import Finding, judge
from chaos.rules.book import RULES
from chaos.servers import lacking

CLIENTS = 8
REST_SECONDS = 30.0
"""Seconds after the last fault within which every run must have ended."""
HISTORY = "history.json.gz"
LEAST_POINTS = 3
"""Waypoints at which processes must have ended themselves in half a minute or more."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the harness."""

    seed: int
    duration: float
    shape: Shape
    folder: Path


@dataclass
class Outcome:
    """What came of it."""

    history: History
    findings: dict[str, list[Finding]]
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)


class Log:
    """Tells what happens, on the terminal and in the folder."""

    def __init__(self, path: Path) -> None:
        self._began = time.monotonic()
        self._file = path.open("a", buffering=1)

    def tell(self, what: str) -> None:
        """Says it with its moment."""
        line = f"{time.monotonic() - self._began:7.2f} {what}"
        print(line, file=self._file)
        print(line, file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the harness; 1 when it found something."""
    given = _arguments(argv)
    if given.judge:
        return tell_findings(judge(load(given.judge / HISTORY), RULES), f"python -m tests.chaos --judge {given.judge}", given.judge)
    shape, lacks = shape_of(given)
    for lack in lacks:
        print(f"without {lack}", file=sys.stderr)
    folder = given.folder or ROOT / ".data" / f"chaos-{given.seed}-{time.strftime('%H%M%S')}"
    folder.mkdir(parents=True)
    run = Run(given.seed, given.duration, shape, folder)
    print(f"seed {run.seed}, {run.duration:g} s, {run.shape}; everything is kept in {folder}", file=sys.stderr)
    outcome = asyncio.run(carry_out(run))
    tell_summary(outcome.history, outcome.faults, outcome.reached, outcome.codes)
    if idle := too_little(outcome, run.duration):
        print(f"\nNOTHING PROVED: {idle}")
    return tell_findings(outcome.findings, command_of(run.seed, run.duration, shape), folder) or int(bool(idle))


def shape_of(given: argparse.Namespace) -> tuple[Shape, list[str]]:
    """What to run, and what is left out because it cannot be had here. What was asked for and cannot be had ends the harness."""
    lacks = [lack for backend, kafka in (("postgres", False), ("sqlite", True)) if (lack := lacking(backend, kafka))]
    backend = given.backend or ("sqlite" if lacking("postgres", kafka=False) else "postgres")
    kafka = given.kafka if given.kafka is not None else not lacking("sqlite", kafka=True)
    if lack := lacking(backend, kafka):
        raise SystemExit(lack)
    return Shape(given.replicas, backend, kafka), [] if given.backend and given.kafka is not None else lacks


def too_little(outcome: Outcome, duration: float) -> str:
    """Why finding nothing would mean nothing; empty when enough happened."""
    completed = sum(bool(events_of(outcome.history, run_id, "run_completed")) for run_id in outcome.history.runs)
    if completed < duration / 4:
        return f"only {completed} runs were completed in {duration:g} s"
    if len(outcome.history.streams) < completed or not outcome.history.commands or not outcome.history.appends:
        return "too little was followed, commanded or appended"
    if outcome.faults.total() < duration / 4 or (duration >= 30 and len(outcome.reached) < LEAST_POINTS):
        return f"only {outcome.faults.total()} faults and {len(outcome.reached)} waypoints"
    return ""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of faults")
    parser.add_argument("--seed", type=int, default=7, help="determines workload and faults")
    parser.add_argument("--backend", choices=("sqlite", "postgres"), help="default: postgres where there is one")
    parser.add_argument("--kafka", action=argparse.BooleanOptionalAction, help="default: where there is one")
    parser.add_argument("--replicas", type=int, default=2, help="of each service")
    parser.add_argument("--folder", type=Path, help="where to keep everything; default: a new one in .data")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="judge the history of an earlier run again")
    return parser.parse_args(argv)


async def carry_out(run: Run) -> Outcome:
    """The whole of it."""
    log, notebook, clock = Log(run.folder / "chaos.log"), Notebook(), ClockWatch()
    async with open_cluster(run.folder, run.shape, run.seed, log.tell) as cluster:
        faults = schedule(Random(f"{run.seed}/faults"), targets(cluster), run.duration)
        nemesis = Nemesis(cluster, run.seed, log.tell)
        keeping = asyncio.gather(nemesis.keep(), clock.keep())
        try:
            await cluster.serving()
            log.tell("everything serves; the faults begin")
            await _work(run, cluster, notebook, nemesis, faults)
            history = await _settled(cluster, notebook, log)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    defects = tuple(defect for service in cluster.services.values() for defect in (*service.defects, *service.confessions()))
    history = replace(history, defects=history.defects + defects, clock_error=clock.error)
    save(history, run.folder / HISTORY)
    reached = Counter(name for service in cluster.services.values() for name in service.reached)
    return Outcome(history, judge(history, RULES), Counter(fault.kind for fault in faults), reached, notebook.codes)


async def _work(run: Run, cluster: Cluster, notebook: Notebook, nemesis: Nemesis, faults: Sequence[Fault]) -> None:
    """Works while everything breaks, heals it, and lets followers see the end."""
    until = asyncio.get_running_loop().time() + run.duration
    addresses = [f"{HOST}:{link.port}" for link in cluster.ways("client", "orchestrator")]
    clients = [Client(f"client-{number}", addresses, run.seed, notebook) for number in range(CLIENTS)]
    player = Player([f"{HOST}:{link.port}" for link in cluster.ways("player", "session_store")], run.seed, notebook)
    letters = [Correspondent(cluster.kafka.settings, run.seed, notebook).write(until)] if cluster.kafka else []
    try:
        await asyncio.gather(nemesis.rage(faults), player.play(until), *letters, *(client.live(until) for client in clients))
        nemesis.relent()
        await asyncio.gather(*(client.see_the_end() for client in clients))
    finally:
        await asyncio.gather(player.close(), *(client.close() for client in clients))


async def _settled(cluster: Cluster, notebook: Notebook, log: Log) -> History:
    stores, orchestrators, executors = (cluster.direct(section) for section in ("session_store", "orchestrator", "tool_executor"))
    log.tell("everything is healed; waiting for rest")
    if cluster.kafka is not None:
        await cluster.kafka.cluster.serving()
    if cluster.kafka is not None and not await wait_for_letters(cluster.kafka, GROUP):
        log.tell("some commands are not settled")
    left = await wait_for_rest(stores[0], REST_SECONDS)
    log.tell(f"{left} runs are open; reading everything back")
    history = await read_back(notebook, stores, orchestrators, executors[0], cluster.invocations)
    return history if cluster.kafka is None else await with_records(history, cluster.kafka)
