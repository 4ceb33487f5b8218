"""A way to a PostgreSQL server that breaks off in the middle of a commit, before the server gets it or after it has carried it out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # as the simple protocol sends it
READY = b"Z\x00\x00\x00\x05"

Moment = Literal["before", "after"]


class CommitCut:
    """A port that leads to a server. `cut` arms it for the next commit; with `refuses` nothing gets through any more."""

    def __init__(self, server: str) -> None:
        self._host, self._port = urlsplit(server).hostname, urlsplit(server).port
        self.port = 0
        self.cuts = 0
        self.refuses = False
        self._armed: tuple[Moment, bool, bytes] | None = None
        self._links: set[asyncio.Task[None]] = set()

    def url(self, server: str) -> str:
        """The server's URL by way of this port."""
        parts = urlsplit(server)
        userinfo = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{userinfo}@127.0.0.1:{self.port}"))

    def cut(self, moment: Moment, then_refuse: bool = False, mark: bytes = COMMIT) -> None:
        """Breaks the next connection that commits off: before the server gets to know, or after it is done and before its answer.

        With another mark it is the next one that sends those bytes: for statements that commit by themselves.
        """
        self._armed = (moment, then_refuse, mark)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            if not self.refuses:
                await self._relay(reader, writer)
        finally:
            self._links.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there_reader, there = await asyncio.open_connection(self._host, self._port)
            answering = asyncio.create_task(_copy(there_reader, writer))
            try:
                while data := await reader.read(1 << 16):
                    if self._armed is not None and self._armed[2] in data:
                        answering.cancel()
                        await asyncio.wait([answering])
                        return await self._break(data, there_reader, there)
                    there.write(data)
            finally:
                answering.cancel()
                there.close()

    async def _break(self, data: bytes, there_reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        assert self._armed is not None
        (moment, self.refuses, _), self._armed = self._armed, None
        if moment == "after":
            there.write(data)
            answer = b""
            while READY not in answer:
                answer += await there_reader.read(1 << 16)
        self.cuts += 1

    async def end(self) -> None:
        """Breaks everything off."""
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def open_commit_cut(server: str) -> AsyncIterator[CommitCut]:
    """A way to the server of a URL, open while the body runs."""
    cut = CommitCut(server)
    listening = await asyncio.start_server(cut.serve, "127.0.0.1", 0)
    cut.port = listening.sockets[0].getsockname()[1]
    try:
        yield cut
    finally:
        listening.close()
        await cut.end()
