"""Links between processes that can be cut, held in one direction or both, delayed and slowed: what a network does on a bad day.

And what it does on the worst: a link to PostgreSQL can be cut at the very moment of a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from chaos.dialogue import Dialogue

CHUNK = 1 << 16
HOST = "127.0.0.1"
ANSWER_SECONDS = 0.15
"""Within which a server carries out a commit whose answer is lost."""


@dataclass
class Snare:
    """Waits for the next commit of a kind: to lose it, or with `arrives` only its answer. `sprung` once it has, and the link was cut."""

    kind: str
    arrives: bool
    sprung: bool = False


class Link:
    """A port that leads to another port. What is held is not lost: like a real network, it arrives when the hold ends."""

    def __init__(self, name: str, target: int) -> None:
        self.name = name
        self.target = target
        self.snares: list[Snare] = []
        self.port = 0
        self.seconds_late = 0.0
        self.bytes_per_second = 0.0
        self.refuses = False
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._transports: set[asyncio.WriteTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.heal()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Link]:
        """Listens while the body runs."""
        server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Lets nothing through any more, from caller to callee, back, or both."""
        (self._up.clear if up else self._up.set)()
        (self._down.clear if down else self._down.set)()

    def cut(self) -> None:
        """Breaks all present connections off; new ones are welcome unless it `refuses`."""
        for transport in list(self._transports):
            transport.abort()

    def heal(self) -> None:
        """Nothing is wrong with it any more."""
        self.seconds_late = self.bytes_per_second = 0.0
        self.refuses = False
        self._up.set()
        self._down.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._transports.add(writer.transport)
        try:
            if not self.refuses:
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens there, or a side or the link itself went away: the peers learn it by the abort
        finally:
            writer.transport.abort()
            self._transports.discard(writer.transport)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        self._transports.add(far_writer.transport)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, self._up, Dialogue() if self.name.endswith(">postgres") else None)),
            asyncio.create_task(self._pump(far_reader, writer, self._down)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            self._transports.discard(far_writer.transport)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passable: asyncio.Event, dialogue: Dialogue | None = None
    ) -> None:
        while data := await reader.read(CHUNK):
            asked = dialogue.commits(data) if dialogue is not None else ""
            if asked and (snare := next((snare for snare in self.snares if snare.kind == asked), None)):
                await self._spring(snare, writer, data)
                return
            if self.seconds_late or self.bytes_per_second:
                await asyncio.sleep(self.seconds_late + (len(data) / self.bytes_per_second if self.bytes_per_second else 0))
            await passable.wait()
            writer.write(data)
            await writer.drain()

    async def _spring(self, snare: Snare, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.snares.remove(snare)
        if snare.arrives:
            self._down.clear()
            writer.write(data)
            await asyncio.sleep(ANSWER_SECONDS)
        snare.sprung = True  # before the cut, which ends this connection and whoever works on it
        self.cut()
        self._down.set()
