"""The three carriers, with a handler that does nothing: what remains is the cost of the call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tests.bench.meters import Meter
from tests.bench.serving import open_server_process
from tests.bench.worker import Sample

from behest.session.v1.journal_service_pb2 import GetRunRequest, GetRunResponse
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from chassis.rpc import LocalChannel, open_channel, open_server
from kit.rpc import Probe, probe_app


async def _nothing(_: GetRunRequest) -> GetRunResponse:
    return GetRunResponse()


@contextlib.asynccontextmanager
async def serve_probe() -> AsyncIterator[str]:
    """The address of a service that does nothing."""
    async with open_server(probe_app(Probe(get_run=_nothing)), "127.0.0.1:0") as server:
        yield server.address


class Caller:
    """Unary calls. `pids` are both sides' processes."""

    def __init__(self, channel: Any, pids: tuple[int, ...]) -> None:
        self._stub = JournalServiceStub(channel)
        self._pids = pids

    async def measure(self, callers: int, calls: int) -> Sample:
        """CPU of both sides for each call, and the median wait, with so many callers at once."""
        meter, waits = Meter(self._pids), list[float]()
        left = iter(range(calls))
        await asyncio.gather(*(self._call(left, waits) for _ in range(callers)))
        spent = meter.spent()
        return {"cpu": spent.cpu / calls, "rate": calls / spent.wall, "p50": statistics.median(waits)}

    async def _call(self, left: Iterator[int], waits: list[float]) -> None:
        request, get_run = GetRunRequest(run_id="run"), self._stub.GetRun
        for _ in left:
            began = time.perf_counter()
            await get_run(request, timeout=30.0)
            waits.append(time.perf_counter() - began)


@contextlib.asynccontextmanager
async def open_caller(carrier: str) -> AsyncIterator[Caller]:
    """A caller by that carrier: grpc and mux reach another process, local reaches this one."""
    if carrier == "local":
        async with LocalChannel(probe_app(Probe(get_run=_nothing)).methods) as channel:
            yield Caller(channel, (os.getpid(),))
        return
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server_process("tests.bench.contenders.carriers:serve_probe"))
        channel = await stack.enter_async_context(open_channel(server.address, carrier))  # type: ignore[arg-type] # one of the two
        yield Caller(channel, (os.getpid(), server.pid))
