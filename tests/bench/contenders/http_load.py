"""A client of whatever serves OpenAI's Chat Completions over HTTP: lean, so that the machine is the servers'."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

from tests.bench.contenders.load import Load, called, streamed
from tests.bench.contenders.sse import model_name
from tests.bench.worker import Sample

_PIECE = re.compile(rb'" [a-z]{5}"')


class _Exchange(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.first and b"data:" in data:
            self.first = time.perf_counter()
        self._received += data
        if self._waiting is not None and self._is_whole() and not self._waiting.done():
            self._waiting.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> bytes:
        """The whole response."""
        self._received.clear()
        self.first, self._waiting = 0.0, self._loop.create_future()
        self.transport.write(request)  # type: ignore[attr-defined] # uvloop's is no asyncio.Transport by name
        await self._waiting
        return bytes(self._received)

    def _is_whole(self) -> bool:
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return False
        _, found, length = head.lower().partition(b"content-length:")
        return len(body) >= int(length.split(b"\r\n")[0]) if found else body.endswith(b"0\r\n\r\n")


class HttpLoad:
    """Load on one server. Its CPU is counted by its process id."""

    def __init__(self, url: str, headers: Mapping[str, str], pid: int) -> None:
        there = urlsplit(url)
        self._host, self._port, self._path = there.hostname, there.port, f"{there.path}/chat/completions"
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"POST {self._path} HTTP/1.1\r\nhost: {there.netloc}\r\ncontent-type: application/json\r\n{more}content-length: "
        self._pid = pid
        self._idle: list[_Exchange] = []

    async def measure(self, **load: int) -> Sample:
        """See tests/bench/contenders/load.py."""
        return await (called if "clients" in load else streamed)(Load(self._pid, self._stream, self._call), **load)

    async def _stream(self, chunks: int, gap: int) -> float:
        async with self._exchange() as exchange:
            began = time.perf_counter()
            answer = await exchange.ask(self._request(model_name(chunks, gap), stream=True))
            assert len(_PIECE.findall(answer)) == chunks, answer[:2000]
            return exchange.first - began

    async def _call(self) -> None:
        async with self._exchange() as exchange:
            answer = await exchange.ask(self._request(model_name(1, 0), stream=False))
            assert _PIECE.search(answer), answer[:2000]

    def _request(self, model: str, *, stream: bool) -> bytes:
        body = {"model": model, "messages": [{"role": "user", "content": "Say something long."}]} | ({"stream": True} if stream else {})
        encoded = json.dumps(body).encode()
        return f"{self._head}{len(encoded)}\r\n\r\n".encode() + encoded

    @contextlib.asynccontextmanager
    async def _exchange(self) -> AsyncIterator[_Exchange]:
        self._idle = [exchange for exchange in self._idle if not exchange.transport.is_closing()]
        if not self._idle:
            _, made = await asyncio.get_running_loop().create_connection(_Exchange, self._host, self._port)
            self._idle.append(made)
        exchange = self._idle.pop()
        yield exchange
        self._idle.append(exchange)


@contextlib.asynccontextmanager
async def open_http_load(url: str, headers: Mapping[str, str], pid: int) -> AsyncIterator[HttpLoad]:
    """Load on the server at url."""
    yield HttpLoad(url, headers, pid)
