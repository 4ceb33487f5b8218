"""Leases: who drives which run, each change as one work on the tables.

A lease belongs to a driver and covers all its runs. It is kept in the tables, so a restarted store still knows it, and holds while its
row is there: when it is over is for who watches it to say (silence.py), and ending it is a work like any other.
Taking a run away raises the run's epoch in the same transaction: from then on its old driver's writes are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from session_store.domain.run import Assignment, Place
from session_store.domain.schedule import RunLimits, choose
from session_store.domain.session import DriverId, RunId, Tenant
from session_store.operations.ports import Lease, Tables

ENDINGS = 64  # runs handed out in one round that are only to be ended
ORPHANS = 64  # that lost their driver
TURNS = 16  # that begin: they are chosen from as many of each tenant
TENANTS = 64  # looked at in one round; the next goes on behind them


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """What a driver says of itself."""

    driver_id: DriverId
    room: int = 0
    released: tuple[RunId, ...] = ()
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """Runs by driver, whether runs without a driver are left, whether another round could hand out some of them, and where to begin it."""

    by_driver: Mapping[DriverId, Sequence[Assignment]]
    more: bool = True
    again: bool = False
    after: Tenant = Tenant("")


def register(tables: Tables, lease: Lease) -> list[Assignment]:
    """Starts or continues a driver's lease on a new stream, and returns the runs it has: none, if its lease was ended before."""
    if tables.leases.find(lease.driver_id) is None:
        tables.runs.take(lease.driver_id, None)
    tables.leases.put(lease)
    return tables.runs.held_by(lease.driver_id)


def renew(tables: Tables, lease: Lease, released: Sequence[RunId]) -> list[RunId]:
    """Continues a lease and takes back the released runs; returns all that the driver lost, which is everything if its lease was ended."""
    before = tables.leases.find(lease.driver_id)
    taken = tables.runs.take(lease.driver_id, None if before is None else released) if before is None or released else []
    if before is None or before.stream_id == lease.stream_id:
        tables.leases.put(lease)
    return taken


def leave(tables: Tables, driver_id: DriverId, stream_id: str | None = None) -> list[RunId]:
    """Ends a driver's lease and returns the runs it had; nothing happens when another stream than the named one keeps the lease."""
    lease = tables.leases.find(driver_id)
    if lease is not None and stream_id is not None and lease.stream_id != stream_id:
        return []
    tables.leases.remove(driver_id)
    return tables.runs.take(driver_id, None)


def expire(tables: Tables, silent: Sequence[Lease]) -> list[RunId]:
    """Ends leases that are still as they were seen, and returns the runs that their drivers had, and those of drivers without a lease."""
    taken: list[RunId] = []
    for lease in silent:
        if tables.leases.find(lease.driver_id) == lease:
            tables.leases.remove(lease.driver_id)
            taken += tables.runs.take(lease.driver_id, None)
    for driver_id in tables.leases.missing():
        taken += tables.runs.take(driver_id, None)
    return taken


def hand_out(tables: Tables, room: Mapping[DriverId, int], now: float, limits: RunLimits, after: Tenant) -> Handed:
    """Gives runs without a driver to the drivers with the most room: a round, which costs the same however many runs wait and have ended.

    Those that waited for approval for too long wait for a driver from now on.
    First come those that are only to be ended, whatever room there is: that is one append. Then those that lost their driver: they hold a
    place already. Then those that have not begun, as schedule.py says, among the tenants behind `after`.
    """
    woken = _wake_rested(tables, now)
    drivers = _Drivers({driver: places for driver, places in room.items() if tables.leases.find(driver) is not None})
    if not drivers.any:
        return Handed({}, again=woken == ENDINGS)
    overdue = _hand_out_overdue(tables, drivers, now)
    orphans = _hand_out_orphans(tables, drivers)
    begun, behind = _hand_out_unbegun(tables, drivers, now, limits, after)
    again = ENDINGS in (overdue, woken) or (bool(drivers.room) and (orphans == ORPHANS or begun == TURNS))
    return Handed(drivers.assignments(), tables.runs.is_due(), again, behind)


class _Drivers:
    """The drivers of one round: their room, and what they got."""

    def __init__(self, room: dict[DriverId, int]) -> None:
        self._left = room
        self._got: dict[DriverId, list[Assignment]] = {driver: [] for driver in room}

    @property
    def any(self) -> bool:
        """Whether there are drivers at all."""
        return bool(self._left)

    @property
    def room(self) -> int:
        """How many more runs they take."""
        return sum(max(0, left) for left in self._left.values())

    def take(self, assignment: Assignment) -> DriverId:
        """The driver with the most room takes a run."""
        driver = max(self._left, key=self._left.__getitem__)
        self._left[driver] -= 1
        self._got[driver].append(assignment)
        return driver

    def assignments(self) -> dict[DriverId, list[Assignment]]:
        """What those who got something got."""
        return {driver: runs for driver, runs in self._got.items() if runs}


def _wake_rested(tables: Tables, now: float) -> int:
    rested = tables.runs.rested(now, ENDINGS)
    for key in rested:
        tables.runs.wake(key)
    return len(rested)


def _hand_out_overdue(tables: Tables, drivers: _Drivers, now: float) -> int:
    overdue = tables.runs.overdue(now, ENDINGS)
    for key, place, assignment in overdue:
        if place is Place.WAITING:
            tables.runs.place(key, Place.LEAVING)
        tables.runs.assign(key, drivers.take(assignment), None)
    return len(overdue)


def _hand_out_orphans(tables: Tables, drivers: _Drivers) -> int:
    orphans = tables.runs.orphans(min(drivers.room, ORPHANS))
    for key, assignment in orphans:
        tables.runs.assign(key, drivers.take(assignment), None)
    return len(orphans)


def _hand_out_unbegun(tables: Tables, drivers: _Drivers, now: float, limits: RunLimits, after: Tenant) -> tuple[int, Tenant]:
    """Returns how many were handed out, and behind which tenant the next round goes on: nobody when all were looked at."""
    places = min(drivers.room, TURNS)
    places = min(places, limits.running - tables.runs.count_running()) if places else 0
    if places <= 0:
        return 0, after
    queues = tables.runs.queues(after, TENANTS, places)
    chosen = list(choose(queues, limits, places))
    for candidate in chosen:
        tables.runs.assign(candidate.key, drivers.take(candidate.assignment), now)
    return len(chosen), queues[-1].tenant if len(queues) == TENANTS else Tenant("")
