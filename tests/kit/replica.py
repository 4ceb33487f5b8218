"""One of several processes behind a target, for tests that stop, kill and add them: it answers every call with its own port.

`python -m kit.replica PORT` says `serving` when it serves and ends in order on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from behest.session.v1.journal_service_pb2 import DriveRequest, DriveResponse, FollowRequest, FollowResponse, GetRunRequest, GetRunResponse
from chassis.rpc import open_server
from chassis.rpc.serve import ServerOptions, run, stop_on_signals
from kit.ports import free_ports
from kit.rpc import Probe, probe_app

BUSY_SECONDS = 4.0
TESTS = Path(__file__).parent.parent


@dataclass
class Replicas:
    """Processes by port, behind one target."""

    ports: list[int]
    processes: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    async def start(self, port: int) -> None:
        """Starts a replica and waits until it serves."""
        path = os.pathsep.join(str(TESTS.parent / name) for name in ("services", "gen", "tests"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kit.replica", str(port), env=os.environ | {"PYTHONPATH": path}, stdout=asyncio.subprocess.PIPE
        )
        self.processes[port] = process
        assert process.stdout is not None
        while b"serving" not in (line := await process.stdout.readline()):
            assert line, f"replica {port} did not start"

    async def end(self, port: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal that ends it, and waits for the end."""
        process = self.processes.pop(port)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        await process.wait()

    def freeze(self, port: int) -> None:
        self.processes[port].send_signal(signal.SIGSTOP)

    def thaw(self, port: int) -> None:
        self.processes[port].send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def open_replicas(count: int, started: int | None = None) -> AsyncIterator[Replicas]:
    """So many addresses, and processes at the first of them; whatever lives at the end is killed."""
    replicas = Replicas(free_ports(count))
    try:
        await asyncio.gather(*map(replicas.start, replicas.ports[:started]))
        yield replicas
    finally:
        await asyncio.gather(*map(replicas.end, list(replicas.processes)))


class Named:
    """Handlers that say which replica they are."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def get_run(self, request: GetRunRequest) -> GetRunResponse:
        if request.run_id == "busy":
            time.sleep(BUSY_SECONDS)
        response = GetRunResponse()
        response.run.id = self.name
        return response

    async def follow(self, request: FollowRequest) -> AsyncIterator[FollowResponse]:
        response = FollowResponse()
        response.events.add(run_id=self.name)
        yield response
        await asyncio.Event().wait()

    async def drive(self, requests: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        async for request in requests:
            yield DriveResponse(lease_ms=int(self.name) + 0 * request.room)


async def main(port: str) -> None:
    named = Named(port)
    app = probe_app(Probe(named.get_run, named.follow, named.drive))
    with stop_on_signals() as stop:
        async with open_server(app, f"127.0.0.1:{port}", ServerOptions(grace=0.5)):
            os.write(1, b"serving\n")
            await stop.wait()


if __name__ == "__main__":
    run(main(sys.argv[1]))
