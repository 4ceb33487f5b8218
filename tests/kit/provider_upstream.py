"""A provider's HTTP server as a test wants it: real sockets, answers written byte by byte, requests kept, goodbyes noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """One request, and whether the gateway has hung up on it."""

    path: str
    headers: dict[str, str]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


Reply = Callable[["Conversation"], Awaitable[None]]


@dataclass
class Conversation:
    """One request being answered."""

    received: Received
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Writes bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, **headers: str) -> None:
        """Writes a status line and headers of a body that ends with the connection."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.send(f"HTTP/1.1 {status} X\r\nconnection: close\r\n{lines}\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        """Writes one chunk of a chunked body."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))


class Upstream:
    """Answers the n-th request with the n-th reply, the last one again and again."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.received: list[Received] = []
        self.arrived = asyncio.Event()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request after another."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        received = await _request(reader)
        number = len(self.received)
        self.received.append(received)
        self.arrived.set()
        conversation = Conversation(received, writer)
        goodbye = asyncio.create_task(_watch(reader, received))
        try:
            await self.replies[min(number, len(self.replies) - 1)](conversation)
        except asyncio.CancelledError:
            return False
        finally:
            goodbye.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await goodbye
        return False

    async def close(self) -> None:
        """Drops all connections."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split()[1], headers, body)


async def _watch(reader: asyncio.StreamReader, received: Received) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read(1)
        received.gone.set()


@contextlib.asynccontextmanager
async def open_upstream(*replies: Reply) -> AsyncIterator[Upstream]:
    """A listening upstream."""
    upstream = Upstream(*replies)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await upstream.close()


def whole(document: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    async def reply(conversation: Conversation) -> None:
        await conversation.head(status, content_type="application/json", content_length=str(len(body)), **headers)
        await conversation.send(body)

    return reply


EVENTS = "text/event-stream"


def stream(*pieces: bytes, gap: float = 0.0, end: bool = True, content_type: str = EVENTS) -> Reply:
    """A chunked event stream; without end the connection breaks within it."""

    async def reply(conversation: Conversation) -> None:
        await conversation.head(200, content_type=content_type, transfer_encoding="chunked")
        for piece in pieces:
            await conversation.chunk(piece)
            await asyncio.sleep(gap)
        if end:
            await conversation.send(b"0\r\n\r\n")

    return reply


def in_two(first: bytes, gate: asyncio.Event, rest: bytes, end: bool = True) -> Reply:
    """A chunked event stream that goes on when the gate opens; without end the connection breaks afterwards."""

    async def reply(conversation: Conversation) -> None:
        await conversation.head(200, content_type="text/event-stream", transfer_encoding="chunked")
        await conversation.chunk(first)
        await gate.wait()
        if rest:
            await conversation.chunk(rest)
        if end:
            await conversation.send(b"0\r\n\r\n")

    return reply


def silence(*pieces: bytes, content_type: str = EVENTS) -> Reply:
    """A stream that gives these pieces and then nothing, until the gateway hangs up; without pieces not even a status."""

    async def reply(conversation: Conversation) -> None:
        if pieces:
            await conversation.head(200, content_type=content_type, transfer_encoding="chunked")
        for piece in pieces:
            await conversation.chunk(piece)
        await conversation.received.gone.wait()

    return reply


def raw_reply(data: bytes) -> Reply:
    """Bytes that need not be HTTP."""

    async def reply(conversation: Conversation) -> None:
        await conversation.send(data)

    return reply
