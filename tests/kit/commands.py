"""A suite that takes commands from Kafka, and short ways to send them and see what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import orchestrator.app
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as pb
from behest.run.v1.run_service_pb2_grpc import RunServiceStub
from behest.session.v1 import session_service_pb2 as session_pb
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from chassis.rpc import Call, LocalChannel, call_scope
from chassis.world import World
from kit.kafka import KafkaCluster
from suite.addresses import Service
from suite.composition import SuiteOptions
from suite.embedded import Suite, open_suite

Headers = list[tuple[str, bytes]]


def headers(kind: str, id_: str, tenant: str = "", **more: str) -> Headers:
    """The headers of a command."""
    own = {"ce_specversion": "1.0", "ce_id": id_, "ce_source": "/test", "ce_type": f"dev.behest.command.{kind}.v1", **more}
    own |= {"ce_tenant": tenant} if tenant else {}
    return [("content-type", b"application/protobuf"), *((name, text.encode()) for name, text in own.items())]


def start(text: str = "hello", **order: Any) -> pb.CreateRunRequest:
    """An order."""
    return pb.CreateRunRequest(input=[{"text": text}], **order)


@dataclass
class Commanded:
    """A suite, and the cluster that its commands come from."""

    suite: Suite
    kafka: KafkaCluster
    topic: str
    dead: str
    group: str

    @property
    def runs(self) -> RunServiceStub:
        """The first orchestrator."""
        return RunServiceStub(self.suite.channels[Service.ORCHESTRATOR])

    async def send(self, kind: str, request: Any, id_: str = "", *, key: str = "", tenant: str = "", **more: str) -> str:
        """Sends a command; its id."""
        id_ = id_ or uuid.uuid4().hex
        await self.kafka.send(self.topic, request.SerializeToString(), key.encode() or None, headers(kind, id_, tenant, **more))
        return id_

    async def new_session(self, tenant: str = "default", session_id: str = "") -> str:
        """A session that exists."""
        sessions = SessionServiceStub(self.suite.channels[Service.SESSION_STORE])
        with call_scope(Call(tenant=tenant)):
            return str((await sessions.CreateSession(session_pb.CreateSessionRequest(session_id=session_id))).session.id)

    async def all_runs(self, tenant: str = "default") -> list[run_pb2.Run]:
        """The tenant's runs, newest first."""
        with call_scope(Call(tenant=tenant)):
            return list((await self.runs.ListRuns(pb.ListRunsRequest(page_size=1000))).runs)

    async def runs_when(
        self, enough: Callable[[list[run_pb2.Run]], object], tenant: str = "default", seconds: float = 30
    ) -> list[run_pb2.Run]:
        """The runs as soon as they are enough."""
        found: list[run_pb2.Run] = []
        try:
            async with asyncio.timeout(seconds):
                while not enough(found := await self.all_runs(tenant)):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s there are {len(found)} runs, not enough: {found}") from None
        return found

    async def settled(self, count: int, seconds: float = 30) -> None:
        """Returns when the group has committed so many offsets of all partitions together."""
        committed: dict[int, int] = {}
        try:
            async with asyncio.timeout(seconds):
                while sum(max(0, offset) for offset in committed.values()) < count:
                    await asyncio.sleep(0.05)
                    committed = await self.kafka.committed(self.group, self.topic)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s the group has committed {committed}, not {count}") from None

    async def dead_letters(self, count: int = 1) -> list[Any]:
        """The dead letters, once there are so many."""
        return await self.kafka.records_when(self.dead, lambda records: len(records) >= count)

    @contextlib.asynccontextmanager
    async def another_orchestrator(self) -> AsyncIterator[LocalChannel]:
        """One more orchestrator in this process: the same neighbours, the same consumer group."""
        channels = self.suite.channels
        neighbours = orchestrator.app.Neighbours(
            channels[Service.SESSION_STORE], channels[Service.PROVIDER_GATEWAY], channels[Service.TOOL_EXECUTOR]
        )
        settings = self.suite.settings
        async with (
            orchestrator.app.open_app(settings.orchestrator, World(), neighbours, settings.kafka) as app,
            LocalChannel(app.methods) as channel,
        ):
            yield channel


async def command_topics(kafka: KafkaCluster, partitions: int) -> tuple[str, str]:
    """The topics of commands and of dead ones."""
    dead = await kafka.create_topic(kafka.topic("commands.dead"))
    return await kafka.create_topic(kafka.topic("commands"), partitions), dead


def configuration(
    kafka: KafkaCluster, group: str, script: dict[str, Any] | None = None, permissions: Sequence[dict[str, Any]] = (), **commands: Any
) -> dict[str, Any]:
    """Settings of a suite with a scripted model that takes commands."""
    topics = {"commands": {"name": kafka.topic("commands")}, "dead_commands": {"name": kafka.topic("commands.dead")}}
    topics["runs"] = {"name": kafka.topic("runs")}
    worker = {"instructions": "Work.", "tools": ["*"], "permissions": list(permissions)}
    provider = {"adapter": "scripted", **({"script": script} if script else {})}
    return {
        "log": {"level": "warning"},
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "topics": topics},
        "orchestrator": {"agents": {"worker": worker}, "commands": {"enabled": True, "group": group, **commands}},
        "provider_gateway": {"default_model": "scripted/m" if script else "scripted/echo", "providers": {"scripted": provider}},
        "tool_executor": {"database": "memory:"},
        "session_store": {"database": "memory:"},
    }


@contextlib.asynccontextmanager
async def open_commanded(kafka: KafkaCluster, folder: Path, *, partitions: int = 3, **commands: Any) -> AsyncIterator[Commanded]:
    """A suite in this process that takes commands."""
    topic, dead = await command_topics(kafka, partitions)
    await kafka.create_topic(kafka.topic("runs"))
    group = kafka.topic("orchestrators")
    path = folder / "behest.yaml"
    path.write_text(yaml.safe_dump(configuration(kafka, group, **commands)))
    async with open_suite(SuiteOptions(data=folder, config=path, local_model=False)) as suite:
        yield Commanded(suite, kafka, topic, dead, group)
