"""The backend as a whole. Work runs on the event loop, one after another, and raises before it writes, so nothing is ever undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from session_store.adapters.memory.ledgers import MemoryLeases, MemoryRequests, MemoryUsageSums
from session_store.adapters.memory.logs import MemoryBatches, MemoryRuns
from session_store.adapters.memory.rows import Rows
from session_store.adapters.memory.sessions import MemoryMessages, MemorySessions
from session_store.operations.ports import Tables

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
        self.leases = MemoryLeases(rows)


class MemoryStorage:
    """Runs work on rows in memory."""

    def __init__(self) -> None:
        self._tables = MemoryTables()

    async def write(self, work: Callable[[Tables], T], announce: Callable[[T], None] | None = None) -> T:
        """Runs work at once."""
        result = work(self._tables)
        if announce is not None:
            announce(result)
        return result

    async def read(self, work: Callable[[Tables], T]) -> T:
        """Runs work at once."""
        return work(self._tables)

    async def check(self) -> None:
        """Is always there."""


@asynccontextmanager
async def open_memory_storage() -> AsyncIterator[MemoryStorage]:
    """The backend, empty."""
    yield MemoryStorage()
