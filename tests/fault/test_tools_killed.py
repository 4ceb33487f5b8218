"""Executors that are killed or paused in the middle of a tool: effects are never repeated, and what is unknown is said to be unknown."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from behest.tool.v1 import tool_pb2
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis.faults import Fault
from chassis.rpc import open_channel
from kit.executor import SAMPLES, ExecutorClient, batch_request, call, database_for, until
from kit.ports import free_port

S = tool_pb2.ExecutionStatus
ROOT = Path(__file__).parents[2]


class Killable:
    """An executor in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, client: ExecutorClient) -> None:
        self._process = process
        self.client = client

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        self._process.send_signal(number)
        return await self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def proceed(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The setting that the executors of a test share."""
    async with database_for(request.param, tmp_path) as setting:
        yield setting


@asynccontextmanager
async def open_process(database: str) -> AsyncIterator[Killable]:
    listen = f"127.0.0.1:{free_port()}"
    settings = {"LISTEN": listen, "DATABASE": database, "FUNCTIONS": json.dumps(SAMPLES), "DRAIN_MS": "100"}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("services", "gen", "tests"))}
    env.update({f"BEHEST__TOOL_EXECUTOR__{key}": value for key, value in settings.items()})
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tool_executor", env=env, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with open_channel(listen, "grpc") as channel:
            stub: Any = ToolServiceStub(channel)
            await until_answers(stub)
            yield Killable(process, ExecutorClient(None, stub))  # type: ignore[arg-type]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_answers(stub: Any) -> None:
    from behest.tool.v1 import tool_service_pb2 as pb

    async with asyncio.timeout(20):
        while True:
            try:
                await stub.ListTools(pb.ListToolsRequest(), timeout=1.0)
                return
            except Fault:
                await asyncio.sleep(0.05)


async def begin(executor: ExecutorClient, *calls: Any) -> asyncio.Task[Any]:
    async def follow() -> None:
        try:
            async for _ in executor.stub.ExecuteBatch(batch_request(*calls)):
                pass
        except Fault:
            pass

    return asyncio.create_task(follow())


@pytest.mark.feature("T7")
@pytest.mark.timeout(60)
async def test_a_killed_executors_effects_are_not_repeated_and_receipts_survive(database: str, tmp_path: Path) -> None:
    effects, twice = tmp_path / "effects", tmp_path / "twice"
    finished = call("1", "append_line", json.dumps({"path": str(effects), "line": "finished"}))
    cut = call("2", "append_then_wait", json.dumps({"path": str(effects)}))
    repeatable = call("3", "append_idempotent", json.dumps({"path": str(twice), "wait": True}))
    async with open_process(database) as first:
        following = [await begin(first.client, finished, cut)]
        await until(lambda: effects.exists() and effects.read_text() == "finished\neffect\n", 20)
        following.append(await begin(first.client, repeatable))
        await until(lambda: twice.exists() and twice.read_text(), 20)
        await first.kill()
        await asyncio.wait(following)
    async with open_process(database) as second:
        for attempt in ("first", "again"):
            results = await second.client.batch(finished, cut, repeatable)
            assert (results["1"].content, results["1"].replayed) == ("appended", True), attempt
            assert (results["2"].status, results["2"].effect_unknown) == (S.EXECUTION_STATUS_UNKNOWN, True), attempt
            assert "not run again" in json.loads(results["2"].content)["message"]
            assert (results["3"].content, results["3"].attempt) == ("attempt 2", 2), attempt
        assert effects.read_text() == "finished\neffect\n"
        assert twice.read_text() == "attempt 1\nattempt 2\n"
        record = await second.client.execution("run-1/2")
        assert record.result.status == S.EXECUTION_STATUS_UNKNOWN and record.HasField("ended_at")


@pytest.mark.feature("T7")
@pytest.mark.timeout(60)
async def test_an_executor_that_is_told_to_end_leaves_its_claims_to_be_judged_at_once(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    cut = call("1", "append_then_wait", json.dumps({"path": str(effects)}))
    async with open_process(database) as first:
        following = await begin(first.client, cut)
        await until(effects.exists, 20)
        assert await first.kill(signal.SIGTERM) == 0
        await asyncio.wait([following])
    async with open_process(database) as second, asyncio.timeout(2.5):  # less than a lease: nobody waits for it
        results = await second.client.batch(cut)
        assert results["1"].status == S.EXECUTION_STATUS_UNKNOWN and effects.read_text() == "effect\n"


@pytest.mark.feature("T7")
@pytest.mark.timeout(60)
async def test_another_living_executor_waits_for_the_receipt_instead_of_running_the_call(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    async with open_process(database) as first, open_process(database) as second:
        waiting = call("1", "append_then_wait", json.dumps({"path": str(effects)}))
        following = await begin(first.client, waiting)
        await until(effects.exists, 20)
        elsewhere = asyncio.create_task(second.client.batch(waiting))
        done, _ = await asyncio.wait([elsewhere], timeout=3.6)  # longer than a lease, which the first one renews
        assert not done and effects.read_text() == "effect\n"
        await first.kill()
        results = await elsewhere
        assert results["1"].status == S.EXECUTION_STATUS_UNKNOWN and effects.read_text() == "effect\n"
        await asyncio.wait([following])


@pytest.mark.feature("T7")
@pytest.mark.timeout(60)
async def test_an_executor_that_was_paused_does_not_overwrite_what_was_said_of_its_call_meanwhile(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    slow = call("1", "append_then_pass", json.dumps({"path": str(effects), "seconds": 1.0}))
    async with open_process(database) as paused, open_process(database) as other:
        following = await begin(paused.client, slow)
        await until(effects.exists, 20)
        paused.pause()
        try:
            said = (await other.client.batch(slow))["1"]
            assert (said.status, said.effect_unknown) == (S.EXECUTION_STATUS_UNKNOWN, True)
        finally:
            paused.proceed()
        await asyncio.wait([following])
        for executor in (paused, other):
            again = (await executor.client.batch(slow))["1"]
            assert (again.content, again.status) == (said.content, said.status), "its own receipt came too late"
    assert effects.read_text() == "effect\n"
