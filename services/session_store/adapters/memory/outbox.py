"""Shards and due batches in memory. A session that is deleted here takes along what was not yet published."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import takewhile

from session_store.adapters.memory.rows import Rows
from session_store.domain.batch import Announcement, page_of
from session_store.domain.outbox import SHARDS, Shard
from session_store.domain.run import Place


class MemoryOutbox:
    """Publishing."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def shards(self) -> list[Shard]:
        """The rows there are."""
        return list(self._rows.shards.values())

    def put(self, shard: Shard) -> None:
        """Stores a row."""
        self._rows.shards[shard.index] = shard

    def due(self, mask: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Announcement]:
        """Batches to publish."""
        kept = sorted(self._after(mask, after), key=lambda each: each.batch.number)[:limit]
        return page_of(takewhile(lambda each: each.batch.number <= up_to, kept), max_bytes)

    def _after(self, mask: int, number: int) -> Iterator[Announcement]:
        for session in self._rows.sessions.values():
            if not mask >> session.key % SHARDS & 1:
                continue
            kept = self._rows.batches_of_session.get(session.key, [])
            for batch in kept[bisect_right(kept, number, key=lambda batch: batch.number) :]:
                run = self._rows.runs[self._rows.run_keys[session.tenant, batch.run_id]]
                if run.place is not Place.IMPORTED:
                    yield Announcement(session.tenant, batch)
