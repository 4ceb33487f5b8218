"""Busy sessions, limits, priorities and waiting as a client sees them, in a suite in this process that drives few runs at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from chassis.faults import InputDuplicate, RunsExhausted, SessionBusy
from suite.client import Behest
from suite.composition import SuiteOptions
from suite.embedded import Suite, open_suite
from suite.handle import RunHandle

SCRIPT = {
    "rules": [{"when": {"contains": "stay"}, "turns": [{"text": ["slow ", "answer"], "fault": {"kind": "stall", "after_pieces": 1}}]}],
    "turns": [{"text": ["done"]}],
    "otherwise": "repeat",
}


@contextlib.asynccontextmanager
async def open_small(folder: Path, max_runs: int = 256, **limits: Any) -> AsyncIterator[Suite]:
    config = {
        "log": {"level": "warning"},
        "orchestrator": {"agents": {"clerk": {"model": "scripted/m"}}, "max_runs": max_runs},
        "provider_gateway": {"default_model": "scripted/m", "providers": {"scripted": {"adapter": "scripted", "script": SCRIPT}}},
        "tool_executor": {"database": "memory:"},
        "session_store": {"database": "memory:", "limits": limits},
    }
    path = folder / "behest.yaml"
    path.write_text(yaml.safe_dump(config))
    async with open_suite(SuiteOptions(data=folder, config=path, local_model=False)) as suite:
        yield suite


async def stay(client: Behest, text: str = "stay", **order: Any) -> RunHandle:
    """A run that has begun to answer and goes on until it is stopped."""
    run = await client.run(text, **order)
    async for event in run:
        if event.HasField("text_delta"):
            return run
    raise AssertionError("it ended")


async def events_of(run: RunHandle) -> list[event_pb2.Event]:
    return [event async for event in run]


async def texts(client: Behest, session_id: str) -> list[str]:
    return ["".join(part.text for part in message.message.parts) for message in await client.messages(session_id)]


@pytest.mark.feature("R6")
@pytest.mark.feature("R7")
async def test_an_interrupting_run_stops_the_one_under_way_and_reads_what_it_said(tmp_path: Path) -> None:
    async with open_small(tmp_path) as suite, suite.client() as client:
        first = await stay(client)
        second = await client.run("go on", session_id=first.session_id, on_busy="BUSY_POLICY_INTERRUPT")
        assert second.session_id == first.session_id
        assert [event.WhichOneof("kind") for event in await events_of(second)][-1] == "run_completed"
        ended = (await events_of(first))[-1]
        assert ended.run_cancelled.reason == f"interrupted by run {second.id}"
        assert await texts(client, first.session_id) == ["stay", "slow ", "go on", "done"]


@pytest.mark.feature("R6")
async def test_a_run_forks_a_busy_session_and_both_go_on(tmp_path: Path) -> None:
    async with open_small(tmp_path) as suite, suite.client() as client:
        before = await client.run("hello")
        await events_of(before)
        first = await stay(client, session_id=before.session_id)
        forked = await client.run("meanwhile", session_id=first.session_id, on_busy="BUSY_POLICY_FORK", request_id="once")
        assert forked.session_id != first.session_id
        again = await client.run("meanwhile", session_id=first.session_id, on_busy="BUSY_POLICY_FORK", request_id="once")
        assert (again.id, again.session_id) == (forked.id, forked.session_id)
        with pytest.raises(InputDuplicate):
            await client.run("meanwhile", session_id=first.session_id, on_busy="BUSY_POLICY_FORK")
        events = await events_of(forked)
        assert {event.session_id for event in events} == {forked.session_id}
        assert events[0].run_created.forked_from_session_id == first.session_id
        assert await texts(client, forked.session_id) == ["hello", "done", "meanwhile", "done"]
        session = await client.get_session(forked.session_id)
        assert (session.forked_from_session_id, session.forked_at_position) == (first.session_id, 2)
        assert (await first.refresh()).state == run_pb2.RUN_STATE_RUNNING
        await first.cancel()
        await events_of(first)
        assert await texts(client, first.session_id) == ["hello", "done", "stay", "slow "]


@pytest.mark.feature("R6")
async def test_without_a_word_on_it_a_busy_session_refuses(tmp_path: Path) -> None:
    async with open_small(tmp_path) as suite, suite.client() as client:
        first = await stay(client)
        with pytest.raises(SessionBusy, match="on_busy"):
            await client.run("go on", session_id=first.session_id)
        await first.cancel()


@pytest.mark.feature("R5")
@pytest.mark.feature("R22")
async def test_a_waiting_runs_wall_time_ends_it_typed_although_every_driver_is_full(tmp_path: Path) -> None:
    async with open_small(tmp_path, max_runs=1) as suite, suite.client() as client:
        first = await stay(client)
        behind = await client.run("hi", session_id=first.session_id, on_busy="BUSY_POLICY_QUEUE", limits={"max_wall_ms": 50})
        undriven = await client.run("hi", limits={"max_wall_ms": 50})
        for run in (behind, undriven):
            events = await events_of(run)
            assert [event.WhichOneof("kind") for event in events] == ["run_created", "run_failed"]
            assert events[-1].run_failed.fault.reason == "TIME_EXHAUSTED"
        assert (await first.refresh()).state == run_pb2.RUN_STATE_RUNNING
        assert await texts(client, first.session_id) == ["stay"]
        await first.cancel()
        await events_of(first)


@pytest.mark.feature("R7")
async def test_a_cancelled_waiting_run_ends_although_every_driver_is_full(tmp_path: Path) -> None:
    async with open_small(tmp_path, max_runs=1) as suite, suite.client() as client:
        first = await stay(client)
        waiting = await client.run("hi")
        await waiting.cancel("never mind")
        assert (await events_of(waiting))[-1].run_cancelled.reason == "never mind"
        await first.cancel()
        await events_of(first)


@pytest.mark.feature("R22")
async def test_runs_that_wait_begin_by_tenant_then_priority(tmp_path: Path) -> None:
    async with open_small(tmp_path, max_runs=1) as suite, suite.client() as client, suite.client(tenant="rival") as rival:
        first = await stay(client)
        low = await client.run("low", priority="RUN_PRIORITY_LOW")
        normal = await client.run("normal")
        high = await client.run("high", priority="RUN_PRIORITY_HIGH")
        other = await rival.run("other")
        assert [run.run.priority for run in (low, normal, high)] == [1, 2, 3]
        await first.cancel()
        for run in (low, other):
            await events_of(run)
        began = [(await run.refresh()).started_at.ToNanoseconds() for run in (high, normal, low)]
        assert began == sorted(began)
        assert (await other.refresh()).started_at.ToNanoseconds() < began[-1]


@pytest.mark.feature("R22")
async def test_a_tenant_at_its_limits_waits_is_refused_and_goes_on_when_a_run_ends(tmp_path: Path) -> None:
    limits = {"running_runs_per_tenant": 5, "tenants": {"acme": {"running_runs": 1, "waiting_runs": 1}}}
    async with open_small(tmp_path, **limits) as suite, suite.client(tenant="acme") as acme, suite.client() as other:
        first = await stay(acme)
        waiting = await acme.run("next")
        assert waiting.run.state == run_pb2.RUN_STATE_QUEUED
        with pytest.raises(RunsExhausted) as refused:
            await acme.run("one too many")
        assert refused.value.metadata["limit_name"] == "waiting_runs_per_tenant" and refused.value.retry_after
        assert (await events_of(await other.run("not bothered")))[-1].HasField("run_completed")
        assert (await waiting.refresh()).state == run_pb2.RUN_STATE_QUEUED
        await first.cancel()
        assert (await events_of(waiting))[-1].HasField("run_completed")
        assert (await events_of(await acme.run("there is room again")))[-1].HasField("run_completed")
