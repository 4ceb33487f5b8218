"""The least that a gateway in Python can do with httpx as it comes: read the upstream's lines and hand them on, in process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator

import httpx
from tests.bench.contenders.sse import model_name
from tests.bench.meters import Meter
from tests.bench.worker import Sample


class HttpxRelay:
    """Streams read line by line; nothing is decoded and nothing is served."""

    def __init__(self, client: httpx.AsyncClient, upstream: str) -> None:
        self._client = client
        self._url = f"{upstream}/chat/completions"

    async def measure(self, streams: int, chunks: int, gap: int) -> Sample:
        """CPU for each chunk, and how long the first one took, with so many streams at once."""
        meter = Meter([os.getpid()])
        firsts = await asyncio.gather(*(self._read(chunks, gap) for _ in range(streams)))
        cpu = meter.spent().cpu
        return {"cpu": cpu / (streams * chunks), "stream": cpu / streams, "first": statistics.median(firsts)}

    async def _read(self, chunks: int, gap: int) -> float:
        body = {"model": model_name(chunks, gap), "stream": True, "messages": [{"role": "user", "content": "Say something long."}]}
        began, first, seen = time.perf_counter(), 0.0, 0
        async with self._client.stream("POST", self._url, json=body) as response:
            async for line in response.aiter_lines():
                first = first or time.perf_counter() - began
                seen += line.startswith("data: {")
        assert seen == chunks + 2, (seen, chunks)
        return first


@contextlib.asynccontextmanager
async def open_relay(upstream: str) -> AsyncIterator[HttpxRelay]:
    """A relay with httpx's own transport, and as many connections as it likes."""
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60.0) as client:
        yield HttpxRelay(client, upstream)
