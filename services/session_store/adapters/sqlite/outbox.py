"""Rows of the shards, and batches as they are published."""

from __future__ import annotations

import sqlite3

from session_store.domain.batch import Announcement, Batch, page_of
from session_store.domain.outbox import SHARDS, Shard

_SHARDS = "SELECT shard, number, owner, epoch, expires_at, heir FROM outbox ORDER BY shard"
_PUT = "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?)"
_DUE = f"""SELECT b.tenant, b.number, runs.id, runs.session_id, b.first, b.last, b.data
    FROM batches AS b CROSS JOIN runs ON runs.key = b.run
    WHERE b.number > ? AND b.number <= ? AND (? >> (b.session % {SHARDS})) & 1 = 1 AND runs.place <> 3
    ORDER BY b.number LIMIT ?"""  # noqa: S608 — constants only


class SqliteOutbox:
    """Publishing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def shards(self) -> list[Shard]:
        """The rows there are."""
        return [Shard(*row) for row in self._execute(_SHARDS)]

    def put(self, shard: Shard) -> None:
        """Stores a row."""
        self._execute(_PUT, (shard.index, shard.number, shard.owner, shard.epoch, shard.expires_at, shard.heir))

    def due(self, mask: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Announcement]:
        """Batches to publish."""
        rows = self._execute(_DUE, (after, up_to, mask, limit))
        return page_of((Announcement(tenant, Batch(*batch)) for tenant, *batch in rows), max_bytes)
