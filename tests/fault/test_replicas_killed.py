"""Replicas that die, freeze and come back while runs are under way: the others go on, and nobody who wakes up late does harm."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from behest.event.v1 import event_pb2
from behest.tool.v1 import tool_pb2
from kit.replicas import ReplicatedSuite, open_replicated_suite
from kit.suites import check_history, kinds, tool_turns
from suite.client import Behest

LANES, TURNS = 4, 8
LONGER_THAN_A_LEASE = 5.0


def script() -> dict[str, Any]:
    """Each lane has a script of its own, so that its effects can be told apart."""
    lanes = [[[f"lane{lane}.{turn}.a", f"lane{lane}.{turn}.b"] for turn in range(TURNS)] for lane in range(LANES + 1)]
    rules = [
        {"when": {"equals": f"work {lane}"}, "turns": tool_turns(labels, wait_ms=60, delay_ms=20)} for lane, labels in enumerate(lanes)
    ]
    return {"rules": rules}


async def seen(client: Behest, run_id: str) -> list[event_pb2.Event]:
    return [event async for event in client.watch(run_id)]


async def until(client: Behest, run_id: str, kind: str, count: int) -> None:
    async for event in client.watch(run_id):
        count -= event.WhichOneof("kind") == kind
        if count <= 0:
            return


def labels(events: Sequence[event_pb2.Event], status: int) -> list[str]:
    """The labels of the calls that ended so."""
    calls = {
        (event.tool_call_completed.turn, event.tool_call_completed.call.id): event.tool_call_completed.call.arguments.decode()
        for event in events
        if event.WhichOneof("kind") == "tool_call_completed"
    }
    ends = [event.tool_execution_finished for event in events if event.WhichOneof("kind") == "tool_execution_finished"]
    return [calls[end.turn, end.result.call_id].split('"label":"')[1].split('"')[0] for end in ends if end.result.status == status]


async def check(suite: ReplicatedSuite, client: Behest, histories: Sequence[list[event_pb2.Event]]) -> None:
    """Each run ended well and once, no effect was repeated, what is unknown is said, and the log is what its follower saw."""
    effects: Counter[str] = suite.effects
    for events in histories:
        check_history(events)
        assert kinds(events)[-1] == "run_completed", f"{events[-1]}\n{suite.logs()}"
        done, unknown = labels(events, tool_pb2.EXECUTION_STATUS_SUCCEEDED), labels(events, tool_pb2.EXECUTION_STATUS_UNKNOWN)
        assert len(done) + len(unknown) == 2 * TURNS
        assert all(effects[label] == 1 for label in done) and all(effects[label] <= 1 for label in unknown)
        assert await client.replay(events[0].run_id) == events


async def start_lanes(client: Behest) -> list[str]:
    """Runs well under way at the client's orchestrator."""
    runs = [(await client.run(f"work {lane}")).id for lane in range(LANES)]
    await until(client, runs[0], "tool_execution_started", 5)
    return runs


@pytest.mark.feature("R12")
@pytest.mark.feature("S4")
@pytest.mark.parametrize(
    "victims",
    [
        ("orchestrator.0",),
        ("session_store.0",),
        ("session_store.1",),
        ("tool_executor.0",),
        ("provider_gateway.0",),
        ("orchestrator.0", "session_store.0"),
    ],
    ids="+".join,
)
async def test_replicas_that_are_killed_and_stay_dead_cost_no_run(tmp_path: Path, victims: tuple[str, ...]) -> None:
    async with open_replicated_suite(tmp_path, script()) as suite, suite.client("orchestrator.0") as first, suite.client() as client:
        runs = await start_lanes(first)
        following = [asyncio.create_task(seen(client, run)) for run in runs]
        await asyncio.gather(*map(suite.end, victims))
        await check(suite, client, await asyncio.gather(*following))


@pytest.mark.feature("S6")
@pytest.mark.feature("R12")
async def test_a_frozen_driver_loses_its_runs_and_does_no_harm_when_it_wakes_up(tmp_path: Path) -> None:
    async with open_replicated_suite(tmp_path, script()) as suite, suite.client("orchestrator.0") as first, suite.client() as client:
        runs = await start_lanes(first)
        following = [asyncio.create_task(seen(client, run)) for run in runs]
        suite.freeze("orchestrator.0")
        histories = await asyncio.gather(*following)
        suite.thaw("orchestrator.0")
        later = await first.run(f"work {LANES}")
        assert kinds(await seen(first, later.id))[-1] == "run_completed"
        await check(suite, client, histories)
        assert all("run_resumed" in kinds(events) for events in histories)
        assert "run handed to another driver" in suite.log("orchestrator.0")


@pytest.mark.feature("S6")
@pytest.mark.feature("R12")
@pytest.mark.parametrize("frozen", ["session_store.0", "session_store.1"])
async def test_a_frozen_store_replica_holds_nobody_up_and_does_no_harm_when_it_wakes_up(tmp_path: Path, frozen: str) -> None:
    async with open_replicated_suite(tmp_path, script()) as suite, suite.client("orchestrator.0") as first, suite.client() as client:
        runs = await start_lanes(first)
        following = [asyncio.create_task(seen(client, run)) for run in runs]
        suite.freeze(frozen)
        histories = await asyncio.gather(*following)
        suite.thaw(frozen)
        await check(suite, client, histories)
        later = await client.run(f"work {LANES}")
        assert kinds(await seen(client, later.id))[-1] == "run_completed"


@pytest.mark.feature("R13")
@pytest.mark.feature("K4")
@pytest.mark.parametrize("victim", ["orchestrator.0", "session_store.0", "session_store.1", "tool_executor.0", "provider_gateway.0"])
async def test_a_replica_that_is_told_to_end_hands_over_without_a_lease_to_wait_for(tmp_path: Path, victim: str) -> None:
    """With a lease of ten minutes nobody could wait for one."""
    patient = {"lease_ms": 600_000}
    async with (
        open_replicated_suite(tmp_path, script(), session_store=patient) as suite,
        suite.client("orchestrator.0") as first,
        suite.client() as client,
    ):
        runs = await start_lanes(first)
        following = [asyncio.create_task(seen(client, run)) for run in runs]
        await suite.end(victim, signal.SIGTERM)
        async with asyncio.timeout(60):
            histories = await asyncio.gather(*following)
        await check(suite, client, histories)


async def test_the_log_says_once_that_the_store_is_away_and_once_that_it_is_back(tmp_path: Path) -> None:
    counts = {"session_store": 1, "orchestrator": 1, "tool_executor": 1, "provider_gateway": 1}
    async with open_replicated_suite(tmp_path, script(), counts=counts) as suite, suite.client() as client:
        before = suite.log("orchestrator.0")
        await suite.end("session_store.0")
        await asyncio.sleep(LONGER_THAN_A_LEASE)
        await suite.start("session_store.0")
        await seen(client, (await client.run("work 0")).id)
        log = suite.log("orchestrator.0").removeprefix(before)
        assert log.count("store away") == log.count("store back") == 1, log
