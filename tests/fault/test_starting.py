"""Services that are started before what they need is there: they wait, say so, and go on by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from behest.session.v1.session_service_pb2 import CreateSessionRequest
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from behest.tool.v1.tool_service_pb2 import ListToolsRequest
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis.faults import ServiceUnavailable, StorageUnavailable
from chassis.rpc import open_channel
from chassis.rpc.health import LIVENESS
from kit.ports import free_address, neighbouring_ports
from kit.postgres import PASSWORD, PostgresServer, private_server
from kit.postgres_cut import open_commit_cut
from session_store.adapters.postgres.storage import open_postgres_storage
from suite.processes import serves

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("services", "gen"))
pytestmark = [pytest.mark.feature("O6"), pytest.mark.timeout(120)]

CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "session_store": lambda channel: SessionServiceStub(channel).CreateSession(CreateSessionRequest(session_id="s")),
    "tool_executor": lambda channel: ToolServiceStub(channel).ListTools(ListToolsRequest()),
}


@dataclass
class Process:
    """A service as its own process, and what it has said so far."""

    address: str
    process: asyncio.subprocess.Process
    said: list[dict[str, Any]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen_to(self) -> None:
        """Keeps its lines, to their end."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.words.append(line.decode())
            with contextlib.suppress(ValueError):
                self.said.append(json.loads(line))
            self._more.set()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of a kind."""
        return [line for line in self.said if line.get("event") == event]

    async def until_said(self, event: str) -> dict[str, Any]:
        """The first line of a kind, once it is there."""
        while not self.lines(event):
            self._more.clear()
            await self._more.wait()
        return self.lines(event)[0]

    async def until_heard(self, words: str) -> None:
        """Returns once a line holds these words."""
        while not any(words in line for line in self.words):
            self._more.clear()
            await self._more.wait()

    async def health(self, service: str = "") -> int:
        """What a probe hears; 0 where there is no answer."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
            except grpc.aio.AioRpcError:
                return 0
        return int(answer.status)

    async def end(self) -> int:
        """SIGTERM, and the status it ends with."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)


def started(folder: Path, section: str, **sections: Any) -> contextlib.AbstractAsyncContextManager[Process]:
    """A service that was started, whether it serves or not."""
    address = free_address()
    config = folder / f"{section}.yaml"
    given = {**sections, section: {"listen": address, **sections.get(section, {})}, "log": {"format": "json"}}
    config.write_text(yaml.safe_dump(given))
    return spawned(address, "-m", section, "--config", str(config))


@contextlib.asynccontextmanager
async def spawned(address: str, *arguments: str) -> AsyncIterator[Process]:
    """A program that was started."""
    command = (sys.executable, *arguments)
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": PATHS}, stderr=asyncio.subprocess.PIPE)
    own = Process(address, process)
    hearing = asyncio.create_task(own.listen_to())
    try:
        yield own
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await hearing


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with private_server() as own:
        yield own


@pytest.mark.parametrize("section", CALLS)
@pytest.mark.parametrize("carrier", ["grpc", "mux"])
async def test_a_service_that_is_started_before_its_database_serves_as_soon_as_the_database_does(
    section: str, carrier: str, server: PostgresServer, tmp_path: Path
) -> None:
    url = await server.database(section)
    server.stop()
    async with started(tmp_path, section, **{section: {"database": url}}) as service:
        waits = await service.until_said("waiting to start")
        assert waits["reason"] == "STORAGE_UNAVAILABLE" and "is the server up" in waits["problem"]
        assert f"127.0.0.1:{server.port}/behest" in waits["problem"] and PASSWORD not in "".join(service.words)
        assert await service.health(LIVENESS) == health_pb2.HealthCheckResponse.SERVING
        assert await service.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        async with open_channel(service.address, carrier) as channel:  # type: ignore[arg-type]
            with pytest.raises((ServiceUnavailable, StorageUnavailable)):
                await CALLS[section](channel)
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(serves(service.address), 30)
            await asyncio.wait_for(answered(section, channel), 30)
        causes = [line["problem"] for line in service.lines("waiting to start")]
        assert len(causes) == len(set(causes)), "the same cause was said twice within half a minute"
        assert await service.end() == 0


async def answered(section: str, channel: Any) -> None:
    """Returns once a call is answered, as every caller tries again: a stream that was refused is not made anew at once."""
    while True:
        with contextlib.suppress(ServiceUnavailable, StorageUnavailable):
            await CALLS[section](channel)
            return
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("section", CALLS)
async def test_a_plain_caller_of_a_service_that_waits_hears_what_it_waits_for(section: str, tmp_path: Path) -> None:
    nowhere = f"postgresql://behest:{PASSWORD}@{free_address()}/behest"
    async with started(tmp_path, section, **{section: {"database": nowhere}}) as service:
        await service.until_said("waiting to start")
        async with open_channel(service.address, "grpc") as channel:
            with pytest.raises(StorageUnavailable, match="is the server up") as refused:
                await CALLS[section](channel)
        assert refused.value.service == section.replace("_", "-") and refused.value.retry_after == 1.0


@pytest.mark.parametrize("section", CALLS)
async def test_a_service_that_waits_ends_in_order_when_it_is_told_to(section: str, tmp_path: Path) -> None:
    nowhere = f"postgresql://behest:{PASSWORD}@{free_address()}/behest"
    async with started(tmp_path, section, **{section: {"database": nowhere}}) as service:
        await service.until_said("waiting to start")
        assert await service.end() == 0
    assert not service.lines("listening")


@pytest.mark.parametrize("section", CALLS)
async def test_a_service_does_not_hang_on_a_server_that_takes_connections_and_never_answers(
    section: str, server: PostgresServer, tmp_path: Path
) -> None:
    url = await server.database(section)
    server.pause()
    try:
        async with started(tmp_path, section, **{section: {"database": url}}) as service:
            await service.until_said("waiting to start")
            assert await service.end() == 0
    finally:
        server.proceed()


@pytest.mark.parametrize("section", CALLS)
async def test_what_waiting_does_not_mend_ends_the_start_with_its_remedy(section: str, server: PostgresServer, tmp_path: Path) -> None:
    empty = await server.database()
    wrong = {
        "`behest migrate`": empty,
        "refuses the user or the password": empty.replace(PASSWORD, f"not-{PASSWORD}"),
        "no such database": f"{empty}x",
    }
    for remedy, url in wrong.items():
        async with started(tmp_path, section, **{section: {"database": url}}) as service:
            assert await asyncio.wait_for(service.process.wait(), 30) == 1
        assert remedy in "".join(service.words) and not service.lines("waiting to start")


@pytest.mark.parametrize(
    "mark", [b"to_regclass", b"UPDATE session_store_writers", b"INSERT INTO session_store_writers", b"clock_timestamp"]
)
async def test_a_connection_that_is_cut_while_a_store_starts_is_one_that_passes(server: PostgresServer, mark: bytes) -> None:
    url = await server.database("session_store")
    async with open_commit_cut(url) as cut:
        cut.cut("before", then_refuse=True, mark=mark)
        with pytest.raises(StorageUnavailable) as refused:
            async with open_postgres_storage(lambda: cut.url(url)):
                raise AssertionError("it is open")
        assert cut.cuts == 1 and refused.value.retry_after is not None


async def test_a_service_that_waits_wants_its_address_for_itself(tmp_path: Path) -> None:
    nowhere = f"postgresql://behest:{PASSWORD}@{free_address()}/behest"
    async with started(tmp_path, "session_store", session_store={"database": nowhere}) as first:
        await first.until_said("waiting to start")
        settings = {"database": nowhere, "listen": first.address}
        async with started(tmp_path, "session_store", session_store=settings) as second:
            assert await asyncio.wait_for(second.process.wait(), 30) == 2
        assert "cannot listen" in "".join(second.words)


async def test_an_orchestrator_that_is_started_before_its_store_is_ready_as_soon_as_the_store_is(tmp_path: Path) -> None:
    store = free_address()
    neighbours = {"session_store": {"target": store}}
    async with started(tmp_path, "orchestrator", orchestrator={"neighbours": neighbours}) as orchestrator:
        waits = await orchestrator.until_said("not ready")
        assert "session-store cannot be reached" in waits["reason"]
        assert await orchestrator.health(LIVENESS) == health_pb2.HealthCheckResponse.SERVING
        assert await orchestrator.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        settings = {"listen": store, "database": "memory:"}
        async with started(tmp_path, "session_store", session_store=settings):
            await asyncio.wait_for(serves(orchestrator.address), 30)
            assert await orchestrator.end() == 0


@pytest.mark.parametrize("section", ["session_store", "tool_executor", "provider_gateway"])
async def test_kafka_that_is_away_keeps_nobody_from_serving(section: str, tmp_path: Path) -> None:
    own = {} if section == "provider_gateway" else {section: {"database": "memory:"}}
    async with started(tmp_path, section, kafka={"bootstrap_servers": free_address()}, **own) as service:
        await asyncio.wait_for(serves(service.address), 30)
        assert await service.end() == 0


@pytest.mark.parametrize("arguments", [(), ("--processes",)])
async def test_a_suite_waits_for_its_database_and_ends_when_it_is_told_to(
    arguments: tuple[str, ...], server: PostgresServer, tmp_path: Path
) -> None:
    url = await server.database("session_store")
    server.stop()
    base = neighbouring_ports()
    config = tmp_path / "behest.yaml"
    config.write_text(yaml.safe_dump({"session_store": {"database": url}, "log": {"format": "json"}}))
    options = ("--port-base", str(base), "--config", str(config), "--data", str(tmp_path), "--no-local-model", *arguments)
    for comes_up in (False, True):
        async with spawned(f"127.0.0.1:{base}", "-m", "suite", "up", *options) as suite:
            await suite.until_heard("waiting to start")
            if comes_up:
                await asyncio.to_thread(server.start)
                await asyncio.wait_for(serves(suite.address), 60)
            assert await suite.end() == 0, "".join(suite.words)
