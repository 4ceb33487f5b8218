"""Executors on one PostgreSQL, on bad days: it dies or is cut off at the worst moment, replicas race, and one that was paused wakes up."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from behest.tool.v1 import tool_pb2
from behest.tool.v1 import tool_service_pb2 as pb
from chassis.faults import StorageUnavailable
from chassis.postgres import writing
from chassis.world import SystemClock, World
from kit import sample_tools
from kit.executor import ExecutorClient, batch_request, call, open_executor, tenant, until
from kit.postgres import PostgresServer, fresh_database, private_server
from kit.postgres_cut import Moment, open_commit_cut
from tool_executor.adapters.postgres import PostgresStorage, open_postgres_storage
from tool_executor.domain.execution import Execution, Result, Status, ToolCall
from tool_executor.domain.ledger import Verdict

S = tool_pb2.ExecutionStatus
pytestmark = [pytest.mark.feature("T7"), pytest.mark.timeout(60)]
Pair = tuple[ExecutorClient, ExecutorClient]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    sample_tools.reset()
    yield
    for gate in sample_tools.GATES.values():
        gate.set()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_database("tool_executor") as own:
        yield own


@pytest.fixture
async def pair(url: str) -> AsyncIterator[Pair]:
    """Two replicas on one database."""
    async with open_executor(database=url) as first, open_executor(database=url) as second:
        yield first, second


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    with private_server() as own:  # without fsync: what a killed process wrote is the kernel's already
        yield own


def asked(instance: str, at: float, key: str = "run/1", **fields: Any) -> Execution:
    return replace(Execution("tenant", key, ToolCall("1", "pay", b"{}"), instance, at, "run", repeatable=False), **fields)


async def in_the_background(executor: ExecutorClient, *calls: Any, **fields: Any) -> asyncio.Task[dict[str, tool_pb2.ToolResult]]:
    return asyncio.create_task(executor.batch(*calls, **fields))


async def test_a_server_killed_between_claim_and_receipt_loses_neither(server: PostgresServer, tmp_path: Path) -> None:
    url = await server.database("tool_executor")
    async with open_executor(database=url) as executor:
        waiting = call("1", "wait_writing", '{"gate": "g"}')
        running = await in_the_background(executor, waiting)
        await until(lambda: sample_tools.STARTED == ["g"])
        server.kill()
        sample_tools.GATES["g"].set()
        await asyncio.to_thread(server.start)
        results = await running
        assert (results["1"].status, results["1"].replayed) == (S.EXECUTION_STATUS_SUCCEEDED, False)
        again = await executor.batch(waiting)
        assert (again["1"].content, again["1"].replayed, sample_tools.STARTED) == (results["1"].content, True, ["g"])


async def test_a_frozen_server_delays_calls_and_repeats_none(server: PostgresServer, tmp_path: Path) -> None:
    url = await server.database("tool_executor")
    effects = tmp_path / "effects"
    async with open_executor(database=url) as executor:
        await executor.run("echo")
        server.pause()
        lines = [call(str(n), "append_line", json.dumps({"path": str(effects), "line": str(n)})) for n in range(5)]
        running = await in_the_background(executor, *lines)
        await asyncio.wait([running], timeout=1.0)
        assert not running.done() and not effects.exists(), "nothing runs before its claim is durable"
        server.proceed()
        results = await running
    assert {result.status for result in results.values()} == {S.EXECUTION_STATUS_SUCCEEDED}
    assert Counter(effects.read_text().split()) == {str(n): 1 for n in range(5)}


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_receipt_whose_commit_was_cut_off_is_kept_once(url: str, moment: Moment) -> None:
    async with open_commit_cut(url) as way, open_executor(database=way.url(url)) as executor:
        running = await in_the_background(executor, call("1", "wait_writing", '{"gate": "g"}'))
        await until(lambda: sample_tools.STARTED == ["g"])
        way.cut(moment)
        sample_tools.GATES["g"].set()
        results = await running
        assert (results["1"].status, way.cuts) == (S.EXECUTION_STATUS_SUCCEEDED, 1)
        async with open_executor(database=url) as other:
            again = await other.batch(call("1", "wait_writing", '{"gate": "g"}'))
        assert (again["1"].content, again["1"].replayed, sample_tools.STARTED) == (results["1"].content, True, ["g"])


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_call_whose_claim_was_cut_off_in_its_commit_runs_once(url: str, moment: Moment, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    line = call("1", "append_line", json.dumps({"path": str(effects), "line": "once"}))
    async with open_commit_cut(url) as way, open_executor(database=way.url(url)) as executor:
        way.cut(moment)
        results = await executor.batch(line)
        assert (results["1"].status, way.cuts) == (S.EXECUTION_STATUS_SUCCEEDED, 1)
        assert (await executor.batch(line))["1"].replayed
    assert effects.read_text() == "once\n"


async def test_a_claim_that_nobody_heard_of_is_no_orphan_when_its_call_comes_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    async with open_commit_cut(url) as way, open_postgres_storage(lambda: way.url(url)) as storage:
        way.cut("after", then_refuse=True)
        with pytest.raises(StorageUnavailable):
            await storage.executions.begin(asked("a", 100.0), claim=True)
        async with open_postgres_storage(lambda: url) as other:
            assert await other.executions.find("tenant", "run/1") is not None, "the claim was committed"
        way.refuses = False
        standing = await begin_again(storage)
        assert (standing.verdict, standing.execution.started_at) == (Verdict.BEGIN, 100.0)
        await storage.executions.finish(standing.execution.ended(Result(Status.SUCCEEDED, "done"), 102.0, 1.0))
        assert (await storage.executions.begin(asked("a", 103.0), claim=True)).verdict is Verdict.FINISHED


async def begin_again(storage: PostgresStorage) -> Any:
    async with asyncio.timeout(10):
        while True:
            try:
                return await storage.executions.begin(asked("a", 101.0), claim=True)
            except StorageUnavailable:
                await asyncio.sleep(0.05)


async def test_replicas_that_get_the_same_calls_at_once_run_each_once(pair: Pair, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    lines = [call(str(n), "append_line", json.dumps({"path": str(effects), "line": str(n)})) for n in range(40)]
    both = await asyncio.gather(pair[0].batch(*lines), pair[1].batch(*reversed(lines)))
    for results in both:
        assert [results[str(n)].content for n in range(40)] == ["appended"] * 40
    assert Counter(effects.read_text().split()) == {str(n): 1 for n in range(40)}
    assert all(both[0][str(n)].replayed != both[1][str(n)].replayed for n in range(40))


async def test_a_paused_executors_receipt_does_not_overwrite_what_was_said_meanwhile(url: str) -> None:
    async with open_postgres_storage(lambda: url) as paused, open_postgres_storage(lambda: url) as other:
        now = paused.clock.now()
        mine = (await paused.executions.begin(asked("paused", now), claim=True)).execution
        judged = await other.executions.begin(asked("other", now + 60), claim=True)
        assert judged.verdict is Verdict.UNKNOWN
        await paused.executions.renew("paused", now + 63)
        kept = await paused.executions.finish(mine.ended(Result(Status.SUCCEEDED, "done"), now + 61, 61.0))
        assert kept == judged.execution
        assert await other.executions.find("tenant", "run/1") == judged.execution
        repeatable = (await paused.executions.begin(asked("paused", now, "run/2", repeatable=True), claim=True)).execution
        await paused.executions.resign("paused")
        taken = await other.executions.begin(asked("other", now + 70, "run/2", repeatable=True), claim=True)
        assert (taken.verdict, taken.execution.attempt) == (Verdict.TAKE_OVER, 2)
        await paused.executions.finish(repeatable.ended(Result(Status.SUCCEEDED, "stale"), now + 71, 71.0))
        assert await other.executions.find("tenant", "run/2") == taken.execution, "what another runs is not ended by a claimant of old"


class Skewed(SystemClock):
    """A machine whose clock is wrong."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return time.time() + self._seconds


