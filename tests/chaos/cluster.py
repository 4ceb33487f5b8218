"""A suite of several replicas with a link on every way between two processes, as the harness runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from chaos import programs
from chaos.faults import waypoints_for
from chaos.processes import ROOT, Service
from chaos.proxy import HOST, Link
from chaos.servers import Kafka, Server, open_kafka_behind, open_postgres, postgres_url
from kit.ports import free_ports
from kit.postgres import PostgresServer

NEIGHBOURS = ("session_store", "provider_gateway", "tool_executor")
SECTIONS = (*NEIGHBOURS, "orchestrator")
START_SECONDS = 60.0
GROUP = "chaos"
"""The consumer group that carries out commands."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is run: how many replicas of each service, on which database, with Kafka or without."""

    replicas: int = 1
    backend: str = "sqlite"
    kafka: bool = False
    carrier: str = "mux"

    def __str__(self) -> str:
        return f"{self.backend}, {self.replicas} of each service, {'Kafka' if self.kafka else 'no Kafka'}"


@dataclass
class Cluster:
    """The processes and the links, by name."""

    folder: Path
    shape: Shape
    services: dict[str, Service] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    postgres: PostgresServer | None = None
    kafka: Kafka | None = None

    @property
    def invocations(self) -> Path:
        """The file in which tools count their effects."""
        return self.folder / "invocations.jsonl"

    def ways(self, caller: str, section: str) -> list[Link]:
        """The links of a caller to all replicas of a service."""
        return [link for name, link in self.links.items() if name.startswith(f"{caller}>{section}-")]

    def direct(self, section: str) -> list[str]:
        """The addresses of a service's replicas, past all links."""
        return [f"{HOST}:{service.port}" for service in self.services.values() if service.section == section]

    async def serving(self) -> None:
        """Returns when every service has served, at least for a moment."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*(service.serves() for service in self.services.values()))
        except TimeoutError:
            words = "\n".join(service.log.read_text()[-1000:] for service in self.services.values())
            raise RuntimeError(f"the suite did not start within {START_SECONDS:g} s:\n{words}") from None

    def heal(self) -> None:
        """Heals all links and wakes everybody."""
        for link in self.links.values():
            link.heal()
        for service in self.services.values():
            service.wake()


@contextlib.asynccontextmanager
async def open_cluster(folder: Path, shape: Shape, seed: int, tell: Callable[[str], None]) -> AsyncIterator[Cluster]:
    """The suite, not started yet; whatever lives at the end is killed."""
    cluster = Cluster(folder, shape)
    async with contextlib.AsyncExitStack() as stack:
        names = [f"{section}-{number}" for section in SECTIONS for number in range(shape.replicas)]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        for caller, callee in _ways(list(ports)):
            link = await stack.enter_async_context(Link(f"{caller}>{callee}", ports[callee]).opened())
            cluster.links[link.name] = link
        await _open_servers(cluster, list(ports), stack)
        script = programs.script(Random(f"{seed}/script"))
        for name, port in ports.items():
            cluster.services[name] = _service(cluster, name, port, script, seed, tell)
            stack.push_async_callback(cluster.services[name].end)
        yield cluster


async def _open_servers(cluster: Cluster, names: Sequence[str], stack: contextlib.AsyncExitStack) -> None:
    """The database and Kafka, where the shape has them, and the ways to them."""
    if cluster.shape.backend == "postgres":
        server, cluster.postgres = await stack.enter_async_context(open_postgres())
        cluster.servers[server.name] = server
        for name in (name for name in names if name.startswith(("session_store-", "tool_executor-"))):
            link = await stack.enter_async_context(Link(f"{name}>postgres", cluster.postgres.port).opened())
            cluster.links[link.name] = link
    if cluster.shape.kafka:
        link = await stack.enter_async_context(Link("all>kafka-0", 0).opened())
        cluster.links[link.name] = link
        cluster.kafka = await stack.enter_async_context(open_kafka_behind(cluster.folder / "kafka", [link]))
        cluster.servers |= {server.name: server for server in cluster.kafka.servers}


def _ways(names: Sequence[str]) -> list[tuple[str, str]]:
    """Who calls whom: clients the orchestrators, they their neighbours, and the harness's own driver the stores."""
    orchestrators = [name for name in names if name.startswith("orchestrator-")]
    others = [name for name in names if name not in orchestrators]
    stores = [name for name in names if name.startswith("session_store-")]
    return [
        *((caller, callee) for caller in orchestrators for callee in others),
        *(("client", callee) for callee in orchestrators),
        *(("player", callee) for callee in stores),
    ]


def _service(cluster: Cluster, name: str, port: int, script: Mapping[str, Any], seed: int, tell: Callable[[str], None]) -> Service:
    section = name.rpartition("-")[0]
    config = cluster.folder / f"{name}.yaml"
    settings = {"log": {"level": "info"}, section: _SETTINGS[section](cluster, name, port, script)}
    if cluster.kafka is not None:
        settings["kafka"] = cluster.kafka.settings.model_dump(mode="json", include={"bootstrap_servers", "topics"})
    config.write_text(yaml.safe_dump(settings))
    absent = ("postgres",) if cluster.shape.backend == "sqlite" else ("sqlite",)
    absent = absent if cluster.shape.kafka else (*absent, "relay", "commands")
    order = waypoints_for(Random(f"{seed}/waypoints/{name}"), section, absent)
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}
    env["BEHEST_CHAOS_INVOCATIONS"] = str(cluster.invocations)
    return Service(name, config, port, cluster.folder, env, order, tell)


def _store(cluster: Cluster, name: str, port: int, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"listen": f"{HOST}:{port}", "database": _database(cluster, name)}


def _executor(cluster: Cluster, name: str, port: int, _: Mapping[str, Any]) -> dict[str, Any]:
    functions = [f"{ROOT / 'tests/chaos/counted_tools.py'}:*"]
    return {"listen": f"{HOST}:{port}", "database": _database(cluster, name), "functions": functions}


def _gateway(cluster: Cluster, name: str, port: int, script: Mapping[str, Any]) -> dict[str, Any]:
    providers = {"scripted": {"adapter": "scripted", "script": script}}
    return {"listen": f"{HOST}:{port}", "default_model": "scripted/m", "providers": providers}


def _orchestrator(cluster: Cluster, name: str, port: int, _: Mapping[str, Any]) -> dict[str, Any]:
    worker = {"instructions": "Work.", "tools": ["*"], "limits": {"max_iterations": 50}}
    neighbours = {section: _neighbour(cluster, name, section) for section in NEIGHBOURS}
    commands = {"enabled": cluster.kafka is not None, "group": GROUP}
    return {"listen": f"{HOST}:{port}", "neighbours": neighbours, "agents": {"worker": worker}, "commands": commands}


def _neighbour(cluster: Cluster, caller: str, section: str) -> dict[str, Any]:
    links = cluster.ways(caller, section)
    return {"target": "ipv4:" + ",".join(f"{HOST}:{link.port}" for link in links), "carrier": cluster.shape.carrier}


def _database(cluster: Cluster, caller: str) -> str:
    if cluster.postgres is not None:
        return postgres_url(cluster.postgres, cluster.links[f"{caller}>postgres"])
    return f"sqlite:{cluster.folder / 'behest.db'}"


_SETTINGS: Mapping[str, Callable[[Cluster, str, int, Mapping[str, Any]], dict[str, Any]]] = {
    "session_store": _store,
    "tool_executor": _executor,
    "provider_gateway": _gateway,
    "orchestrator": _orchestrator,
}
