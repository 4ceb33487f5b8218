"""What every effect ledger does with executions that are to be published, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from chassis.sqlite import open_sqlite
from kit.postgres import fresh_database
from tool_executor.adapters.memory_executions import MemoryExecutions
from tool_executor.adapters.postgres import open_postgres_storage
from tool_executor.adapters.postgres.executions import PostgresExecutions
from tool_executor.adapters.sqlite_executions import SqliteExecutions, open_sqlite_executions
from tool_executor.adapters.sqlite_schema import MIGRATIONS
from tool_executor.domain.execution import Execution, Result, Status, ToolCall
from tool_executor.domain.ledger import LEASE_SECONDS, PUBLISH_SECONDS, Verdict

NOW = 1_000_000.0
DONE = Result(Status.SUCCEEDED, "done \0 ✓", 8)

Ledger = MemoryExecutions | SqliteExecutions | PostgresExecutions
Open = Callable[[bool], AbstractAsyncContextManager[Ledger]]

pytestmark = pytest.mark.feature("E2")


def asked(key: str = "run/1", instance: str = "a", at: float = NOW) -> Execution:
    return Execution("tenant", key, ToolCall("1", "pay", b'{"n":1}'), instance, at, "run", "session", "v1", False)


def ended(execution: Execution) -> Execution:
    return execution.ended(DONE, execution.started_at + 1, 1.0)


@asynccontextmanager
async def open_sqlite_ledger(path: str, publishes: bool) -> AsyncIterator[Ledger]:
    async with open_sqlite(path, MIGRATIONS) as database, open_sqlite_executions(database, publishes) as executions:
        yield executions


@asynccontextmanager
async def open_postgres_ledger(url: str, publishes: bool) -> AsyncIterator[Ledger]:
    async with open_postgres_storage(lambda: url, publishes=publishes) as storage:
        yield storage.executions


@pytest.fixture(params=["sqlite", "postgres"])
async def opens(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens executors' views of one ledger, any number of them."""
    async with AsyncExitStack() as stack:
        if request.param == "postgres":
            yield partial(open_postgres_ledger, await stack.enter_async_context(fresh_database("tool_executor")))
        else:
            yield partial(open_sqlite_ledger, str(tmp_path / "ledger.db"))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryExecutions(publishes=True)
        elif request.param == "sqlite":
            yield await stack.enter_async_context(open_sqlite_ledger(str(tmp_path / "ledger.db"), True))
        else:
            url = await stack.enter_async_context(fresh_database("tool_executor"))
            yield await stack.enter_async_context(open_postgres_ledger(url, True))


async def finished(ledger: Ledger, *keys: str) -> list[Execution]:
    executions = [ended(asked(key)) for key in keys]
    for execution in executions:
        await ledger.begin(replace(execution, result=None, ended_at=None, duration=0.0), claim=True)
        await ledger.finish(execution)
    return executions


async def test_what_ended_is_due_as_it_is_kept_and_what_runs_is_not(ledger: Ledger) -> None:
    executions = await finished(ledger, "run/1", "run/2")
    await ledger.begin(asked("run/3"), claim=True)
    assert await ledger.due(NOW, 10) == executions


async def test_what_was_taken_stays_away_until_its_time_is_up_and_what_was_published_for_ever(ledger: Ledger) -> None:
    first, second, third = await finished(ledger, "run/1", "run/2", "run/3")
    assert await ledger.due(NOW, 2) == [first, second]
    assert await ledger.due(NOW, 2) == [third]
    await ledger.published([first, third])
    assert await ledger.due(NOW + PUBLISH_SECONDS - 1, 10) == []
    assert await ledger.due(NOW + PUBLISH_SECONDS + 1, 10) == [second]
    await ledger.published([second])
    assert await ledger.due(NOW + 10 * PUBLISH_SECONDS, 10) == []


async def test_what_was_taken_by_a_clock_that_was_set_back_since_is_due_at_once(ledger: Ledger) -> None:
    executions = await finished(ledger, "run/1", "run/2")
    assert await ledger.due(NOW + 3600, 10) == executions
    assert await ledger.due(NOW, 10) == executions


async def test_a_receipt_that_comes_again_is_not_published_again(ledger: Ledger) -> None:
    (execution,) = await finished(ledger, "run/1")
    await ledger.published(await ledger.due(NOW, 10))
    await ledger.finish(execution)
    assert (await ledger.begin(asked(), claim=True)).verdict is Verdict.FINISHED
    assert await ledger.due(NOW + 2 * PUBLISH_SECONDS, 10) == []


async def test_an_execution_whose_outcome_is_unknown_is_due_once_that_is_said(ledger: Ledger) -> None:
    await ledger.begin(asked(), claim=True)
    later = NOW + LEASE_SECONDS + 1
    standing = await ledger.begin(asked(instance="b", at=later), claim=True)
    assert standing.verdict is Verdict.UNKNOWN
    assert await ledger.due(later, 10) == [standing.execution]


async def test_receipts_that_are_written_behind_are_due_once_they_are_written(ledger: Ledger) -> None:
    await ledger.remember(ended(asked()))
    if not isinstance(ledger, MemoryExecutions):
        await ledger.flush()
    assert await ledger.due(NOW, 10) == [ended(asked())]


async def test_what_is_not_published_is_not_forgotten(ledger: Ledger) -> None:
    first, _ = await finished(ledger, "run/1", "run/2")
    await ledger.due(NOW, 10)
    await ledger.published([first])
    assert await ledger.purge(NOW + 1) == 1
    assert await ledger.find("tenant", "run/1") is None
    assert await ledger.find("tenant", "run/2") is not None


async def test_two_executors_share_what_is_due(opens: Open) -> None:
    async with opens(True) as first, opens(True) as second:
        executions = await finished(first, *(f"run/{number}" for number in range(6)))
        taken = [*await first.due(NOW, 3), *await second.due(NOW, 3)]
        assert sorted(taken, key=lambda execution: execution.key) == executions
        assert await first.due(NOW, 10) == await second.due(NOW, 10) == []


async def test_an_executor_that_publishes_nothing_keeps_nothing_for_it_and_forgets_what_others_left(opens: Open) -> None:
    async with opens(True) as publishing:
        await finished(publishing, "run/1")
    async with opens(False) as silent:
        await finished(silent, "run/2")
        assert [execution.key for execution in await silent.due(NOW, 10)] == ["run/1"]
        assert await silent.purge(NOW + 1) == 2
    async with opens(True) as publishing:
        assert await publishing.due(NOW + 2 * PUBLISH_SECONDS, 10) == []
