"""An open database: writes, reads, the clock and what others notify, each on connections of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from uuid_utils import uuid7

from chassis.postgres.clock import DatabaseClock
from chassis.postgres.connecting import Server
from chassis.postgres.frames import Frame
from chassis.postgres.listening import Listener
from chassis.postgres.reading import Readers
from chassis.postgres.statements import Statements
from chassis.postgres.writing import Shortcut, Writer
from chassis.tenants import EVERYBODY

T = TypeVar("T")
R = TypeVar("R")


@asynccontextmanager
async def open_postgres(server: Server, frame: Frame, shortcut: Shortcut | None = None) -> AsyncIterator[Database]:
    """An open database whose schema is there. Raises StorageUnavailable, SettingsInvalid."""
    writer = Writer(server, str(uuid7()), frame, shortcut)
    database = Database(writer, Readers(server))
    try:
        await writer.connect()
    except Exception as error:  # noqa: BLE001 — raised again as a fault
        raise server.fault(error) from None  # it may be cut while it signs on
    writing = asyncio.create_task(writer.run(), name="postgres-write")
    try:
        await database.clock.set()
        yield database
    finally:
        await database._close()
        await writing


class Database:
    """An open PostgreSQL database. Made by open_postgres."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self._tasks: list[asyncio.Task[None]] = []
        self.clock = DatabaseClock(self._ask_time)

    @property
    def writer_id(self) -> str:
        """Names this process's writer, in the table of writers."""
        return self._writer.id

    @property
    def busy(self) -> bool:
        """Whether a write or a read is under way."""
        return self._writer.busy or self._readers.busy

    async def write(self, work: Callable[[R], T], announce: Callable[[T], None] | None = None) -> T:
        """Runs work in the next transaction, on what the frame gives it, and returns its result once that is durable.

        `announce` is called with the result on the event loop, in the order of commits, before any writer of the group goes on,
        also when the caller was cancelled meanwhile. Work may run again, and its exception undoes what it did.
        Raises StorageUnavailable, after which the write may still have happened, as after any lost answer.
        """
        return await self._writer.write(work, announce)

    async def read(self, work: Callable[[Statements], T], tenant: str = EVERYBODY) -> T:
        """Runs work on a snapshot of a tenant's rows, or of all. Raises StorageUnavailable."""
        return await self._readers.read(work, tenant)

    async def check(self) -> None:
        """Commits nothing but the writer's token. Raises StorageUnavailable."""
        await self._writer.write(_nothing)

    def keep_clock(self) -> DatabaseClock:
        """The clock, kept right as long as the database is open."""
        self._tasks.append(asyncio.create_task(self.clock.keep(), name="postgres-clock"))
        return self.clock

    def listen(self, channel: str, hear: Callable[[str], None], missed: Callable[[], None]) -> Listener:
        """Hears a channel as long as the database is open; `missed` says that some of it may have been lost."""
        listener = Listener(self._writer.server, channel, hear, missed)
        self._tasks.append(asyncio.create_task(listener.run(), name=f"postgres-listen-{channel}"))
        return listener

    async def _ask_time(self) -> float:
        rows = await self._readers.read(lambda statements: statements.fetch("SELECT extract(epoch FROM clock_timestamp())::float8"))
        return float(rows[0][0])

    async def _close(self) -> None:
        """Finishes what was taken on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._writer.close()
        await self._readers.close()


def _nothing(_: object) -> None:
    """Writes nothing."""
