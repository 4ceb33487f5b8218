"""A service to run as a process: `python rpc_service.py [--config FILE]`, settings under session_store. Its GetRun can be slow."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from pydantic import BaseModel, ConfigDict

from behest.session.v1.journal_service_pb2 import GetRunRequest, GetRunResponse
from chassis.faults import StorageUnavailable
from chassis.rpc import App, main
from chassis.world import World
from kit.rpc import Probe, probe_app


class ProbeSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    listen: str = "127.0.0.1:0"
    trouble: str = ""


@contextlib.asynccontextmanager
async def open_app(settings: ProbeSettings, world: World, kafka: object) -> AsyncIterator[App]:
    if settings.trouble == "fault":
        raise StorageUnavailable("the disk is full; make room")
    if settings.trouble == "defect":
        raise ValueError("hunter2")
    drained = asyncio.Event()

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        if request.run_id == "slow":
            print("entered", flush=True)
            await drained.wait()
        return GetRunResponse()

    async def drain() -> None:
        print("draining", flush=True)
        if settings.trouble == "stuck":
            await asyncio.Event().wait()
        drained.set()

    yield probe_app(Probe(get_run), drain=drain)
    print("closed", flush=True)


if __name__ == "__main__":
    sys.exit(main("session_store", ProbeSettings, open_app))
