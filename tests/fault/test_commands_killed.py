"""Commands from a real Kafka while the processes that carry them out are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from behest.run.v1 import run_service_pb2 as pb
from chassis.waypoints import ARGUMENT, PERMIT
from kit.commands import command_topics, headers, start
from kit.kafka import KafkaCluster
from kit.ports import free_port
from kit.suites import ROOT, Caller, SuiteUnderTest, call, open_suite_under_test
from suite.processes import serves

SCRIPT: dict[str, Any] = {"turns": [{"text": ["done"]}]}


@pytest.fixture
def configured(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> KafkaCluster:
    """The cluster, which suites that are started take commands from."""
    monkeypatch.setenv("BEHEST__KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    for purpose, name in (("COMMANDS", "commands"), ("DEAD_COMMANDS", "commands.dead"), ("RUNS", "runs")):
        monkeypatch.setenv(f"BEHEST__KAFKA__TOPICS__{purpose}__NAME", kafka.topic(name))
    monkeypatch.setenv("BEHEST__ORCHESTRATOR__COMMANDS__ENABLED", "true")
    monkeypatch.setenv("BEHEST__ORCHESTRATOR__COMMANDS__GROUP", kafka.topic("group"))
    monkeypatch.setenv(PERMIT, "1")
    return kafka


@asynccontextmanager
async def open_commanded(kafka: KafkaCluster, folder: Path) -> AsyncIterator[tuple[SuiteUnderTest, Caller]]:
    await command_topics(kafka, 1)
    await kafka.create_topic(kafka.topic("runs"))
    async with open_suite_under_test(folder, SCRIPT) as suite, call(suite) as caller:
        yield suite, caller


async def command(kafka: KafkaCluster, *texts: str) -> None:
    async with kafka.producer() as producer:
        for text in texts:
            await producer.send_and_wait(kafka.topic("commands"), start(text).SerializeToString(), headers=headers("start", text))


async def titles(caller: Caller, count: int) -> list[str]:
    """The titles of all runs once there are so many, oldest first."""
    async with asyncio.timeout(60):
        while len(runs := (await caller.runs.ListRuns(pb.ListRunsRequest(page_size=1000))).runs) < count:
            await asyncio.sleep(0.05)
    return [run.title for run in reversed(runs)]


async def settled(kafka: KafkaCluster, count: int) -> None:
    async with asyncio.timeout(60):
        while (await kafka.committed(kafka.topic("group"), kafka.topic("commands"))).get(0, 0) < count:
            await asyncio.sleep(0.05)


@pytest.mark.feature("E5")
@pytest.mark.feature("R20")
async def test_an_orchestrator_that_is_killed_between_admission_and_commit_has_each_command_carried_out_once(
    configured: KafkaCluster, tmp_path: Path
) -> None:
    names = [uuid.uuid4().hex[:6] for _ in range(5)]
    async with open_commanded(configured, tmp_path) as (suite, caller):
        await suite.terminate("orchestrator")
        await suite.start("orchestrator", ARGUMENT, "commands.settled:3:kill")
        await command(configured, *names)
        assert await suite.processes["orchestrator"].wait() == -9
        assert (await configured.committed(configured.topic("group"), configured.topic("commands"))).get(0, 0) < 3
        await suite.start("orchestrator")
        assert await titles(caller, 5) == names
        await settled(configured, 5)
        assert await titles(caller, 5) == names
        assert await configured.records(configured.topic("commands.dead")) == []


@pytest.mark.feature("E5")
async def test_commands_that_come_while_the_session_store_is_dead_are_carried_out_in_order_once_it_is_back(
    configured: KafkaCluster, tmp_path: Path
) -> None:
    names = [f"{number}-{uuid.uuid4().hex[:6]}" for number in range(20)]
    async with open_commanded(configured, tmp_path) as (suite, caller):
        await command(configured, names[0])
        await titles(caller, 1)
        await suite.kill("session_store")
        await command(configured, *names[1:])
        await suite.start("session_store")
        assert await titles(caller, 20) == names
        await settled(configured, 20)
        assert await configured.records(configured.topic("commands.dead")) == []


@asynccontextmanager
async def second_orchestrator(suite: SuiteUnderTest) -> AsyncIterator[None]:
    """One more orchestrator process with the suite's settings."""
    listen = f"127.0.0.1:{free_port()}"
    paths = os.pathsep.join(str(ROOT / name) for name in ("services", "gen", "tests"))
    env = os.environ | {"PYTHONPATH": paths, "BEHEST__ORCHESTRATOR__LISTEN": listen}
    with (suite.folder / "second.log").open("wb") as log:
        command = [sys.executable, "-m", "orchestrator", "--config", str(suite.config)]
        process = await asyncio.create_subprocess_exec(*command, env=env, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(60):
            await serves(listen)
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.feature("E5")
@pytest.mark.feature("R12")
async def test_an_orchestrator_that_freezes_and_wakes_up_later_than_its_session_lasts_has_each_command_carried_out_once(
    configured: KafkaCluster, tmp_path: Path
) -> None:
    names = [f"{number}-{uuid.uuid4().hex[:6]}" for number in range(30)]
    async with open_commanded(configured, tmp_path) as (suite, caller), AsyncExitStack() as stack:
        await command(configured, *names[:10])
        await titles(caller, 1)
        suite.processes["orchestrator"].send_signal(signal.SIGSTOP)
        await stack.enter_async_context(second_orchestrator(suite))
        await command(configured, *names[10:20])
        await settled(configured, 20)
        suite.processes["orchestrator"].send_signal(signal.SIGCONT)
        await command(configured, *names[20:])
        assert await titles(caller, 30) == names
        await settled(configured, 30)
        assert await titles(caller, 30) == names
        assert await configured.records(configured.topic("commands.dead")) == []
