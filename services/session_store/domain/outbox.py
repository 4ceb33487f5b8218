"""The log as an outbox: who publishes which sessions' batches, and how far that has come. Pure.

Sessions are dealt to shards by their keys. A shard has one publisher at a time, which holds it by a lease with an epoch; the shard's row
says up to which batch everything was published. A publisher that has fewer shards than its share asks the one that has the most, as the
heir of one of its shards; that one lets go when nothing of the shard is on its way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

SHARDS = 8  # one process fills a core long before one shard fills a process: this is how many replicas can share the work


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's row. `number` is the last batch up to which everything was published; `heir` asks for the shard."""

    index: int
    number: int = 0
    owner: str = ""
    epoch: int = 0
    expires_at: float = 0.0
    heir: str = ""

    @property
    def lease(self) -> ShardLease:
        """Who holds it, as of the last time that somebody renewed that."""
        return ShardLease(self.index, self.owner, self.epoch, self.expires_at)


@dataclass(frozen=True, slots=True)
class ShardLease:
    """A publisher's hold on a shard. It changes whenever it is renewed; `expires_at` is by the clock of who wrote it."""

    index: int
    owner: str
    epoch: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class Held:
    """A shard as its publisher knows it."""

    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class Tending:
    """A publisher's view: what it holds, which of it is on its way, the time, and the leases that it has seen end.

    Whether another's lease is over is never read off the time that is written in it: clocks differ, and may be set.
    """

    owner: str
    held: Mapping[int, Held]
    busy: Collection[int]
    now: float
    lease_seconds: float
    over: Collection[ShardLease] = ()


def whole(rows: Iterable[Shard]) -> list[Shard]:
    """All shards, of which those without a row were never published."""
    found = {row.index: row for row in rows if row.index < SHARDS}
    return [found.get(index, Shard(index)) for index in range(SHARDS)]


def published_up_to(rows: Iterable[Shard]) -> int:
    """The last batch up to which everything of every session was published."""
    return min(row.number for row in whole(rows))


def mask_of(shards: Iterable[int]) -> int:
    """Shards as bits, for a backend to choose sessions by: bit (session key modulo SHARDS)."""
    return sum(1 << index for index in shards)


def is_held(row: Shard, owner: str, held: Mapping[int, Held]) -> bool:
    """Whether a row is the publisher's still: nobody took it since, even if the lease has ended."""
    return row.owner == owner and row.index in held and row.epoch == held[row.index].epoch


def tended(rows: Iterable[Shard], view: Tending) -> list[Shard]:
    """The rows that change when a publisher looks after its shards: moved on, renewed, handed over, taken, asked for."""
    shards = whole(rows)
    mine = [shard for shard in shards if is_held(shard, view.owner, view.held)]
    changed = [after for shard in mine if (after := _kept(shard, view)) != shard]
    lost = sum(1 for shard in changed if not shard.owner)
    return changed + _gained(shards, mine, len(mine) - lost, view)


def released(rows: Iterable[Shard], view: Tending) -> list[Shard]:
    """The rows that change when a publisher leaves: others take them at once."""
    mine = (shard for shard in rows if is_held(shard, view.owner, view.held))
    return [replace(_moved(shard, view), owner="", heir="", expires_at=0.0) for shard in mine]


def _moved(shard: Shard, view: Tending) -> Shard:
    return replace(shard, number=max(shard.number, view.held[shard.index].number))


def _kept(shard: Shard, view: Tending) -> Shard:
    moved = _moved(shard, view)
    if shard.heir and shard.index not in view.busy:
        return replace(moved, owner="", heir="", expires_at=0.0)
    if moved != shard or shard.expires_at - view.now < view.lease_seconds * 2 / 3:
        return replace(moved, expires_at=view.now + view.lease_seconds)
    return shard


def _gained(shards: Collection[Shard], mine: Collection[Shard], have: int, view: Tending) -> list[Shard]:
    """Free shards up to the publisher's share; where none is free, one of another's to inherit."""
    live = [shard for shard in shards if shard.owner and shard.owner != view.owner and shard.lease not in view.over]
    free = [shard for shard in shards if shard not in live and shard not in mine]
    publishers = {view.owner, *(shard.owner for shard in live), *(shard.heir for shard in live if shard.heir)}
    most = -(-SHARDS // len(publishers))
    taken = [replace(shard, owner=view.owner, epoch=shard.epoch + 1, heir="") for shard in free[: max(0, most - have)]]
    if taken:
        return [replace(shard, expires_at=view.now + view.lease_seconds) for shard in taken]
    return _asked(live, have, view.owner) if not free else []


def _asked(live: Collection[Shard], have: int, owner: str) -> list[Shard]:
    counts = Counter(shard.owner for shard in live)
    if not counts or any(shard.heir == owner for shard in live):
        return []
    richest, most = max(counts.items(), key=lambda item: item[1])
    if most - have < 2:
        return []
    return [replace(next(shard for shard in live if shard.owner == richest), heir=owner)]


Rule = Callable[[Iterable[Shard], Tending], list[Shard]]
