"""The least that a proxy in Python can do: pass the bytes of each connection on, both ways, and look at none of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast
from urllib.parse import urlsplit


class _Side(asyncio.Protocol):
    """One side of a connection; what comes goes to the other side."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()

    def joined(self, other: asyncio.Transport) -> None:
        """The other side is there."""
        self.other = other
        for data in self._early:
            other.write(data)
        self._early.clear()


@contextlib.asynccontextmanager
async def serve_bare_proxy(upstream: str) -> AsyncIterator[str]:
    """The address of a proxy in front of the upstream."""
    loop, address = asyncio.get_running_loop(), urlsplit(upstream)
    joining = set[asyncio.Task[None]]()

    async def join(client: _Side) -> None:
        _, server = await loop.create_connection(_Side, address.hostname, address.port)
        assert client.transport is not None and server.transport is not None
        server.joined(client.transport)
        client.joined(server.transport)

    class _Client(_Side):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(join(self))
            joining.add(task)
            task.add_done_callback(joining.discard)

    server = await loop.create_server(_Client, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
