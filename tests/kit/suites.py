"""Whole suites for tests: one process, or four, as a user starts them, each of which can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from behest.event.v1 import event_pb2
from behest.run.v1 import run_service_pb2 as run_pb
from behest.run.v1.run_service_pb2_grpc import RunServiceStub
from behest.session.v1 import session_service_pb2 as session_pb
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from chassis.faults import Fault
from chassis.rpc import open_channel
from kit.ports import neighbouring_ports
from suite.processes import serves

ROOT = Path(__file__).parent.parent.parent
SECTIONS = ("session_store", "provider_gateway", "tool_executor", "orchestrator")
OFFSET = {"orchestrator": 0, "provider_gateway": 1, "tool_executor": 2, "session_store": 3}
TERMINAL = ("run_completed", "run_failed", "run_cancelled")
START_SECONDS = 30.0


def tool_turns(labels: Sequence[Sequence[str]], wait_ms: int = 0, **turn: Any) -> list[dict[str, Any]]:
    """A script: each inner sequence is a turn that calls `record` with these labels, in parallel; then a text."""
    calls = [[{"name": "record", "arguments": {"label": label, "wait_ms": wait_ms}} for label in batch] for batch in labels]
    return [*({"calls": batch, **turn} for batch in calls), {"text": ["all ", "done"]}]


def configuration(base: int, folder: Path, script: dict[str, Any], carrier: str, **orchestrator: Any) -> dict[str, Any]:
    """A configuration with a scripted model and the counted tools."""
    at = {section: f"127.0.0.1:{base + offset}" for section, offset in OFFSET.items()}
    neighbours = {section: {"target": at[section], "carrier": carrier} for section in SECTIONS if section != "orchestrator"}
    functions = ["builtin:time", "builtin:calculator", f"{ROOT / 'tests/kit/effect_tools.py'}:*"]
    database = f"sqlite:{folder / 'behest.db'}"
    return {
        "log": {"level": "warning"},
        "orchestrator": {
            "listen": at["orchestrator"],
            "neighbours": neighbours,
            "agents": {"worker": {"instructions": "Work.", "tools": ["*"], "limits": {"max_iterations": 50}}},
            **orchestrator,
        },
        "provider_gateway": {
            "listen": at["provider_gateway"],
            "default_model": "scripted/m",
            "providers": {"scripted": {"adapter": "scripted", "script": script}},
        },
        "tool_executor": {"listen": at["tool_executor"], "database": database, "functions": functions},
        "session_store": {"listen": at["session_store"], "database": database},
    }


@dataclass
class SuiteUnderTest:
    """A suite of one or more processes. `parts` are the names that can be killed: the services, or `suite` for all in one."""

    folder: Path
    base: int
    config: Path
    one_process: bool
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("suite",) if self.one_process else SECTIONS

    @property
    def effects(self) -> Counter[str]:
        """How often each label was recorded."""
        path = self.folder / "effects.txt"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    async def start(self, part: str, *arguments: str) -> None:
        """Starts a part, with more arguments if need be, and waits until it serves."""
        log = (self.folder / f"{part}.log").open("ab")
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("services", "gen", "tests")),
            "BEHEST_TEST_EFFECTS": str(self.folder / "effects.txt"),
        }
        with log:
            self.processes[part] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command(part),
                *arguments,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        ports = [self.base + offset for offset in OFFSET.values()] if part == "suite" else [self.base + OFFSET[part]]
        serving = asyncio.gather(*(serves(f"127.0.0.1:{port}") for port in ports))
        ended = asyncio.create_task(self.processes[part].wait())
        await asyncio.wait({serving, ended}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not serving.done():
            serving.cancel()
            raise RuntimeError(f"{part} did not start: {self.logs()}")

    def _command(self, part: str) -> list[str]:
        if part == "suite":
            return ["suite", "up", "--config", str(self.config), "--data", str(self.folder), "--no-local-model"]
        return [part, "--config", str(self.config)]

    async def kill(self, part: str) -> None:
        """Kill -9, and waits until it is dead."""
        await self._end(part, signal.SIGKILL)

    async def terminate(self, part: str) -> None:
        """SIGTERM, and waits for the orderly end."""
        await self._end(part, signal.SIGTERM)

    async def _end(self, part: str, number: signal.Signals) -> None:
        process = self.processes.pop(part)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        await process.wait()

    def logs(self) -> str:
        """What every part has said."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@contextlib.asynccontextmanager
