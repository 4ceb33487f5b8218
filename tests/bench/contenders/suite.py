"""Ours: the suite in one process or as four, on SQLite files with full durability, called as a client would."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import yaml
from tests.bench.loop import ANSWER, INPUT_TOKENS, INSTRUCTIONS, OUTPUT_TOKENS, QUESTION, TURNS
from tests.bench.meters import Meter, stored_bytes
from tests.bench.worker import Sample

from behest.chat.v1.chat_pb2 import ROLE_USER, Message, Part
from behest.provider.v1.provider_service_pb2 import ChatRequest, StreamChatRequest
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.rpc.serve import collect_rarely
from kit.ports import neighbouring_ports
from suite.addresses import Service
from suite.client import Behest, dial_beside
from suite.composition import SuiteOptions
from suite.embedded import open_suite
from suite.processes import open_processes

HOST = "127.0.0.1"
AGENTS = {"reader": "add", "booker": "book"}
MODEL = "scripted/loop"
GREETING = "Say hello."


class SuiteContender:
    """Runs of the loop through a client. `pids` are the suite's processes; the client's own is counted only when it is among them."""

    def __init__(self, client: Behest, gateway: grpc.aio.Channel, pids: tuple[int, ...], data: Path) -> None:
        self._client = client
        self._gateway = ProviderServiceStub(gateway)
        self._pids = pids
        self._data = data
        self._sessions: dict[str, str] = {}
        self._orders = itertools.count(1)

    async def measure(self, concurrency: int = 0, first_token: int = 0, **load: Any) -> Sample:
        """Waits for first tokens if asked for so many, else the cost of runs."""
        return await self._first_tokens(first_token) if first_token else await self._runs(concurrency, **load)

    async def _runs(self, concurrency: int, runs: int, agent: str = "reader", size: bool = False, session: str = "") -> Sample:
        """CPU, wall and bytes of so many runs, so many at a time; with `session` each lane's runs share one session of that name."""
        before = stored_bytes(self._data.glob("*.db")) if size else 0
        meter, client = Meter(self._pids), Meter([os.getpid()])
        left = iter(range(runs))
        await asyncio.gather(*(self._lane(left, agent, f"{session}-{lane}" if session else "") for lane in range(concurrency)))
        spent = meter.spent()
        stored = stored_bytes(self._data.glob("*.db")) - before if size else 0
        turns = runs * TURNS
        return {
            "cpu": spent.cpu / turns,
            "client": client.spent().cpu / turns,
            "wall": spent.wall / turns,
            "disk": spent.disk / runs,
            "stored": stored / runs,
        }

    async def _first_tokens(self, times: int) -> Sample:
        """Medians: from the order to the first text that a follower sees, and from a bare call of the gateway to its first text."""
        runs, calls = list[float](), list[float]()
        for _ in range(times):
            runs.append(await self._first_of_run())
            calls.append(await self._first_of_call())
        return {"run": statistics.median(runs), "call": statistics.median(calls)}

    async def _first_of_run(self) -> float:
        began, first = time.perf_counter(), 0.0
        run = await self._client.run(f"{GREETING} ({next(self._orders)})", agent="talker")
        async for event in self._client.watch(run.run.id):
            if not first and event.WhichOneof("kind") == "text_delta":
                first = time.perf_counter() - began
        return first

    async def _first_of_call(self) -> float:
        messages = [Message(role=ROLE_USER, parts=[Part(text=GREETING)])]
        request = StreamChatRequest(request=ChatRequest(model=MODEL, messages=messages))
        began, first = time.perf_counter(), 0.0
        async for response in self._gateway.StreamChat(request):
            if not first and any(event.HasField("text_delta") for event in response.events):
                first = time.perf_counter() - began
        return first

    async def _lane(self, left: Iterator[int], agent: str, session: str) -> None:
        for _ in left:
            order = f"{QUESTION} Use {AGENTS[agent]}. ({next(self._orders)})"
            run = await self._client.run(order, agent=agent, session_id=self._sessions.get(session, ""))
            if session:
                self._sessions[session] = run.run.session_id
            kinds = [event.WhichOneof("kind") async for event in self._client.watch(run.run.id)]
            assert kinds[-1] == "run_completed", kinds


def write_settings(folder: Path, carrier: str, log_level: str, database: str = "") -> Path:
    """A settings file with the scripted model, two agents, that carrier between the services, and a database of theirs if one is named."""
    neighbours = {name: {"carrier": carrier} for name in ("session_store", "provider_gateway", "tool_executor")}
    agents = {
        name: {"instructions": INSTRUCTIONS, "model": MODEL, "tools": [tool], "limits": {"max_iterations": TURNS}}
        for name, tool in AGENTS.items()
    }
    agents["talker"] = {"model": MODEL}
    settings: dict[str, Any] = {
        "orchestrator": {"agents": agents, "neighbours": neighbours},
        "provider_gateway": {"providers": {"scripted": {"adapter": "scripted", "script": _script()}}, "default_model": MODEL},
        "tool_executor": {"functions": ["tests.bench.tools:add", "tests.bench.tools:book"]},
        "log": {"level": log_level},
    }
    if database:
        settings["session_store"] = {"database": database}
        settings["tool_executor"]["database"] = database
    path = folder / f"behest-{carrier}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _script() -> dict[str, Any]:
    usage = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}

    def turns(tool: str) -> list[dict[str, Any]]:
        calls = [{"calls": [{"name": tool, "arguments": {"a": turn, "b": 1}}], "usage": usage} for turn in range(1, TURNS)]
        return [*calls, {"text": ANSWER, "usage": usage}]

    rules = [{"when": {"contains": f"Use {tool}."}, "turns": turns(tool)} for tool in AGENTS.values()]
    return {"rules": [*rules, {"when": {"contains": GREETING}, "turns": [{"text": ANSWER}]}]}


@contextlib.asynccontextmanager
async def open_embedded(
    folder: str, name: str = "embedded", log_level: str = "warning", database: str = ""
) -> AsyncIterator[SuiteContender]:
    """The four services in this process; the client calls without a network."""
    collect_rarely()  # as `behest up` does
    data = Path(folder) / name
    data.mkdir()
    options = SuiteOptions(data, write_settings(data, "mux", log_level, database), local_model=False)
    async with open_suite(options) as suite, suite.client() as client:
        yield SuiteContender(client, suite.channels[Service.PROVIDER_GATEWAY], (os.getpid(),), data)


@contextlib.asynccontextmanager
async def open_four(
    folder: str, carrier: str, name: str = "", log_level: str = "warning", database: str = ""
) -> AsyncIterator[SuiteContender]:
    """The four services as four processes, joined by that carrier; the client calls by plain gRPC and is not counted."""
    data = Path(folder) / (name or f"four-{carrier}")
    data.mkdir()
    base = neighbouring_ports()
    options = SuiteOptions(data, write_settings(data, carrier, log_level, database), port_base=base, local_model=False)
    async with open_processes(options, lambda line: print(line, file=sys.stderr)) as suite:
        pids = tuple(child.pid for child in suite.children)
        dial = dial_beside(f"{HOST}:{base}")
        async with Behest(dial=dial) as client, dial(Service.PROVIDER_GATEWAY) as gateway:
            yield SuiteContender(client, gateway, pids, data)


__all__ = ["SuiteContender", "open_embedded", "open_four"]
