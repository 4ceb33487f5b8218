"""The executor with a ledger that fails on purpose: what was not claimed is not run, and what ran is not forgotten lightly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from chassis.faults import DeadlineExceeded, ShuttingDown, StorageUnavailable
from chassis.world import SystemClock, World
from kit import sample_tools
from tool_executor.adapters.functions.load import Timeouts, load_functions
from tool_executor.adapters.json_schemas import JsonSchemas
from tool_executor.adapters.lone_cancellations import LoneCancellations
from tool_executor.adapters.memory_executions import MemoryExecutions
from tool_executor.adapters.memory_registrations import MemoryRegistrations
from tool_executor.adapters.threads import ToolThreads
from tool_executor.domain.execution import Execution, Status, ToolCall
from tool_executor.domain.ledger import LEASE_SECONDS, Standing
from tool_executor.operations.batch import Batches
from tool_executor.operations.cancelling import Cancelling
from tool_executor.operations.execute import Executor, Limits
from tool_executor.operations.flight import Order
from tool_executor.operations.registry import Bounds, Registry
from tool_executor.operations.tools import Tools
from tool_executor.operations.upkeep import Upkeep


@dataclass
class Hasty(SystemClock):
    """A clock whose waits are over at once, and that remembers them."""

    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


class Stumbling(MemoryExecutions):
    """Fails the next so many claims and receipts."""

    def __init__(self) -> None:
        super().__init__()
        self.failing_begins = 0
        self.failing_finishes = 0
        self.renewed: list[float] = []

    async def begin(self, asked: Execution, claim: bool) -> Standing:
        if self.failing_begins:
            self.failing_begins -= 1
            raise StorageUnavailable("the disk is full")
        return await super().begin(asked, claim)

    async def finish(self, ended: Execution) -> Execution:
        if self.failing_finishes:
            self.failing_finishes -= 1
            raise StorageUnavailable("the disk is full")
        return await super().finish(ended)

    async def renew(self, instance: str, until: float) -> None:
        self.renewed.append(until)
        await super().renew(instance, until)


@dataclass
class Bench:
    """An executor with its parts in reach."""

    executor: Executor
    ledger: Stumbling
    clock: Hasty
    tools: Tools
    upkeep: Upkeep

    async def run(self, order: Order) -> Execution:
        async with aclosing(Batches(self.executor).run([order])) as stream:
            [execution] = [ended.execution async for happened in stream for ended in happened.ended]
            return execution


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    ledger, clock = Stumbling(), Hasty()
    world = World(clock=clock)
    registry = Registry(load_functions(["kit.sample_tools:*"], Timeouts()), JsonSchemas(), Bounds())
    executor = Executor(registry, ledger, ToolThreads(2), world, Limits())
    try:
        tools = Tools(registry, MemoryRegistrations(), clock, 3600.0)
        yield Bench(
            executor, ledger, clock, tools, Upkeep(executor, ledger, tools, Cancelling(Batches(executor), LoneCancellations()), clock, 60.0)
        )
    finally:
        await executor.close()


@pytest.fixture(autouse=True)
def clean() -> None:
    sample_tools.reset()


def order(tool: str = "wait_writing", arguments: bytes = b'{"gate": "g"}', key: str = "k", deadline: float | None = None) -> Order:
    return Order("tenant", key, ToolCall("1", tool, arguments), deadline=deadline)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.feature("T7")
async def test_what_cannot_be_claimed_is_not_run() -> None:
    sample_tools.GATES["g"].set()
    async with bench() as b:
        b.ledger.failing_begins = 1
        with pytest.raises(StorageUnavailable):
            await b.run(order())
        assert sample_tools.STARTED == []
        assert (await b.run(order())).result and sample_tools.STARTED == ["g"]


@pytest.mark.feature("T7")
async def test_a_receipt_is_tried_again_while_the_storage_stumbles() -> None:
    sample_tools.GATES["g"].set()
    async with bench() as b:
        b.ledger.failing_finishes = 5
        ended = await b.run(order())
        assert ended.result is not None and ended.result.status is Status.SUCCEEDED and b.clock.waits == [0.1, 0.5, 2.0, 5.0, 10.0]


@pytest.mark.feature("T7")
async def test_a_receipt_that_cannot_be_kept_leaves_the_effect_unknown_and_not_repeated() -> None:
    sample_tools.GATES["g"].set()
    async with bench() as b:
        b.ledger.failing_finishes = 6
        with pytest.raises(StorageUnavailable):
            await b.run(order())
        again = await b.run(order())
        assert again.result is not None and again.result.status is Status.UNKNOWN and sample_tools.STARTED == ["g"]


@pytest.mark.feature("T7")
async def test_a_repeatable_tool_whose_receipt_was_lost_runs_again() -> None:
    sample_tools.GATES["g"].set()
    async with bench() as b:
        b.ledger.failing_finishes = 6
        with pytest.raises(StorageUnavailable):
            await b.run(order("wait_idempotent"))
        again = await b.run(order("wait_idempotent"))
        assert again.attempt == 2 and again.result is not None and again.result.content == "attempt 2"


async def test_a_failure_hurts_only_its_own_call() -> None:
    async with bench() as b:
        b.ledger.failing_begins = 1
        with pytest.raises(StorageUnavailable):
            await b.run(order(key="one"))
        assert (await b.run(order("echo", b'{"value": 1}', "two"))).result


@pytest.mark.feature("T7")
async def test_the_lease_is_renewed_only_while_a_claim_is_open() -> None:
    async with bench() as b:
        await b.upkeep.renew()
        assert b.ledger.renewed == []
        running = asyncio.create_task(b.run(order()))
        await until(lambda: sample_tools.STARTED)
        await b.upkeep.renew()
        assert b.ledger.renewed and b.ledger.renewed[0] > b.clock.now() + LEASE_SECONDS - 1
        sample_tools.GATES["g"].set()
        await running
        await b.upkeep.renew()
        assert len(b.ledger.renewed) == 1


async def test_old_records_are_forgotten_by_the_executor_itself() -> None:
    async with bench() as b:
        await b.run(order("echo", b"{}"))
        await b.upkeep.purge()
        assert await b.ledger.find("tenant", "k") is not None
        await Upkeep(b.executor, b.ledger, b.tools, Cancelling(Batches(b.executor), LoneCancellations()), b.clock, retention=-1.0).purge()
        assert await b.ledger.find("tenant", "k") is None


async def test_a_deadline_that_has_passed_runs_nothing() -> None:
    async with bench() as b:
        with pytest.raises(DeadlineExceeded):
            await b.run(order("hang", b'{"gate": "g"}', deadline=b.clock.monotonic() - 1))
        with pytest.raises(DeadlineExceeded):
            await b.run(order(deadline=b.clock.monotonic() - 1))
        assert sample_tools.STARTED == []
        assert await b.ledger.find("tenant", "k") is None, "nothing was claimed, so nothing will be said to be unknown"


@pytest.mark.feature("T5")
async def test_a_deadline_that_passes_during_the_claim_runs_nothing_and_says_so() -> None:
    async with bench() as b:
        begin = b.ledger.begin

        async def slowly(asked: Execution, claim: bool) -> Standing:
            await asyncio.sleep(0.03)
            return await begin(asked, claim)

        b.ledger.begin = slowly  # type: ignore[method-assign]
        ended = await b.run(order(deadline=b.clock.monotonic() + 0.02))
        assert ended.result is not None and ended.result.status is Status.TIMED_OUT and not ended.result.effect_unknown
        assert "nothing was run" in ended.result.content and sample_tools.STARTED == []


async def test_closing_tells_those_who_wait_and_leaves_claims_to_be_judged() -> None:
    async with bench() as b:
        running = asyncio.create_task(b.run(order()))
        await until(lambda: sample_tools.STARTED)
        await b.executor.close()
        with pytest.raises(ShuttingDown):
            await running
        held = await b.ledger.find("tenant", "k")
        assert held is not None and held.result is None


async def test_nothing_is_left_behind_by_many_calls() -> None:
    async with bench() as b:
        await asyncio.gather(*(b.run(order("echo", b"{}", f"k{n}")) for n in range(500)))
        assert not b.executor._flights and not b.executor._tasks and not b.executor.holds_claims
