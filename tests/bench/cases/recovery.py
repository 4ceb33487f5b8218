"""How long a run stands still when the replicas that carry it are killed with -9, as somebody sees it who follows it elsewhere."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench

from kit.replicas import ReplicatedSuite, open_replicated_suite
from kit.suites import tool_turns
from suite.client import Behest
from suite.following import is_terminal

CASE = "recovery of a run after kill -9"
PROMISED = Budget(floor=5.0, aim=2.0)
COUNTS = {"session_store": 2, "orchestrator": 2, "tool_executor": 1, "provider_gateway": 1}
PACE_MS = 20
LONG = {"rules": [{"when": {"equals": "long"}, "turns": tool_turns([[f"turn {number}"] for number in range(3000)], wait_ms=PACE_MS)}]}
SETTLED_SECONDS = 1.5  # between a restart and the next kill

DRIVER = "orchestrator.0"
VICTIMS: dict[str, Callable[[int], Sequence[str]]] = {
    "orchestrator that drives": lambda _: (DRIVER,),
    "store replica": lambda number: (f"session_store.{number % 2}",),
    "orchestrator that drives, and a store replica": lambda number: (DRIVER, f"session_store.{number % 2}"),
}


async def run(bench: Bench) -> list[Figure]:
    """Median and worst of 20 kills of each kind; and of ordered ends, where nothing should be felt."""
    figures: list[Figure] = []
    async with open_replicated_suite(bench.folder, LONG, counts=COUNTS, orchestrator=_patient()) as suite:
        for what, victims in VICTIMS.items():
            gaps = [await _gap(suite, victims(number), signal.SIGKILL) for number in range(bench.size(20, 6))]
            figures += _figures(f"{what} killed", gaps)
        gaps = [await _gap(suite, (DRIVER,), signal.SIGTERM) for _ in range(bench.size(6, 3))]
        figures += _figures("orchestrator that drives told to end", gaps)
    return figures


def _patient() -> dict[str, object]:
    limits = {"max_iterations": 5000, "max_tool_calls": 5000, "max_total_tokens": 10**9}
    return {"agents": {"worker": {"tools": ["*"], "limits": limits, "loop_exempt_tools": ["record"]}}}


def _figures(what: str, gaps: Sequence[float]) -> list[Figure]:
    beside = "1 s"
    return [
        Figure(CASE, f"{what}: median of {len(gaps)}", statistics.median(gaps), 1.0, beside, "ms", PROMISED),
        Figure(CASE, f"{what}: worst", max(gaps), 1.0, beside, "ms", PROMISED),
    ]


@dataclass
class _Watch:
    """What a follower at the surviving orchestrator sees of one run. Its own connections are not what is measured."""

    client: Behest
    run_id: str
    seen: list[float] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def look(self) -> None:
        async for event in self.client.watch(self.run_id):
            self.seen.append(time.monotonic())
            self.news.set()
            assert not is_terminal(event), f"the run ended: {event}"

    async def more(self, count: int) -> None:
        """Returns when so many more events were seen."""
        wanted = len(self.seen) + count
        while len(self.seen) < wanted:
            self.news.clear()
            await self.news.wait()


async def _gap(suite: ReplicatedSuite, victims: Sequence[str], number: signal.Signals) -> float:
    """The longest pause between events that spans the kill."""
    async with suite.client(DRIVER) as first, suite.client("orchestrator.1") as other:
        run = await first.run("long")
        watch = _Watch(other, run.id)
        looking = asyncio.create_task(watch.look())
        await watch.more(20)
        killed = time.monotonic()
        await asyncio.gather(*(suite.end(name, number) for name in victims))
        waiting = asyncio.create_task(watch.more(40))
        await asyncio.wait({waiting, looking}, return_when=asyncio.FIRST_COMPLETED)
        waiting.result()
        looking.cancel()
        await asyncio.gather(*map(suite.start, victims))
        await other.cancel(run.id)
    await asyncio.sleep(SETTLED_SECONDS)
    return max(later - earlier for earlier, later in zip(watch.seen, watch.seen[1:], strict=False) if later > killed)
