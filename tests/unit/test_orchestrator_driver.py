"""The driver: what goes wrong with one run ends that run, with its one terminal event, and touches no other."""

from __future__ import annotations

import asyncio

import pytest

from chassis.faults import Internal, RequestInvalid
from kit.driving import MemoryStore, driving
from kit.loop import CountedTools
from orchestrator.domain import events as e
from orchestrator.domain.run import Recorded
from orchestrator.domain.values import RunId
from orchestrator.operations.ports import Assignment, Batch, Lease


@pytest.mark.feature("R4")
async def test_a_run_is_driven_to_its_end_for_its_own_tenant() -> None:
    store = MemoryStore()
    async with driving(store):
        store.tell(store.open("r"))
        assert isinstance(await store.end_of("r"), e.RunCompleted)
    assert store.tenants == {"acme"}


@pytest.mark.feature("R4")
async def test_an_answer_that_the_store_refuses_fails_its_run_and_no_other() -> None:
    store = MemoryStore()

    def refuse(lease: Lease, batch: Batch) -> None:
        if lease.run_id == "bad" and any(isinstance(r.event, e.ModelFinished) for r in batch.events):
            raise RequestInvalid("events are too many")

    store.before_append = refuse
    async with driving(store):
        store.tell(store.open("bad"), store.open("good"))
        end = await store.end_of("bad")
        assert isinstance(end, e.RunFailed)
        assert end.failure.reason == "REQUEST_INVALID"
        assert isinstance(await store.end_of("good"), e.RunCompleted)
        store.tell(store.open("later"))
        assert isinstance(await store.end_of("later"), e.RunCompleted)


@pytest.mark.feature("R4")
async def test_a_run_that_may_not_add_messages_is_ended_by_its_terminal_event_alone() -> None:
    store = MemoryStore()

    def refuse(lease: Lease, batch: Batch) -> None:
        if batch.entries:
            raise Internal("no messages today")

    store.before_append = refuse
    tools = CountedTools()
    async with driving(store, [[("work", {})], "done"], tools):
        store.tell(store.open("r"))
        assert isinstance(await store.end_of("r"), e.RunFailed)
    assert tools.effects == []


@pytest.mark.feature("R4")
async def test_a_log_that_cannot_be_read_ends_its_run_and_keeps_what_it_consumed() -> None:
    store = MemoryStore()
    assignment = store.open("r")
    log = store.runs[RunId("r")].log
    log.append(Recorded(2, 1000.0, e.UsageRecorded(3, e.Usage(7, 1, calls=1), e.Usage(7, 1, calls=1))))
    log.append(Recorded(3, 1000.0, e.ModelFinished(1, 1, e.Finish.STOP)))
    async with driving(store):
        store.tell(assignment, store.open("good"))
        end = await store.end_of("r")
        assert isinstance(end, e.RunFailed)
        assert end.failure.reason == "INTERNAL"
        assert end.usage.total_tokens == 8
        assert isinstance(await store.end_of("good"), e.RunCompleted)


@pytest.mark.feature("R12")
async def test_a_run_that_is_gone_is_let_go_and_the_driver_goes_on() -> None:
    store = MemoryStore()
    async with driving(store) as driver:
        store.tell(Assignment(RunId("gone"), "acme", 1, 1), store.open("r"))
        await store.end_of("r")
        async with asyncio.timeout(5):
            while driver.driven:
                await asyncio.sleep(0)


@pytest.mark.feature("R12")
async def test_a_run_given_again_under_a_new_epoch_goes_on_although_its_old_drive_still_waits_for_a_tool() -> None:
    store, tools = MemoryStore(), CountedTools(gate=asyncio.Event())
    async with driving(store, [[("work", {})], "done"], tools) as driver:
        assignment = store.open("r")
        store.tell(assignment)
        async with asyncio.timeout(5):
            while "ToolExecutionStarted" not in store.runs[RunId("r")].kinds():
                await asyncio.sleep(0)
        store.epochs[RunId("r")] = 2
        store.tell(Assignment(assignment.run_id, "acme", 2, 1))
        async with asyncio.timeout(5):
            while "RunResumed" not in store.runs[RunId("r")].kinds():
                await asyncio.sleep(0)
        assert driver.driven == 1
        assert tools.gate is not None
        tools.gate.set()
        assert isinstance(await store.end_of("r"), e.RunCompleted)
    assert tools.effects == ["r/1/call_0"]


@pytest.mark.feature("R7")
async def test_a_cancel_whose_wake_was_lost_is_found_when_the_driver_attaches_again() -> None:
    store, tools = MemoryStore(), CountedTools(gate=asyncio.Event())
    async with driving(store, [[("work", {})], "done"], tools):
        assignment = store.open("r")
        store.tell(assignment)
        async with asyncio.timeout(5):
            while "ToolExecutionStarted" not in store.runs[RunId("r")].kinds():
                await asyncio.sleep(0)
        store.runs[RunId("r")].command(e.CancelRequested("nobody told you"))
        store.tell(assignment)  # as the store does with every run it finds in the hands of a driver that attaches
        async with asyncio.timeout(5):
            while not tools.cancelled:
                await asyncio.sleep(0)
        assert tools.gate is not None
        tools.gate.set()
        assert isinstance(await store.end_of("r"), e.RunCancelled)


@pytest.mark.feature("R22")
async def test_places_kept_for_runs_being_opened_count_against_the_room() -> None:
    async with driving(MemoryStore(), room=2) as driver:
        with driver.place() as first, driver.place() as second, driver.place() as third:
            assert (first, second, third) == (driver.id, driver.id, "")
            assert driver.room == 0
        assert driver.room == 2


@pytest.mark.feature("R22")
async def test_room_that_was_told_while_a_place_was_kept_is_told_again_when_the_run_went_elsewhere() -> None:
    store = MemoryStore()
    async with driving(store, room=1) as driver:
        with driver.place():
            driver._changed.set()
            await _signs(store, 2)
        await _signs(store, 3)
        assert [sign.room for sign in store.signs[-2:]] == [0, 1]
        with driver.place():
            pass
        await asyncio.sleep(0)
        assert len(store.signs) == 3


async def _signs(store: MemoryStore, count: int) -> None:
    while len(store.signs) < count:
        await asyncio.sleep(0)


@pytest.mark.feature("R13")
async def test_a_driver_that_leaves_while_a_tool_runs_hands_over_without_an_end() -> None:
    store, tools = MemoryStore(), CountedTools(gate=asyncio.Event())
    async with driving(store, [[("work", {})], "done"], tools):
        store.tell(store.open("r"))
        async with asyncio.timeout(5):
            while "ToolExecutionStarted" not in store.runs[RunId("r")].kinds():
                await asyncio.sleep(0)
    assert store.ends("r") == []
    assert store.signs[-1].leaving
    tools.gate = None
    store.epochs[RunId("r")] = 2
    async with driving(store, [[("work", {})], "done"], tools):
        store.tell(Assignment(RunId("r"), "acme", 2, 1))
        assert isinstance(await store.end_of("r"), e.RunCompleted)
    assert tools.effects == ["r/1/call_0"]