async def test_executors_whose_clocks_disagree_agree_on_leases(url: str) -> None:
    late, early = World(clock=Skewed(-3600)), World(clock=Skewed(3600))
    async with open_executor(database=url, world=late) as first, open_executor(database=url, world=early) as second:
        waiting = call("1", "wait_writing", '{"gate": "g"}')
        running = await in_the_background(first, waiting)
        await until(lambda: sample_tools.STARTED == ["g"])
        elsewhere = await in_the_background(second, waiting)
        await asyncio.wait([elsewhere], timeout=0.5)
        assert not elsewhere.done(), "by its own clock the claim would have ended an hour ago"
        sample_tools.GATES["g"].set()
        assert (await elsewhere)["1"].content == (await running)["1"].content and sample_tools.STARTED == ["g"]
        begun = (await second.execution("run-1/1")).started_at.ToMilliseconds() / 1000
        assert abs(begun - time.time()) < 600


@pytest.mark.feature("T8")
@pytest.mark.parametrize("call_ids", [["1"], []], ids=["by id", "all of the run"])
async def test_calls_are_stopped_by_whichever_executor_is_asked(pair: Pair, call_ids: list[str]) -> None:
    runs_it, is_asked = pair
    running = await in_the_background(runs_it, call("1", "wait_writing", '{"gate": "w"}'), call("2", "wait_writing", '{"gate": "next"}'))
    reading = await in_the_background(runs_it, call("1", "wait_reading", '{"gate": "r"}'), run_id="run-2")
    await until(lambda: set(sample_tools.STARTED) == {"w", "r"})
    stop = pb.CancelExecutionsRequest(run_id="run-1", call_ids=call_ids)
    with tenant("other"):
        assert list((await is_asked.stub.CancelExecutions(stop)).call_ids) == []
    assert list((await is_asked.stub.CancelExecutions(stop)).call_ids) == ["1"]
    await is_asked.stub.CancelExecutions(pb.CancelExecutionsRequest(run_id="run-2"))
    assert (await reading)["1"].status == S.EXECUTION_STATUS_CANCELLED, "a call that claims nothing is reached too"
    sample_tools.GATES["next"].set()
    results = await running
    assert results["1"].status == S.EXECUTION_STATUS_CANCELLED
    begun = S.EXECUTION_STATUS_SUCCEEDED if call_ids else S.EXECUTION_STATUS_CANCELLED
    assert results["2"].status == begun
    assert (await is_asked.execution("run-1/1")).result.status == S.EXECUTION_STATUS_CANCELLED


@pytest.mark.feature("T8")
async def test_a_direct_call_is_stopped_by_another_executor_by_its_request_id(pair: Pair) -> None:
    running = asyncio.create_task(pair[0].run("wait_writing", '{"gate": "d"}', "request-1"))
    await until(lambda: sample_tools.STARTED == ["d"])
    await pair[1].stub.CancelExecutions(pb.CancelExecutionsRequest(run_id="request-1"))
    assert (await running).status == S.EXECUTION_STATUS_CANCELLED


async def test_text_that_postgresql_does_not_take_is_kept_all_the_same(pair: Pair) -> None:
    odd = call("id\0\ue000", "echo", json.dumps({"value": "a\0b\ue000c"}))
    first = await pair[0].batch(odd, run_id="run\0")
    again = await pair[0].batch(odd, run_id="run\0")
    assert first[odd.id].content == "a\0b\ue000c" and again[odd.id].content == first[odd.id].content
    assert batch_request(odd).calls[0].id == (await pair[0].execution(f"run\0/{odd.id}")).call.id
