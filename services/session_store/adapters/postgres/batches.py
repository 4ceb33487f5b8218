"""Rows of the logs, and the numbers that give them their order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap

from chassis.postgres import Statements
from session_store.domain.batch import Batch, page_of
from session_store.domain.session import Tenant

_ADD = "INSERT INTO batches (number, tenant, session, run, first, last, data) VALUES ($1, $2, $3, $4, $5, $6, $7)"
_SELECT = "SELECT b.number, runs.id, runs.session_id, b.first, b.last, b.data FROM batches AS b JOIN runs ON runs.key = b.run WHERE"
_OF_RUN = f"{_SELECT} b.run = $1 AND b.last > $2 ORDER BY b.last LIMIT $3"
_OF_SESSION = f"{_SELECT} b.session = $1 AND b.number >= $2 ORDER BY b.number LIMIT $3"
_OF_TENANT = f"{_SELECT} b.tenant = $1 AND b.number >= $2 AND runs.tenant = b.tenant AND runs.place <> 3 ORDER BY b.number LIMIT $3"
_LAST = "SELECT last_number FROM counters"


@dataclass(slots=True)
class Counters:
    """The last number and key that were given; this transaction holds them until its end."""

    last_number: int
    last_key: int

    def next_number(self) -> int:
        """The number of the next batch."""
        self.last_number += 1
        return self.last_number

    def next_key(self) -> int:
        """A key that was never given."""
        self.last_key += 1
        return self.last_key


class PostgresBatches:
    """Logs."""

    def __init__(self, statements: Statements, counters: Counters) -> None:
        self._statements = statements
        self._counters = counters

    def add(self, tenant: Tenant, session_key: int, run_key: int, first: int, last: int, data: bytes) -> int:
        """Stores events."""
        number = self._counters.next_number()
        self._statements.execute(_ADD, number, tenant, session_key, run_key, first, last, data)
        return number

    def of_run(self, run_key: int, after: int, limit: int, max_bytes: int) -> list[Batch]:
        """A run's batches."""
        return page_of(starmap(Batch, self._statements.fetch(_OF_RUN, run_key, after, limit)), max_bytes)

    def of_session(self, session_key: int, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A session's batches."""
        return page_of(starmap(Batch, self._statements.fetch(_OF_SESSION, session_key, from_number, limit)), max_bytes)

    def of_tenant(self, tenant: Tenant, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A tenant's batches."""
        return page_of(starmap(Batch, self._statements.fetch(_OF_TENANT, tenant, from_number, limit)), max_bytes)

    def last_number(self) -> int:
        """The greatest number ever given."""
        row = self._statements.fetchrow(_LAST)
        assert row is not None, "the counters were made with the table"
        return int(row[0])
