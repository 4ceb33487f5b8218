"""A suite of several replicas of each service, each a process of its own that a test may kill, stop, freeze and start again.

They share one PostgreSQL, or SQLite files, and reach each other by targets with several addresses, as in a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kit.ports import free_ports
from kit.postgres import fresh_database
from kit.suites import ROOT, SECTIONS, START_SECONDS
from suite.addresses import Service
from suite.client import IDEMPOTENT, Behest
from suite.processes import serves

TWO = {"session_store": 2, "orchestrator": 2, "tool_executor": 2, "provider_gateway": 2}


def target(ports: Sequence[int]) -> str:
    """All of these ports as one target."""
    return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)


@dataclass
class ReplicatedSuite:
    """Replicas are called `orchestrator.0`, `session_store.1`, and so on."""

    folder: Path
    ports: Mapping[str, Sequence[int]]
    databases: Mapping[str, str]
    carrier: str = "mux"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All replicas, those first that others need."""
        return [f"{section}.{number}" for section in SECTIONS for number in range(len(self.ports[section]))]

    @property
    def effects(self) -> Counter[str]:
        """How often each label was recorded."""
        path = self.folder / "effects.txt"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def address(self, name: str) -> str:
        """Where a replica listens."""
        section, _, number = name.partition(".")
        return f"127.0.0.1:{self.ports[section][int(number)]}"

    def write_configuration(self, script: Mapping[str, Any]) -> None:
        """One file for all; where each listens comes by its environment."""
        neighbours = {
            section: {"target": target(self.ports[section]), "carrier": self.carrier} for section in SECTIONS if section != "orchestrator"
        }
        functions = ["builtin:time", "builtin:calculator", f"{ROOT / 'tests/kit/effect_tools.py'}:*"]
        agents = {"worker": {"instructions": "Work.", "tools": ["*"], "limits": {"max_iterations": 50}}}
        sections: dict[str, Any] = {
            "log": {"level": "info", "format": "json"},
            "orchestrator": {"neighbours": neighbours, "agents": agents},
            "provider_gateway": {"default_model": "scripted/m", "providers": {"scripted": {"adapter": "scripted", "script": script}}},
            "tool_executor": {"database": self.databases["tool_executor"], "functions": functions},
            "session_store": {"database": self.databases["session_store"]},
        }
        for section, more in self.settings.items():
            sections[section].update(more)
        (self.folder / "behest.yaml").write_text(yaml.safe_dump(sections))

    async def start(self, name: str) -> None:
        """Starts a replica and waits until it serves."""
        section = name.partition(".")[0]
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(ROOT / each) for each in ("services", "gen", "tests")),
            "BEHEST_TEST_EFFECTS": str(self.folder / "effects.txt"),
            f"BEHEST__{section.upper()}__LISTEN": self.address(name),
        }
        command = [sys.executable, "-m", section, "--config", str(self.folder / "behest.yaml")]
        with (self.folder / f"{name}.log").open("ab") as log:
            null = asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(*command, env=env, stdin=null, stdout=log, stderr=log, cwd=self.folder)
        self.processes[name] = process
        serving, ended = asyncio.create_task(serves(self.address(name))), asyncio.create_task(process.wait())
        await asyncio.wait({serving, ended}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not serving.done():
            serving.cancel()
            raise RuntimeError(f"{name} did not start: {self.log(name)}")

    async def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kills a replica, or ends it by another signal, and waits for its end."""
        process = self.processes.pop(name)
        for each in (number, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(each)
        await process.wait()

    def freeze(self, name: str) -> None:
        """Stops a replica in its tracks: its sockets stay open."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Lets it go on."""
        self.processes[name].send_signal(signal.SIGCONT)

    def log(self, name: str) -> str:
        """What a replica has said."""
        return (self.folder / f"{name}.log").read_text()

    def logs(self) -> str:
        """What all have said."""
        return "\n".join(f"--- {name}\n{self.log(name)}" for name in self.names if (self.folder / f"{name}.log").exists())

    def client(self, *names: str) -> Behest:
        """A client of the whole suite, or of these orchestrators alone."""
        from chassis.rpc import open_channel

        def dial(service: Service) -> Any:
            section = service.section
            ports = [int(self.address(name).rpartition(":")[2]) for name in names if name.startswith(section)]
            return open_channel(target(ports or self.ports[section]), "grpc", IDEMPOTENT)

        return Behest("nowhere:1", dial=dial)


@contextlib.asynccontextmanager
async def open_replicated_suite(
    folder: Path,
    script: Mapping[str, Any],
    *,
    counts: Mapping[str, int] = TWO,
    postgres: bool = True,
    carrier: str = "mux",
    **settings: Mapping[str, Any],
) -> AsyncIterator[ReplicatedSuite]:
    """A running suite; whatever of it lives at the end is killed."""
    all_ports = iter(free_ports(sum(counts.values())))
    ports = {section: [next(all_ports) for _ in range(counts[section])] for section in SECTIONS}
    async with contextlib.AsyncExitStack() as stack:
        owners = ("session_store", "tool_executor")
        databases = {section: f"sqlite:{folder / section}.db" for section in owners}
        if postgres:
            databases = {section: await stack.enter_async_context(fresh_database(section)) for section in owners}
        suite = ReplicatedSuite(folder, ports, databases, carrier, settings)
        suite.write_configuration(script)
        try:
            await asyncio.gather(*map(suite.start, suite.names))
            yield suite
        finally:
            await asyncio.gather(*map(suite.end, list(suite.processes)))
