"""What every effect ledger does, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.sqlite import open_sqlite
from kit.postgres import fresh_database
from tool_executor.adapters.memory_executions import MemoryExecutions
from tool_executor.adapters.postgres import open_postgres_storage
from tool_executor.adapters.sqlite_executions import SqliteExecutions, open_sqlite_executions
from tool_executor.adapters.sqlite_schema import MIGRATIONS
from tool_executor.domain.execution import Execution, Result, Status, ToolCall
from tool_executor.domain.ledger import LEASE_SECONDS, Verdict
from tool_executor.operations.ports import Deleted, Executions

NOW = 1_000_000.0
DONE = Result(Status.SUCCEEDED, "done ✓", 8, truncated=True)

pytestmark = pytest.mark.feature("T7")


def asked(key: str = "run/1", instance: str = "a", at: float = NOW, **fields: object) -> Execution:
    execution = Execution("tenant", key, ToolCall("1", "pay", b'{"n":1}'), instance, at, "run", "session", "v1", False, approved_by="ann")
    return replace(execution, **fields)  # type: ignore[arg-type]


def ended(execution: Execution, result: Result = DONE) -> Execution:
    return execution.ended(result, execution.started_at + 1, 1.0)


@asynccontextmanager
async def open_ledger(path: str) -> AsyncIterator[SqliteExecutions]:
    async with open_sqlite(path, MIGRATIONS) as database, open_sqlite_executions(database) as executions:
        yield executions


@asynccontextmanager
async def two_ledgers(kind: str, folder: Path) -> AsyncIterator[tuple[Executions, Executions]]:
    """Two executors' views of one ledger."""
    if kind == "memory":
        shared = MemoryExecutions()
        yield shared, shared
        return
    async with AsyncExitStack() as stack:
        if kind == "postgres":
            url = await stack.enter_async_context(fresh_database("tool_executor"))
            ours, theirs = [await stack.enter_async_context(open_postgres_storage(lambda: url)) for _ in range(2)]
            yield ours.executions, theirs.executions
            return
        path = str(folder / "ledger.db")
        first, second = [await stack.enter_async_context(open_ledger(path)) for _ in range(2)]
        yield first, second


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def ledgers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Executions, Executions]]:
    async with two_ledgers(request.param, tmp_path) as both:
        yield both


Both = tuple[Executions, Executions]


async def test_a_claim_is_seen_by_everybody_at_once(ledgers: Both) -> None:
    first, second = ledgers
    assert (await first.begin(asked(), claim=True)).verdict is Verdict.BEGIN
    assert await second.find("tenant", "run/1") == asked()
    assert (await second.begin(asked(instance="b"), claim=True)).verdict is Verdict.ELSEWHERE


async def test_a_receipt_is_returned_to_whoever_asks_again(ledgers: Both) -> None:
    first, second = ledgers
    await first.begin(asked(), claim=True)
    receipt = ended(asked())
    assert await first.finish(receipt) == receipt
    for claim in (True, False):
        standing = await second.begin(asked(instance="b", at=NOW + 5), claim)
        assert (standing.verdict, standing.execution) == (Verdict.FINISHED, receipt)
    assert await second.find("tenant", "run/1") == receipt


async def test_the_same_key_with_another_call_is_refused(ledgers: Both) -> None:
    first, _ = ledgers
    await first.begin(asked(), claim=True)
    for call in (ToolCall("1", "pay", b'{"n":2}'), ToolCall("1", "refund", b'{"n":1}')):
        assert (await first.begin(asked(call=call), claim=True)).verdict is Verdict.REUSED


async def test_a_dead_claimants_effect_is_unknown_for_ever(ledgers: Both) -> None:
    first, second = ledgers
    await first.begin(asked(), claim=True)
    late = NOW + LEASE_SECONDS + 0.1
    standing = await second.begin(asked(instance="b", at=late), claim=True)
    assert standing.verdict is Verdict.UNKNOWN
    assert standing.execution.result is not None and standing.execution.result.status is Status.UNKNOWN
    again = await first.begin(asked(instance="c", at=late + 9), claim=True)
    assert (again.verdict, again.execution.result) == (Verdict.FINISHED, standing.execution.result)
    kept = await first.finish(ended(asked()))
    assert kept.result == standing.execution.result, "the first receipt wins, also against a claimant that comes back from the dead"


