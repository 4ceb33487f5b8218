"""The backend as a whole. Work runs on the event loop, one after another, and raises before it writes, so nothing is ever undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from session_store.adapters.memory.counts import MemoryCounts
from session_store.adapters.memory.ledgers import MemoryLeases, MemoryRequests, MemoryUsageSums
from session_store.adapters.memory.logs import MemoryBatches, MemoryRuns
from session_store.adapters.memory.outbox import MemoryOutbox
from session_store.adapters.memory.rows import Rows
from session_store.adapters.memory.sessions import MemoryMessages, MemorySessions
from session_store.domain.session import Tenant
from session_store.operations.ports import Heard, Hint, Tables

T = TypeVar("T")


class MemoryTables:
    """All rows."""

    def __init__(self) -> None:
        rows = Rows()
        self.sessions = MemorySessions(rows)
        self.messages = MemoryMessages(rows)
        self.runs = MemoryRuns(rows)
        self.batches = MemoryBatches(rows)
        self.requests = MemoryRequests(rows)
        self.usage = MemoryUsageSums(rows)
        self.counts = MemoryCounts(rows)
        self.leases = MemoryLeases(rows)
        self.outbox = MemoryOutbox(rows)


class MemoryStorage:
    """Runs work on rows in memory."""

    def __init__(self) -> None:
        self._tables = MemoryTables()
        self._listeners: list[Callable[[Heard], None]] = []

    async def write(
        self, work: Callable[[Tables], T], announce: Callable[[T], None] | None = None, tell: Callable[[T], Sequence[Hint]] | None = None
    ) -> T:
        """Runs work at once."""
        result = work(self._tables)
        if announce is not None:
            announce(result)
        hints = () if tell is None else tuple(tell(result))
        if hints:
            for hear in self._listeners:
                hear(Heard(hints))
        return result

    def listen(self, hear: Callable[[Heard], None]) -> bool:
        """Several services may stand on one storage in one process; each hears the writes of all."""
        self._listeners.append(hear)
        return True

    async def read(self, work: Callable[[Tables], T], tenant: Tenant | None = None) -> T:
        """Runs work at once."""
        return work(self._tables)

    async def check(self) -> None:
        """Is always there."""


@asynccontextmanager
async def open_memory_storage() -> AsyncIterator[MemoryStorage]:
    """The backend, empty."""
    yield MemoryStorage()
