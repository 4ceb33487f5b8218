"""Rows of the shards, and batches as they are published."""

from __future__ import annotations

from chassis.postgres import Statements
from session_store.domain.batch import Announcement, Batch, page_of
from session_store.domain.outbox import SHARDS, Shard

_SHARDS = "SELECT shard, number, owner, epoch, expires_at, heir FROM outbox ORDER BY shard"
_PUT = """INSERT INTO outbox (shard, number, owner, epoch, expires_at, heir) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (shard) DO UPDATE SET number = excluded.number, owner = excluded.owner, epoch = excluded.epoch,
        expires_at = excluded.expires_at, heir = excluded.heir"""
_DUE = f"""SELECT b.tenant, b.number, runs.id, runs.session_id, b.first, b.last, b.data
    FROM batches AS b JOIN runs ON runs.key = b.run
    WHERE b.number > $1 AND b.number <= $2 AND ($3::integer >> (b.session % {SHARDS})::integer) & 1 = 1 AND runs.place <> 3
    ORDER BY b.number LIMIT $4"""  # noqa: S608 — constants only


class PostgresOutbox:
    """Publishing."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def shards(self) -> list[Shard]:
        """The rows there are."""
        return [Shard(*row) for row in self._statements.fetch(_SHARDS)]

    def put(self, shard: Shard) -> None:
        """Stores a row."""
        self._statements.execute(_PUT, shard.index, shard.number, shard.owner, shard.epoch, shard.expires_at, shard.heir)

    def due(self, mask: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Announcement]:
        """Batches to publish."""
        rows = self._statements.fetch(_DUE, after, up_to, mask, limit)
        return page_of((Announcement(tenant, Batch(*batch)) for tenant, *batch in rows), max_bytes)