async def open_suite_under_test(
    folder: Path, script: dict[str, Any], *, one_process: bool = False, carrier: str = "mux", **orchestrator: Any
) -> AsyncIterator[SuiteUnderTest]:
    """A running suite; whatever of it lives at the end is killed."""
    base = neighbouring_ports()
    config = folder / "behest.yaml"
    config.write_text(yaml.safe_dump(configuration(base, folder, script, carrier, **orchestrator)))
    suite = SuiteUnderTest(folder, base, config, one_process)
    try:
        await asyncio.gather(*map(suite.start, suite.parts))
        yield suite
    finally:
        for part in list(suite.processes):
            await suite.kill(part)


class Caller:
    """A client of a suite over plain gRPC, patient with what is being restarted."""

    def __init__(self, runs: RunServiceStub, sessions: SessionServiceStub) -> None:
        self.runs = runs
        self.sessions = sessions

    async def create(self, text: str = "go", **order: Any) -> Any:
        """An accepted run."""
        request = run_pb.CreateRunRequest(input=[{"text": text}], **order)
        return (await self.runs.CreateRun(request, timeout=10)).run

    async def watch(self, run_id: str, after: int = 0) -> list[event_pb2.Event]:
        """The run's events to its end, whatever is restarted meanwhile."""
        events: list[event_pb2.Event] = []
        async with asyncio.timeout(60):
            while not events or events[-1].WhichOneof("kind") not in TERMINAL:
                with contextlib.suppress(Fault):
                    at = events[-1].sequence if events else after
                    async for response in self.runs.WatchRun(run_pb.WatchRunRequest(run_id=run_id, after_sequence=at)):
                        events.extend(response.events)
                if not events or events[-1].WhichOneof("kind") not in TERMINAL:
                    await asyncio.sleep(0.05)  # a service is being restarted
        return events

    async def until(self, run_id: str, kind: str, count: int = 1) -> None:
        """Returns when the run's log has so many events of a kind."""
        stream = self.runs.WatchRun(run_pb.WatchRunRequest(run_id=run_id))
        async for response in stream:
            count -= sum(event.WhichOneof("kind") == kind for event in response.events)
            if count <= 0:
                stream.cancel()
                return

    async def conversation(self, session_id: str) -> list[tuple[str, str]]:
        """The session's messages as (role, text)."""
        response = await self.sessions.ListMessages(session_pb.ListMessagesRequest(session_id=session_id, page_size=1000))
        roles = {1: "system", 2: "user", 3: "assistant", 4: "tool"}
        return [(roles[m.message.role], "".join(p.text for p in m.message.parts)) for m in response.messages]


@contextlib.asynccontextmanager
async def call(suite: SuiteUnderTest) -> AsyncIterator[Caller]:
    """A caller of the suite."""
    idempotent = frozenset({"/behest.session.v1.SessionService/ListMessages", "/behest.run.v1.RunService/GetRun"})
    async with (
        open_channel(f"127.0.0.1:{suite.base}", "grpc", idempotent) as orchestrator,
        open_channel(f"127.0.0.1:{suite.base + 3}", "grpc", idempotent) as store,
    ):
        yield Caller(RunServiceStub(orchestrator), SessionServiceStub(store))


def kinds(events: Iterable[event_pb2.Event]) -> list[str]:
    """The kinds of events."""
    return [str(event.WhichOneof("kind")) for event in events]


def check_history(events: Sequence[event_pb2.Event]) -> None:
    """A run's log is gapless from 1, ends with its one terminal event, and gives every execution that began one outcome."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [kind for kind in kinds(events) if kind in TERMINAL] == [events[-1].WhichOneof("kind")]
    began = Counter(
        (e.tool_execution_started.turn, e.tool_execution_started.call_id)
        for e in events
        if e.WhichOneof("kind") == "tool_execution_started"
    )
    ended = Counter(
        (e.tool_execution_finished.turn, e.tool_execution_finished.result.call_id)
        for e in events
        if e.WhichOneof("kind") == "tool_execution_finished"
    )
    assert began == ended
    assert set(began.values()) <= {1}


def as_json(value: Any) -> str:
    """A value as canonical JSON."""
    return json.dumps(value, sort_keys=True)
