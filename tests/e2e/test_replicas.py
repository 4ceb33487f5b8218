"""Two replicas of each service on one PostgreSQL: callers cannot tell them from one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from kit.replicas import ReplicatedSuite, open_replicated_suite
from kit.suites import check_history, kinds, tool_turns
from suite.client import Behest

PAIR = {"session_store": 2, "orchestrator": 2, "tool_executor": 1, "provider_gateway": 1}
TURNS = 6


def work(number: int, wait_ms: int = 40) -> dict[str, Any]:
    labels = [[f"run{number}.{turn}.a", f"run{number}.{turn}.b"] for turn in range(TURNS)]
    return {"when": {"equals": f"work {number}"}, "turns": tool_turns(labels, wait_ms=wait_ms, delay_ms=20)}


SCRIPT = {
    "rules": [
        *map(work, range(40)),
        {"when": {"equals": "long"}, "turns": [{"text": ["let me ", "think"], "fault": {"kind": "stall", "after_pieces": 2}}]},
    ]
}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[ReplicatedSuite]:
    async with open_replicated_suite(tmp_path, SCRIPT, counts=PAIR) as suite:
        yield suite


async def seen(client: Behest, run_id: str, after: int = 0) -> list[event_pb2.Event]:
    return [event async for event in client.watch(run_id, after=after)]


async def until(client: Behest, run_id: str, kind: str, count: int = 1) -> None:
    """Returns when the run's log has so many events of a kind."""
    async for event in client.watch(run_id):
        count -= event.WhichOneof("kind") == kind
        if count <= 0:
            return


@pytest.mark.feature("S4")
@pytest.mark.feature("X3")
async def test_followers_at_every_replica_see_the_same_bytes(pair: ReplicatedSuite) -> None:
    async with pair.client("orchestrator.0") as one, pair.client("orchestrator.1") as other:
        run = await one.run("work 0")
        await until(other, run.id, "tool_execution_started", 3)
        histories = await asyncio.gather(*(seen(client, run.id, after) for client in (one, other) for after in (0, 1, 5)))
        check_history(histories[0])
        for number, history in enumerate(histories):
            whole = [event for event in histories[0] if event.sequence > (0, 1, 5)[number % 3]]
            assert [event.SerializeToString() for event in history] == [event.SerializeToString() for event in whole]
        assert set(pair.effects.values()) == {1} and len(pair.effects) == 2 * TURNS


@pytest.mark.feature("R7")
@pytest.mark.feature("R14")
async def test_commands_take_effect_whichever_replica_gets_them(pair: ReplicatedSuite) -> None:
    async with pair.client("orchestrator.0") as drives, pair.client("orchestrator.1") as other:
        run = await drives.run("long")
        await until(other, run.id, "text_delta")
        await other.cancel(run.id, "enough")
        history = await seen(drives, run.id)
        assert kinds(history)[-1] == "run_cancelled"
        steered = await drives.run("work 1")
        await until(other, steered.id, "tool_execution_started")
        await other.send_input(steered.id, "hurry")
        history = await seen(other, steered.id)
        assert "input_received" in kinds(history) and kinds(history)[-1] == "run_completed"


@pytest.mark.feature("R6")
async def test_a_sessions_queue_keeps_its_order_over_replicas(pair: ReplicatedSuite) -> None:
    async with pair.client("orchestrator.0") as one, pair.client("orchestrator.1") as other:
        first = await one.run("work 0")
        waiting = []
        for number in range(1, 5):
            client = (one, other)[number % 2]
            waiting.append(await client.run(f"work {number}", session_id=first.session_id, on_busy=run_pb2.BUSY_POLICY_QUEUE))
        histories = await asyncio.gather(*(seen(one, run.id) for run in (first, *waiting)))
        ends = [history[-1].time.ToNanoseconds() for history in histories]
        begins = [next(e for e in history if e.WhichOneof("kind") == "run_started").time.ToNanoseconds() for history in histories]
        assert ends == sorted(ends) and all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
        texts = [m.message.parts[0].text for m in await other.messages(first.session_id) if m.message.role == 2]
        assert texts == [f"work {number}" for number in range(5)]


@pytest.mark.feature("K4")
@pytest.mark.feature("R13")
@pytest.mark.parametrize("carrier", ["mux", "grpc"])
async def test_a_rolling_restart_of_everything_fails_no_run_and_leaves_no_gap(tmp_path: Path, carrier: str) -> None:
    async with open_replicated_suite(tmp_path, SCRIPT, carrier=carrier) as suite, suite.client() as client:
        histories: list[list[event_pb2.Event]] = []
        rolling = asyncio.create_task(_restart_each(suite))

        async def keep_working(lane: int) -> None:
            while not rolling.done():
                run = await client.run(f"work {lane}")
                histories.append(await seen(client, run.id))

        await asyncio.gather(rolling, *map(keep_working, range(4)))
        assert len(histories) >= 8
        for history in histories:
            check_history(history)
            assert kinds(history)[-1] == "run_completed", f"{history[-1]}\n{suite.logs()}"
            assert history == await client.replay(history[0].run_id)


async def _restart_each(suite: ReplicatedSuite) -> None:
    for name in suite.names:
        await suite.end(name, signal.SIGTERM)
        await suite.start(name)
