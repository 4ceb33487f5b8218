"""The faults of one seed: what goes wrong, with whom, when and for how long; and at which points processes end themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from chaos.dialogue import STATEMENT, TRANSACTION
from chassis.waypoints import POINTS

MEAN_PAUSE = 1.2
"""Seconds between two faults, on average."""
LONGEST = 5.0
ARMED = 0.85
"""The share of starts that are armed with a waypoint."""

PROCESS_FAULTS = {"kill": 3, "freeze": 3, "terminate": 3}
LINK_FAULTS = {"cut": 2, "lose up": 2, "lose down": 2, "hold": 3, "hold up": 1, "hold down": 1, "late": 1, "slow": 1, "refuse": 2}
SERVER_FAULTS = {"kill": 2, "freeze": 2, "restart": 2}

AIMED_PAUSE = 1.6
"""Seconds between two faults that are aimed at one moment, on average."""
LOSE_COMMIT, LOSE_ANSWER = "lose the commit of ", "lose the answer to the commit of "
STRAND, BLACKOUT = "kill while Kafka is away", "blackout"
EVERYTHING = "everything"

OWNERS = {
    "sqlite": ("session_store", "tool_executor"),
    "postgres": ("session_store", "tool_executor"),
    "store": ("session_store",),
    "relay": ("session_store",),
    "driver": ("orchestrator",),
    "commands": ("orchestrator",),
    "executor": ("tool_executor",),
}
"""Which services pass the points of a name's first word."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, seconds after the beginning, for so many seconds."""

    at: float
    kind: str
    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Targets:
    """What can be hit: processes of the suite, links, and servers that it needs."""

    services: Sequence[str]
    links: Sequence[str]
    servers: Sequence[str] = ()


def schedule(rng: Random, targets: Targets, duration: float) -> list[Fault]:
    """The faults of a run of the harness, in order."""
    faults, at = list[Fault](), 1.0
    while (at := at + rng.expovariate(1 / MEAN_PAUSE)) < duration:
        kind, target = _drawn(rng, targets)
        faults.append(Fault(at, kind, target, min(LONGEST, 0.1 + rng.expovariate(1 / 1.5))))
    return sorted([*faults, *_aimed(rng, targets, duration)], key=lambda fault: fault.at)


def _aimed(rng: Random, targets: Targets, duration: float) -> Iterator[Fault]:
    """What chance alone would hardly hit: the moments at which somebody may take for done what is not.

    All of them in random order, over and over, so that no run of half a minute lacks one.
    """
    at, kinds = 1.0, list(_moments(targets))
    while kinds:
        for kind, target in rng.sample(kinds, len(kinds)):
            at += AIMED_PAUSE * (0.5 + rng.random())
            if at >= duration:
                return
            yield Fault(at, kind, target, 0.6 + rng.random())


def _moments(targets: Targets) -> Iterator[tuple[str, str]]:
    stores = [name for name in targets.services if name.startswith("session_store-")]
    for link in targets.links:
        if link.endswith(">postgres"):
            kinds = (TRANSACTION, STATEMENT) if link.startswith("session_store-") else (TRANSACTION,)
            yield from ((how + kind, link) for kind in kinds for how in (LOSE_COMMIT, LOSE_ANSWER))
    if stores and any(name.startswith("kafka-") for name in targets.servers):
        yield from [(STRAND, EVERYTHING)] * 2
    if stores:
        yield from [(BLACKOUT, EVERYTHING)] * 2


def _drawn(rng: Random, targets: Targets) -> tuple[str, str]:
    to_servers = [link for link in targets.links if link.endswith(tuple(targets.servers))] if targets.servers else []
    between = [link for link in targets.links if link not in to_servers]
    groups = [
        (PROCESS_FAULTS, targets.services, 5),
        (LINK_FAULTS, between, 3),
        (LINK_FAULTS, to_servers, 3),
        (SERVER_FAULTS, targets.servers, 2),
    ]
    groups = [group for group in groups if group[1]]
    kinds, names, _ = rng.choices(groups, [weight for *_, weight in groups])[0]
    return rng.choices(list(kinds), list(kinds.values()))[0], rng.choice(list(names))


def waypoints_for(rng: Random, section: str, absent: Sequence[str] = ()) -> Callable[[], str]:
    """What each start of a service is armed with: all its points in random order, over and over, so that none is left out.

    `absent` are first words of points that nobody passes in this set-up.
    """
    orders = _orders(rng, [n for n in POINTS if section in OWNERS[n.partition(".")[0]] and n.partition(".")[0] not in absent])
    return lambda: next(orders, "")


def _orders(rng: Random, names: Sequence[str]) -> Iterator[str]:
    while names:
        for name in rng.sample(names, len(names)):
            while rng.random() > ARMED:
                yield ""
            yield f"{name}:{_passing(rng, name)}:{rng.choice(('kill', 'kill', 'stop'))}"


FREQUENT = frozenset(
    {
        "sqlite.commit.before",
        "sqlite.commit.after",
        "postgres.commit.before",
        "postgres.commit.after",
        "store.append.written",
        "store.append.committed",
        "store.announced",
        "driver.append.before",
        "driver.append.after",
        "relay.read",
        "relay.sent",
    }
)
"""Points that are passed many times a second; the others are passed a few times, or once in a life."""
RARE = frozenset({"driver.leaving", "driver.taken", "store.lease.taken", "store.lease.attached", "store.lease.handed"})


def _passing(rng: Random, name: str) -> int:
    """Early passings more often than late ones; the rare points at once."""
    if name in RARE:
        return 1
    return min(400, 1 + int(rng.expovariate(1 / (60 if name in FREQUENT else 4))))
