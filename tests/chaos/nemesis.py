"""Does to a cluster what the schedule says, and keeps its services running in spite of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from random import Random

from chaos.cluster import Cluster
from chaos.faults import EVERYTHING, LOSE_ANSWER, LOSE_COMMIT, STRAND, Fault, Targets
from chaos.processes import Service
from chaos.proxy import Link, Snare

LATE_SECONDS = 0.15
LOSE_SECONDS = 0.5
SLOW_BYTES = 4096.0
SERVING_SECONDS = 6.0
"""How long stores are waited for that are to be killed together."""
STRANDED_SECONDS = 2.0
"""More than a relay takes until it writes down again how far it has come."""


def targets(cluster: Cluster) -> Targets:
    """What can be hit in this cluster."""
    return Targets(tuple(cluster.services), tuple(cluster.links), tuple(cluster.servers))


class Nemesis:
    """Carries a schedule out. `keep` must run beside it, and until everything has come to rest."""

    def __init__(self, cluster: Cluster, seed: int, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._seed = seed
        self._tell = tell
        self._snares: list[Snare] = []

    async def keep(self) -> None:
        """Starts what has died again, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for name, service in self._cluster.services.items():
                rng = Random(f"{self._seed}/restarts/{name}")
                tasks.create_task(service.keep(lambda rng=rng: rng.random(), lambda rng=rng: 0.2 + rng.random() * 4))

    async def rage(self, schedule: Sequence[Fault]) -> None:
        """Does everything of the schedule at its time, and takes it back; returns when the last fault is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for fault in schedule:
                await asyncio.sleep(max(0.0, began + fault.at - loop.time()))
                self._tell(f"{fault.kind} {fault.target} for {fault.seconds:.1f} s")
                tasks.create_task(self._commit(fault))

    async def _commit(self, fault: Fault) -> None:
        if fault.kind == STRAND:
            await self._strand()
        elif fault.target == EVERYTHING:
            await self._black_out(fault.seconds)
        elif fault.target in self._cluster.services:
            await _hit(self._cluster.services[fault.target], fault)
        elif fault.target in self._cluster.servers:
            await self._cluster.servers[fault.target].suffer(fault)
        elif fault.kind.startswith((LOSE_COMMIT, LOSE_ANSWER)):
            self._ensnare(self._cluster.links[fault.target], fault)
        else:
            await _disturb(self._cluster.links[fault.target], fault)

    def _ensnare(self, link: Link, fault: Fault) -> None:
        """Has a link cut at its next commit of a kind, whenever that comes."""
        answer = fault.kind.startswith(LOSE_ANSWER)
        snare = Snare(fault.kind.removeprefix(LOSE_ANSWER if answer else LOSE_COMMIT), arrives=answer)
        link.snares.append(snare)
        self._snares.append(snare)

    async def _strand(self) -> None:
        """Kills stores that have read what they are to publish, and said how far they have come, while Kafka takes nothing."""
        stores = [service for service in self._cluster.services.values() if service.section == "session_store"]
        ways = [link for name, link in self._cluster.links.items() if name.partition(">")[2].startswith("kafka-")]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVING_SECONDS):
                await asyncio.gather(*(store.serves() for store in stores))
        for way in ways:
            way.hold()
        await asyncio.sleep(STRANDED_SECONDS)
        for store in stores:
            store.kill()
        for way in ways:
            way.cut()
            way.heal()

    async def _black_out(self, seconds: float) -> None:
        """Keeps the database from hearing anything, then ends all stores and all drivers at once: what it never heard never was."""
        ways = [link for name, link in self._cluster.links.items() if name.startswith("session_store-") and name.endswith(">postgres")]
        for way in ways:
            way.hold(down=False)
        await asyncio.sleep(seconds)
        for service in self._cluster.services.values():
            if service.section in ("session_store", "orchestrator"):
                service.kill()
        for way in ways:
            way.cut()
            way.heal()

    def relent(self) -> None:
        """Heals everything, and arms nothing any more."""
        for link in self._cluster.links.values():
            link.snares.clear()
        self._tell(f"{sum(snare.sprung for snare in self._snares)} of {len(self._snares)} snares have cut a commit")
        for service in self._cluster.services.values():
            service.next_waypoint = lambda: ""
            if service.armed:  # it may yet pass its point: a process that is not armed takes its place
                service.kill()
        self._cluster.heal()


async def _hit(service: Service, fault: Fault) -> None:
    match fault.kind:
        case "kill":
            service.kill()
        case "terminate":
            service.terminate()
        case "freeze":
            service.freeze()
            await asyncio.sleep(fault.seconds)
            service.wake()


async def _disturb(link: Link, fault: Fault) -> None:
    match fault.kind:
        case "cut":
            link.cut()
            return
        case "lose up" | "lose down":  # the question does not arrive, or the answer does not: was it done?
            link.hold(up=fault.kind == "lose up", down=fault.kind == "lose down")
            await asyncio.sleep(min(fault.seconds, LOSE_SECONDS))
            link.cut()
            link.heal()
            return
        case "hold":
            link.hold()
        case "hold up":
            link.hold(down=False)
        case "hold down":
            link.hold(up=False)
        case "late":
            link.seconds_late = LATE_SECONDS
        case "slow":
            link.bytes_per_second = SLOW_BYTES
        case "refuse":
            link.refuses = True
            link.cut()
    await asyncio.sleep(fault.seconds)
    link.heal()
