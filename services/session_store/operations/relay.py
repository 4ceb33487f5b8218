"""Publishing the log: which shards this process publishes, and bringing their batches to where they go, in the order of commits.

The log is the outbox. Nothing is written for an event to be published but, twice a second, how far that has come; so after a crash the
last moments are published again, under the same ids. Events reach their readers some milliseconds after their commit, many at a time.
Who publishes what is decided in the tables (domain/outbox.py), and whose publisher is gone by this process's own watch (silence.py).
A page at a time is in memory, however long its readers are away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from chassis.faults import Fault
from chassis.waypoints import waypoint
from chassis.world import World
from session_store.domain.batch import Announcement
from session_store.domain.outbox import Held, Rule, Shard, ShardLease, Tending, mask_of, released, tended, whole
from session_store.operations.ports import Publications, Storage, Tables
from session_store.operations.silence import Silence

PAGE = 128  # batches read at once: what one costs to split and send keeps others in this process waiting
PAGE_BYTES = 1 << 18
TEND_SECONDS = 0.5  # or a sixth of a lease, if that is less
LINGER_SECONDS = 0.025  # a round costs 0.6 ms, whether it publishes one event or a hundred
BEHIND_SECONDS = 60.0  # between two log lines about a trouble that lasts
LEAVE_SECONDS = 2.0  # to say goodbye; who comes later waits for the lease's end instead


@dataclass(frozen=True, slots=True)
class Backlog:
    """How publishing stands: all shards, the last batch of the log, and what keeps this process from publishing."""

    shards: list[Shard]
    last_number: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Page:
    batches: list[Announcement]
    up_to: int
    full: bool


@dataclass(slots=True)
class Relay:
    """Publishes. `run` does it for as long as it runs; `bell` is rung when something was committed."""

    storage: Storage
    publications: Publications
    world: World
    lease_seconds: float
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    _owner: str = ""
    _held: dict[int, Held] = field(default_factory=dict)
    _busy: frozenset[int] = frozenset()  # on its way
    _leaving: frozenset[int] = frozenset()  # about to be handed over
    _silence: Silence[ShardLease] = field(init=False)
    _complained: bool = False
    _told_at: float = 0.0

    def __post_init__(self) -> None:
        self._silence = Silence(self.lease_seconds)

    @property
    def held(self) -> Mapping[int, Held]:
        """The shards that this process publishes, each with how far that has come."""
        return self._held

    @property
    def _tend_seconds(self) -> float:
        return min(TEND_SECONDS, self.lease_seconds / 6)

    async def run(self) -> None:
        """Publishes until cancelled, then leaves its shards to others."""
        self._owner = self.world.ids.new()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_tending())
                tasks.create_task(self._keep_publishing())
        finally:
            self._busy = frozenset()
            await asyncio.shield(asyncio.ensure_future(self._leave()))

    async def backlog(self) -> Backlog:
        """How publishing stands, of all processes."""
        last, shards = await self.storage.read(_standing)
        return Backlog(shards, last, self.publications.problem)

    async def _keep_tending(self) -> None:
        while True:
            await self._tolerant(self._tend(tended))
            self._tell_of_backlog()
            self.bell.set()  # what no bell was rung for is found within this time
            await self.world.clock.sleep(self._tend_seconds)

    async def _keep_publishing(self) -> None:
        while True:
            await self.bell.wait()
            self.bell.clear()
            while await self._tolerant(self._round()):
                pass
            await self.world.clock.sleep(LINGER_SECONDS)

    async def _tolerant(self, step: Awaitable[bool]) -> bool:
        """Goes on after a fault: the storage may come back. Whether there is more to do at once."""
        try:
            return await step
        except Fault as fault:
            if not self._complained:
                structlog.get_logger().warning("publishing waits for the storage", reason=fault.reason, problem=fault.message)
            self._complained = True
        except Exception:  # noqa: BLE001 — a defect in one round must not end the rounds: nothing would be published any more
            structlog.get_logger().exception("publishing failed; trying again")
            await self.world.clock.sleep(self._tend_seconds)
        return False

    async def _tend(self, rule: Rule) -> bool:
        now, moment = self.world.clock.now(), self.world.clock.monotonic()
        rows = await self.storage.read(lambda tables: tables.outbox.shards())
        self._leaving = frozenset(row.index for row in rows if row.heir) - self._busy
        over = self._silence.look({row.index: row.lease for row in rows if row.owner}, now, moment)
        view = Tending(self._owner, dict(self._held), self._busy, now, self.lease_seconds, frozenset(over))
        if rule(rows, view):
            rows = await self.storage.write(lambda tables: _apply(tables, rule, view))
            waypoint("relay.advanced")
        mine = [row for row in rows if row.owner == self._owner]
        self._held = {row.index: Held(row.epoch, max(row.number, self._number_of(row))) for row in mine}
        self._complained = False
        return False

    def _number_of(self, row: Shard) -> int:
        held = self._held.get(row.index)
        return held.number if held is not None and held.epoch == row.epoch else 0

    async def _leave(self) -> None:
        with suppress(Fault, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._tend(released)

    async def _round(self) -> bool:
        """Publishes a page of the shards that are furthest behind; they are together with the others as soon as they have caught up."""
        held = {index: at for index, at in self._held.items() if index not in self._leaving}
        if not held:
            return False
        lowest = min(at.number for at in held.values())
        group = frozenset(index for index, at in held.items() if at.number == lowest)
        next_lowest = min((at.number for at in held.values() if at.number > lowest), default=None)
        self._busy = group
        try:
            page = await self.storage.read(lambda tables: _page(tables, group, lowest, next_lowest))
            if page.batches:
                waypoint("relay.read")
                await self.publications.publish(page.batches)
                waypoint("relay.sent")
        finally:
            self._busy = frozenset()
        self._advance({index: held[index] for index in group}, page.up_to)
        return page.full or (page.up_to > lowest and len(group) < len(held))

    def _advance(self, published: Mapping[int, Held], number: int) -> None:
        for index, at in published.items():
            now = self._held.get(index)
            if now is not None and now.epoch == at.epoch:
                self._held[index] = Held(now.epoch, max(now.number, number))

    def _tell_of_backlog(self) -> None:
        """Says each minute how long publishing has been in trouble, as long as it is."""
        moment, problem = self.world.clock.monotonic(), self.publications.problem
        if not problem:
            self._told_at = moment
        elif moment - self._told_at >= BEHIND_SECONDS:
            self._told_at = moment
            structlog.get_logger().warning("events wait to be published", problem=problem)


async def backlog(storage: Storage, publications: Publications | None) -> Backlog:
    """How publishing stands, of all processes; None where this one does not publish."""
    last, shards = await storage.read(_standing)
    return Backlog(shards, last, publications.problem if publications is not None else "")


def _standing(tables: Tables) -> tuple[int, list[Shard]]:
    return tables.batches.last_number(), whole(tables.outbox.shards())


def _page(tables: Tables, group: frozenset[int], after: int, next_lowest: int | None) -> _Page:
    last = tables.batches.last_number()  # first: whatever has a number up to it is there to be read
    up_to = last if next_lowest is None else min(last, next_lowest)
    if up_to <= after:
        return _Page([], after, full=False)
    batches = tables.outbox.due(mask_of(group), after, up_to, PAGE, PAGE_BYTES)
    if not batches:
        return _Page([], up_to, full=False)
    size = sum(len(announcement.batch.data) for announcement in batches)
    return _Page(batches, batches[-1].batch.number, full=len(batches) == PAGE or size > PAGE_BYTES // 2)


def _apply(tables: Tables, rule: Rule, view: Tending) -> list[Shard]:
    rows = {row.index: row for row in tables.outbox.shards()}
    for row in rule(list(rows.values()), view):
        tables.outbox.put(row)
        rows[row.index] = row
    return list(rows.values())
