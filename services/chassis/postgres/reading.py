"""Reads: a few connections, each read on one snapshot, as one tenant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from chassis.faults import StorageUnavailable
from chassis.postgres.connecting import Server, close_quietly
from chassis.postgres.faults import RETRY_SECONDS, is_cut
from chassis.postgres.patience import PATIENCE_SECONDS, Backoff
from chassis.postgres.statements import Statements, run_suspending
from chassis.postgres_access import Connection
from chassis.tenants import EVERYBODY

T = TypeVar("T")

READERS = 4


@dataclass(slots=True)
class Readers:
    """Connections for reads, opened as they are needed."""

    server: Server
    _idle: list[Connection] = field(default_factory=list)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))
    _under_way: int = 0
    _closed: bool = False

    @property
    def busy(self) -> bool:
        """Whether a read is under way."""
        return self._under_way > 0

    async def read(self, work: Callable[[Statements], T], tenant: str = EVERYBODY) -> T:
        """Runs work on a snapshot that shows the rows of a tenant, or of everybody; again, when the server is away for a moment."""
        since, backoff = time.monotonic(), Backoff()
        while True:
            self._under_way += 1
            try:
                return await self._read(work, tenant)
            except Exception as error:
                if not is_cut(error):
                    raise self.server.fault(error) from None
                if self._closed or time.monotonic() - since >= PATIENCE_SECONDS:
                    raise self.server.fault(error) from error
            finally:
                self._under_way -= 1
            await backoff.wait()

    async def close(self) -> None:
        """Lets reads that are under way end, then closes."""
        self._closed = True
        for _ in range(READERS):
            await self._places.acquire()
        for connection in self._idle:
            close_quietly(connection)

    async def _read(self, work: Callable[[Statements], T], tenant: str) -> T:
        if self._closed:
            raise StorageUnavailable(f"{self.server.place} is closing; retry later", retry_after=RETRY_SECONDS)
        async with self._places:
            connection = await self._take()
            try:
                result = await _on_snapshot(connection, work, tenant)
            except BaseException as error:
                if connection.is_in_transaction() or is_cut(error) or not isinstance(error, Exception):
                    close_quietly(connection)  # it is unclear where the read was broken off, and a statement may still be under way
                    if is_cut(error):
                        self._drop_idle()
                else:
                    self._idle.append(connection)
                raise
            self._idle.append(connection)
            return result

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self.server.connect("reader")

    def _drop_idle(self) -> None:
        """The others were probably cut at the same moment."""
        while self._idle:
            close_quietly(self._idle.pop())


async def _on_snapshot(connection: Connection, work: Callable[[Statements], T], tenant: str) -> T:
    quoted = tenant.replace("'", "''")
    await connection.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL behest.tenant = '{quoted}'")
    try:
        result = await run_suspending(work, Statements(connection))
    except Exception as error:
        if not is_cut(error):
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    return result