@pytest.mark.parametrize("claim", [True, False])
async def test_a_dead_claimants_repeatable_call_is_taken_over_once(ledgers: Both, claim: bool) -> None:
    first, second = ledgers
    await first.begin(asked(repeatable=True), claim=True)
    late = NOW + LEASE_SECONDS + 0.1
    standings = [
        await second.begin(asked(instance="b", at=late, repeatable=True), claim),
        await first.begin(asked(instance="c", at=late, repeatable=True), claim),
    ]
    assert [s.verdict for s in standings] == [Verdict.TAKE_OVER, Verdict.ELSEWHERE]
    taken = standings[0].execution
    assert taken.attempt == 2
    assert (await first.finish(ended(asked(repeatable=True)))).result is not None, "a claimant that lost its claim still gets its answer"
    assert (await second.find("tenant", "run/1")) == taken, "but does not end what another runs"
    assert await second.finish(ended(taken)) == ended(taken)


async def test_a_renewed_lease_keeps_a_claim_and_a_resignation_ends_it(ledgers: Both) -> None:
    first, second = ledgers
    await first.begin(asked(), claim=True)
    await first.renew("a", NOW + 100)
    assert (await second.begin(asked(instance="b", at=NOW + 50), claim=True)).verdict is Verdict.ELSEWHERE
    await first.resign("a")
    assert (await second.begin(asked(instance="b", at=NOW + 50), claim=True)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("ahead", [60.0, 86_400.0])
async def test_a_dead_claimant_whose_clock_was_ahead_is_given_up_after_a_lease(ledgers: Both, ahead: float) -> None:
    """The database's clock, or the machine's, was set back between its claim and the question."""
    ours, theirs = ledgers
    await theirs.begin(asked(instance="b", at=NOW + ahead), claim=True)
    verdicts = [(await ours.begin(asked(at=NOW + passed), claim=True)).verdict for passed in (0.0, 1.0, LEASE_SECONDS)]
    assert verdicts == [Verdict.ELSEWHERE] * 3
    await theirs.renew("b", NOW + ahead + 2 * LEASE_SECONDS)
    again = [(await ours.begin(asked(at=NOW + LEASE_SECONDS + passed), claim=True)).verdict for passed in (0.1, 2.0, LEASE_SECONDS)]
    assert again == [Verdict.ELSEWHERE] * 3, "it lives as long as it renews"
    assert (await ours.begin(asked(at=NOW + 2 * LEASE_SECONDS + 0.2), claim=True)).verdict is Verdict.UNKNOWN


async def test_a_claim_of_ones_own_that_is_not_running_is_an_orphan(ledgers: Both) -> None:
    first, _ = ledgers
    await first.begin(asked(), claim=True)
    assert (await first.begin(asked(), claim=True)).verdict is Verdict.UNKNOWN


async def test_what_is_remembered_without_a_claim_is_found_at_once_and_replayed(ledgers: Both) -> None:
    first, _ = ledgers
    read = asked(repeatable=True)
    assert (await first.begin(read, claim=False)).verdict is Verdict.BEGIN
    assert await first.find("tenant", "run/1") is None, "nothing was claimed"
    await first.remember(ended(read))
    assert await first.find("tenant", "run/1") == ended(read)
    assert (await first.begin(read, claim=False)).verdict is Verdict.FINISHED
    other = asked(call=ToolCall("1", "refund", b"{}"))
    assert (await first.begin(other, claim=True)).verdict is Verdict.REUSED


async def test_of_many_that_ask_at_once_one_begins(ledgers: Both) -> None:
    first, second = ledgers
    asks = [ledger.begin(asked(instance=f"i{n}"), claim=True) for n, ledger in enumerate((first, second) * 10)]
    verdicts = [standing.verdict for standing in await asyncio.gather(*asks)]
    assert verdicts.count(Verdict.BEGIN) == 1 and verdicts.count(Verdict.ELSEWHERE) == 19


async def test_tenants_do_not_see_each_other(ledgers: Both) -> None:
    first, _ = ledgers
    await first.begin(asked(), claim=True)
    assert await first.find("other", "run/1") is None
    assert (await first.begin(asked(tenant="other"), claim=True)).verdict is Verdict.BEGIN


@pytest.mark.feature("T9")
async def test_every_field_of_a_record_survives(ledgers: Both) -> None:
    first, second = ledgers
    full = replace(
        asked(attempt=3, repeatable=True), result=Result(Status.TIMED_OUT, "ü\x00", 9, True, True), ended_at=NOW + 2.5, duration=0.123456
    )
    await first.begin(replace(full, result=None, ended_at=None, duration=0.0), claim=True)
    await first.finish(full)
    assert await second.find("tenant", "run/1") == full


async def test_old_records_are_forgotten_and_young_ones_are_not(ledgers: Both) -> None:
    first, _ = ledgers
    for number in range(1200):
        await first.remember(ended(asked(f"run/{number}", at=NOW + number)))
    if hasattr(first, "flush"):
        await first.flush()
    assert await first.purge(NOW + 1100) == 1100
    assert await first.find("tenant", "run/1099") is None
    assert await first.find("tenant", "run/1100") is not None


async def test_a_file_keeps_receipts_for_the_next_process(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    async with open_ledger(path) as executions:
        await executions.begin(asked(), claim=True)
        await executions.finish(ended(asked()))
        await executions.remember(ended(asked("run/2")))
    async with open_ledger(path) as executions:
        assert await executions.find("tenant", "run/1") == ended(asked())
        assert await executions.find("tenant", "run/2") == ended(asked("run/2"))


async def test_memory_is_bounded() -> None:
    executions = MemoryExecutions(limit=10)
    for number in range(100):
        await executions.remember(ended(asked(f"run/{number}")))
    assert await executions.find("tenant", "run/89") is None
    assert await executions.find("tenant", "run/90") is not None


@pytest.mark.feature("S7")
async def test_the_executions_of_a_run_are_forgotten_by_name_save_those_under_way(ledgers: Both) -> None:
    first, second = ledgers
    for key in ("run/1", "run/2"):
        await first.begin(asked(key), claim=True)
        await first.finish(ended(asked(key)))
    await first.remember(ended(asked("run/3")))
    await first.begin(asked("run/4"), claim=True)
    await first.remember(ended(asked("run2/1", run_id="run2")))
    await first.remember(ended(asked("run/direct", run_id="")))
    await first.remember(ended(replace(asked("run/1"), tenant="other")))
    assert await first.delete("tenant", "run") == Deleted(3, 1)
    assert await first.delete("tenant", "run") == Deleted(0, 1)
    assert [await second.find("tenant", f"run/{call}") for call in "123"] == [None] * 3
    await first.finish(ended(asked("run/4")))
    assert await second.delete("tenant", "run") == Deleted(1, 0)
    for tenant, key in (("tenant", "run2/1"), ("tenant", "run/direct"), ("other", "run/1")):
        assert await first.find(tenant, key) is not None


@pytest.mark.feature("S7")
async def test_an_execution_that_is_still_to_be_published_is_forgotten_only_after_that(tmp_path: Path) -> None:
    async with open_sqlite(str(tmp_path / "l.db"), MIGRATIONS) as database, open_sqlite_executions(database, publishes=True) as executions:
        await executions.remember(ended(asked("run/1")))
        assert await executions.delete("tenant", "run") == Deleted(0, 1)
        await executions.published(await executions.due(NOW + 10, 9))
        assert await executions.delete("tenant", "run") == Deleted(1, 0)
