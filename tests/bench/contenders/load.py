"""What is asked of every gateway, whatever protocol its callers speak."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.meters import Meter, resident_bytes
from tests.bench.worker import Sample


@dataclass(frozen=True, slots=True)
class Load:
    """A server's process, and how to ask it: a stream gives the seconds until its first chunk."""

    pid: int
    stream: Callable[[int, int], Awaitable[float]]
    call: Callable[[], Awaitable[None]]


async def streamed(load: Load, streams: int, chunks: int, gap: int) -> Sample:
    """CPU of the server for each chunk, and the wait for the first one, with so many streams at once; gap in milliseconds."""
    meter, client = Meter([load.pid]), Meter([os.getpid()])
    firsts = await asyncio.gather(*(load.stream(chunks, gap) for _ in range(streams)))
    count = streams * chunks
    cpu = meter.spent().cpu
    return {"cpu": cpu / count, "client": client.spent().cpu / count, "stream": cpu / streams, "first": statistics.median(firsts)}


async def called(load: Load, clients: int, calls: int) -> Sample:
    """Latency of unary calls in seconds, calls for each second of the server's CPU, and its memory, with so many clients at once."""
    took = list[float]()

    async def client() -> None:
        for _ in range(calls):
            began = time.perf_counter()
            await load.call()
            took.append(time.perf_counter() - began)

    meter = Meter([load.pid])
    await asyncio.gather(*(client() for _ in range(clients)))
    spent = meter.spent()
    cuts = statistics.quantiles(took, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "rate": len(took) / spent.cpu, "memory": resident_bytes(load.pid)}
