"""The supervisor: what dies is started again, what is told to stop stops."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import pytest

from chassis.faults import ServiceUnavailable, SettingsInvalid
from kit.ports import free_address
from suite.addresses import Service
from suite.processes import Child

# A stand-in for a service: a server that only knows health.
SERVER = """
import asyncio, os, signal, sys
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
async def main():
    server, stop = grpc.aio.server(), asyncio.Event()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    server.add_insecure_port(sys.argv[1])
    await server.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("pid", os.getpid(), flush=True)
    await stop.wait()
    print("drained", flush=True)
    await server.stop(0)
asyncio.run(main())
"""


class Lines(list[str]):
    """The log so far, and a way to wait for a line."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, line: str) -> None:
        self.append(line)
        self._more.set()

    async def until(self, wanted: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(20):
            while not wanted(self):
                self._more.clear()
                await self._more.wait()


def child_of(program: str, lines: Lines) -> Child:
    address = free_address()
    return Child(Service.SESSION_STORE, address, [sys.executable, "-c", program, address], os.environ, lines)


@pytest.mark.feature("R12")
async def test_a_killed_child_is_started_again_and_a_stopped_one_is_not() -> None:
    lines = Lines()
    child = child_of(SERVER, lines)
    await child.start()
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(child.keep_running())
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await lines.until(lambda seen: len([line for line in seen if " pid " in line]) == 2)
        assert child.restarts == 1 and child.pid != first
        await child.stop()
        await keeping
    assert child.pid == 0 and lines[-1] == "[session-store] drained"


async def test_every_line_of_a_child_carries_its_name() -> None:
    lines = Lines()
    child = child_of(SERVER, lines)
    await child.start()
    await child.stop()
    assert lines and all(line.startswith("[session-store] ") for line in lines)


async def test_wrong_settings_at_the_start_are_told_apart_from_a_crash() -> None:
    with pytest.raises(SettingsInvalid, match="session-store did not start"):
        await child_of("raise SystemExit(2)", Lines()).start()
    with pytest.raises(ServiceUnavailable, match="ended with status 3 before it was ready"):
        await child_of("raise SystemExit(3)", Lines()).start()


async def test_a_line_longer_than_the_buffer_does_not_silence_the_rest() -> None:
    lines = Lines()
    child = child_of("print('x' * 200_000); print('after', flush=True); raise SystemExit(3)", lines)
    with pytest.raises(ServiceUnavailable):
        await child.start()
    await lines.until(lambda seen: "[session-store] after" in seen)
