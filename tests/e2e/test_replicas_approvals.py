"""Approvals over two replicas of each service on one PostgreSQL: killed while a run waits, decided at both at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from behest.run.v1 import run_pb2
from chassis.faults import ApprovalDecided
from kit.replicas import ReplicatedSuite, open_replicated_suite
from kit.suites import check_history, tool_turns
from suite.client import Behest

PAIR = {"session_store": 2, "orchestrator": 2, "tool_executor": 1, "provider_gateway": 1}
SCRIPT = {"rules": [{"when": {"equals": f"work {n}"}, "turns": tool_turns([[f"run{n}.a", f"run{n}.b"]])} for n in range(8)]}
AGENTS = {"worker": {"tools": ["*"], "permissions": [{"tool": "record", "action": "ask"}]}}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[ReplicatedSuite]:
    async with open_replicated_suite(tmp_path, SCRIPT, counts=PAIR, orchestrator={"agents": AGENTS}) as suite:
        yield suite


async def asked(client: Behest, number: int) -> tuple[str, list[run_pb2.Approval]]:
    """A run that waits, and its approvals."""
    run = await client.run(f"work {number}")
    async for event in run:
        if event.HasField("approval_requested") and len(found := await client.approvals(run_id=run.id)) == 2:
            return run.id, found
    raise AssertionError("it ended")


@pytest.mark.feature("R15")
@pytest.mark.feature("A3")
async def test_a_waiting_run_survives_the_death_of_every_driver_and_each_call_runs_once(pair: ReplicatedSuite) -> None:
    async with pair.client() as client:
        run_id, approvals = await asked(client, 0)
        for name in ("orchestrator.0", "orchestrator.1", "session_store.0"):
            await pair.end(name)
        for name in ("session_store.0", "orchestrator.1"):
            await pair.start(name)
        assert not pair.effects
    async with pair.client("orchestrator.1") as client:
        assert (await client.get_run(run_id)).state == run_pb2.RUN_STATE_AWAITING_APPROVAL
        await client.approve(approvals[0], principal="ann")
        await pair.start("orchestrator.0")
        await client.approve(approvals[1], principal="ann")
        events = [event async for event in client.watch(run_id)]
    check_history(events)
    assert events[-1].HasField("run_completed") and pair.effects == {"run0.a": 1, "run0.b": 1}


@pytest.mark.feature("A3")
async def test_of_decisions_at_two_replicas_at_once_one_counts_whoever_asks(pair: ReplicatedSuite) -> None:
    async with pair.client("orchestrator.0") as one, pair.client("orchestrator.1") as other:
        for number in range(1, 6):
            run_id, approvals = await asked(one, number)
            for approval in approvals:
                tries = [client.approve(approval, principal=f"p{i}") for i, client in enumerate((one, other, one, other))]
                outcomes = await asyncio.gather(*tries, return_exceptions=True)
                assert [type(outcome) for outcome in outcomes].count(ApprovalDecided) == 3, outcomes
            events = [event async for event in other.watch(run_id)]
            check_history(events)
            assert sum(event.HasField("approval_resolved") for event in events) == 2
    assert set(pair.effects.values()) == {1}


@pytest.mark.feature("R12")
async def test_a_driver_that_dies_right_after_the_decision_is_followed_by_the_other(pair: ReplicatedSuite) -> None:
    async with pair.client("orchestrator.0") as one, pair.client("orchestrator.1") as other:
        run_id, approvals = await asked(one, 7)
        await one.approve(approvals[0], principal="ann")
        await one.approve(approvals[1], principal="ann")
        await pair.end("orchestrator.0")
        events = [event async for event in other.watch(run_id)]
    check_history(events)
    assert events[-1].HasField("run_completed") and pair.effects == {"run7.a": 1, "run7.b": 1}
