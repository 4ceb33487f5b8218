"""Hearing what other processes notify. A hint and nothing more: what was said while the connection was away is lost."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from chassis.postgres.connecting import Server, close_quietly
from chassis.postgres_access import Connection

PROBE_SECONDS = 5.0
AGAIN_SECONDS = 0.5
GREETING = ""
LOCK_SPACE = 0x6268_6C73  # keeps our advisory locks apart from other programs'

# Who listens holds a lock that all may share, so everybody can count the listeners.
_HOLD = "SELECT pg_advisory_lock_shared($1, $2)"
_COUNT = """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1 AND objid::bigint = $2 AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@dataclass(slots=True)
class Listener:
    """Hears a channel: `hear` gets each payload, `missed` is called when some may have been lost. `run` keeps it up for ever.

    `others` says whether anybody else may listen: if not, who notifies on the channel can save itself the trouble.
    """

    server: Server
    channel: str
    hear: Callable[[str], None]
    missed: Callable[[], None]
    others: bool = True

    async def run(self) -> None:
        """Listens, and connects again when it is cut."""
        while True:
            await self._listen_until_cut()
            self.others = True
            self.missed()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen_until_cut(self) -> None:
        connection: Connection | None = None
        try:
            connection = await self.server.connect("listener")
            await self._listen(connection)
            self.missed()
            await self._attend(connection)
        except Exception as error:  # noqa: BLE001 — it is tried again, and whoever listens was told that it may have missed something
            structlog.get_logger().debug("listening was cut", channel=self.channel, problem=str(error))
        finally:
            close_quietly(connection)

    async def _listen(self, connection: Connection) -> None:
        """Listens, then makes itself known: whoever thought to be alone learns better."""
        await connection.fetch(_HOLD, LOCK_SPACE, self._lock)
        await connection.add_listener(self.channel, lambda _, __, ___, payload: self._heard(str(payload)))
        await connection.fetch("SELECT pg_notify($1, $2)", self.channel, GREETING)

    async def _attend(self, connection: Connection) -> None:
        """Counts the listeners now and then, which also finds a connection that has died in silence."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        while not ended.is_set():
            self.others = int(await connection.fetchval(_COUNT, LOCK_SPACE, self._lock)) > 1
            try:
                await asyncio.wait_for(ended.wait(), PROBE_SECONDS)
            except TimeoutError:
                continue

    def _heard(self, payload: str) -> None:
        if payload == GREETING:
            self.others = True
        else:
            self.hear(payload)

    @property
    def _lock(self) -> int:
        return zlib.crc32(self.channel.encode()) & 0x7FFF_FFFF
