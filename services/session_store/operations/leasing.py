"""Leases: who drives which run, each change as one work on the tables.

A lease belongs to a driver and covers all its runs. It is kept in the tables with its end by the store's clock, so a restarted store
still knows it. Taking a run away raises the run's epoch in the same transaction: from then on its old driver's writes are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from session_store.domain.run import Assignment
from session_store.domain.session import DriverId, RunId
from session_store.operations.ports import Lease, Tables


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """What a driver says of itself."""

    driver_id: DriverId
    room: int = 0
    released: tuple[RunId, ...] = ()
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """Runs by driver, and whether there were more than room for them."""

    by_driver: Mapping[DriverId, Sequence[Assignment]]
    more: bool


def register(tables: Tables, lease: Lease, now: float) -> list[Assignment]:
    """Starts or continues a driver's lease on a new stream, and returns the runs it has: none, if its lease ended before."""
    before = tables.leases.find(lease.driver_id)
    if before is None or before.expires_at <= now:
        tables.runs.take(lease.driver_id, None)
    tables.leases.put(lease)
    return tables.runs.held_by(lease.driver_id)


def renew(tables: Tables, lease: Lease, now: float, released: Sequence[RunId]) -> list[RunId]:
    """Continues a lease and takes back the released runs; returns all that the driver lost, which is everything if its lease had ended."""
    before = tables.leases.find(lease.driver_id)
    lapsed = before is None or before.expires_at <= now
    taken = tables.runs.take(lease.driver_id, None if lapsed else released) if lapsed or released else []
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


def expire(tables: Tables, now: float) -> list[RunId]:
    """Ends the leases of silent drivers and returns the runs they had."""
    taken: list[RunId] = []
    for driver_id in tables.leases.expired(now):
        tables.leases.remove(driver_id)
        taken += tables.runs.take(driver_id, None)
    return taken


def hand_out(tables: Tables, room: Mapping[DriverId, int], now: float) -> Handed:
    """Gives the oldest runs without a driver to the drivers with the most room, as far as it goes."""
    left = {driver: places for driver, places in room.items() if places > 0 and _lives(tables, driver, now)}
    due = tables.runs.unassigned(sum(left.values()) + 1)
    by_driver: dict[DriverId, list[Assignment]] = {driver: [] for driver in left}
    given = 0
    for key, assignment in due[: sum(left.values())]:
        driver = max(left, key=left.__getitem__)
        tables.runs.assign(key, driver, now)
        by_driver[driver].append(assignment)
        left[driver] -= 1
        given += 1
    return Handed({driver: runs for driver, runs in by_driver.items() if runs}, more=given < len(due))


def _lives(tables: Tables, driver_id: DriverId, now: float) -> bool:
    lease = tables.leases.find(driver_id)
    return lease is not None and lease.expires_at > now
