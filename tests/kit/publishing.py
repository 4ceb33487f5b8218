"""Where records go in tests: kept in memory, held back, or cut off after some."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from chassis.faults import Fault
from chassis.kafka.publishing import Record


def id_of(record: Record) -> str:
    """The event's id: run/sequence."""
    return dict(record.headers)["ce_id"].decode()


@dataclass
class RecordingPublisher:
    """Keeps what is published. `hold` makes it wait as if Kafka were away; `tears` keeps so many records and never says that it did."""

    records: list[Record] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    problem: Fault | None = None
    tears: int | None = None
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self._open.set()

    async def publish(self, records: Iterable[Record]) -> None:
        taken = list(records)
        self.calls.append(len(taken))
        if not self._open.is_set():
            self.waiting.set()
            await self._open.wait()
        kept = taken if self.tears is None else taken[: self.tears]
        async with self._changed:
            self.records += kept
            self._changed.notify_all()
        if self.tears is not None:
            await asyncio.Event().wait()  # kept, and never acknowledged

    def hold(self) -> None:
        """Takes no more records until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Takes what waits, and goes on."""
        self._open.set()

    @property
    def ids(self) -> list[str]:
        """The ids of what was kept, repetitions included."""
        return [id_of(record) for record in self.records]

    async def until(self, ids: Iterable[str]) -> None:
        """Returns when these were kept; fails with what is missing when they never are."""
        wanted = set(ids)
        try:
            async with asyncio.timeout(20), self._changed:
                await self._changed.wait_for(lambda: wanted <= set(self.ids))
        except TimeoutError:
            raise AssertionError(f"never published: {sorted(wanted - set(self.ids))}") from None


def first_ids(ids: Iterable[str]) -> list[str]:
    """Ids as a reader has them who drops what it saw before."""
    return list(dict.fromkeys(ids))


def by_run(ids: Iterable[str]) -> dict[str, list[int]]:
    """Sequences by run, in the order they came."""
    found: dict[str, list[int]] = {}
    for id_ in ids:
        run, _, sequence = id_.rpartition("/")
        found.setdefault(run, []).append(int(sequence))
    return found
