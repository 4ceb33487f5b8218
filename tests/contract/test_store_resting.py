"""Runs that await approval: nobody drives them, and they go on when a command or the time says so, alike on every backend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as pb
from behest.session.v1 import session_service_pb2 as session_pb
from chassis import faults
from kit.store import (
    BACKENDS,
    CountingIds,
    Driver,
    ManualClock,
    Store,
    appending,
    cancelling,
    ending,
    event,
    interrupting,
    open_driver,
    open_store,
    open_store_on,
    opening,
    queueing,
    read_log,
    settle,
    ticks,
    user,
)
from session_store.adapters.memory.storage import MemoryStorage
from session_store.domain.schedule import RunLimits, TenantLimits

MINUTE = 60_000
AWAITING, QUEUED, RUNNING = run_pb2.RUN_STATE_AWAITING_APPROVAL, run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_RUNNING


def resting(
    run_id: str, driver_id: str = "d1", after: int = 1, *, epoch: int = 1, session_id: str = "s", wait_ms: int = MINUTE
) -> pb.AppendRequest:
    """The append by which a driver lets go of a run."""
    asked = event(run_id, after + 1, session_id=session_id, kind="approval_requested")
    patch = pb.RunPatch(state=AWAITING)
    return pb.AppendRequest(
        run_id=run_id, driver_id=driver_id, epoch=epoch, expected_sequence=after, events=[asked], patch=patch, wait_ms=wait_ms
    )


def deciding(run_id: str, **values: object) -> pb.RecordCommandRequest:
    """A decision about a call."""
    resolved = event_pb2.ApprovalResolved(approval_id=f"{run_id}/1/c", decision=event_pb2.APPROVAL_DECISION_APPROVE, principal="ann")
    return pb.RecordCommandRequest(run_id=run_id, event=event_pb2.Event(approval_resolved=resolved), **values)  # type: ignore[arg-type]


async def state(store: Store, run_id: str) -> int:
    return (await store.journal.GetRun(pb.GetRunRequest(run_id=run_id))).run.state


async def rest(store: Store, run_id: str = "r1", session_id: str = "s", wait_ms: int = MINUTE) -> None:
    """A run that awaits approval: the driver d1, which must be attached, let go of it."""
    await store.journal.OpenRun(opening(run_id, session_id, driver_id="d1"))
    await store.journal.Append(resting(run_id, session_id=session_id, wait_ms=wait_ms))


@pytest.mark.feature("R15")
async def test_a_run_that_awaits_approval_has_no_driver_and_is_handed_to_nobody(store: Store) -> None:
    async with open_driver(store, room=3) as driver:
        await rest(store)
        await ticks(store, 20)
        assert await state(store, "r1") == AWAITING
        assert not driver.assigned
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r1", "d1", 2))


@pytest.mark.feature("R15")
async def test_a_decision_hands_it_to_a_driver_at_a_greater_epoch(store: Store) -> None:
    async with open_driver(store, room=3) as driver:
        await rest(store)
        recorded = await store.journal.RecordCommand(deciding("r1"))
        assert (recorded.sequence, recorded.run.state) == (3, QUEUED)
        assigned = await driver.assignment()
        assert (assigned.run_id, assigned.epoch, assigned.sequence) == ("r1", 2, 3)
        assert await state(store, "r1") == RUNNING
        await store.journal.Append(appending("r1", "d1", 3, epoch=2))
        await store.journal.Append(ending("r1", "d1", 4, epoch=2))
        assert [each.sequence for each in await read_log(store, "r1")] == [1, 2, 3, 4, 5]


@pytest.mark.feature("R15")
async def test_a_command_that_decides_nothing_leaves_it_alone(store: Store) -> None:
    async with open_driver(store, room=3) as driver:
        await rest(store)
        await store.journal.RecordCommand(deciding("r1", keeps_waiting=True))
        said = event_pb2.Event(input_received={"message_id": "m", "input": user("and")})
        await store.journal.RecordCommand(pb.RecordCommandRequest(run_id="r1", event=said))
        await ticks(store, 3)
        assert await state(store, "r1") == AWAITING
        assert not driver.assigned


@pytest.mark.feature("A3")
async def test_a_run_that_nobody_decided_about_is_handed_out_when_its_time_has_come(store: Store) -> None:
    async with open_driver(store, room=3) as driver:
        await rest(store, wait_ms=1000)
        await ticks(store, 3)
        assert not driver.assigned
        await ticks(store, 2)
        assert (await driver.assignment()).run_id == "r1"
        assert await state(store, "r1") == RUNNING


@pytest.mark.feature("R7")
async def test_a_cancelled_one_is_ended_by_a_driver_without_room(store: Store) -> None:
    async with open_driver(store, room=0) as driver:
        await rest(store)
        await store.journal.RecordCommand(cancelling("r1"))
        assert (await driver.assignment()).run_id == "r1"
        await store.journal.Append(ending("r1", "d1", 3, epoch=2, kind="run_cancelled"))
        assert await state(store, "r1") == run_pb2.RUN_STATE_CANCELLED


@pytest.mark.feature("R5")
async def test_one_whose_wall_time_has_passed_is_ended_by_a_driver_without_room(store: Store) -> None:
    async with open_driver(store, room=0) as driver:
        await store.journal.OpenRun(opening("r1", driver_id="d1", max_wait_ms=1000))
        await store.journal.Append(resting("r1", wait_ms=1000))
        await ticks(store, 5)
        assert (await driver.assignment()).run_id == "r1"


@pytest.mark.feature("R6")
async def test_its_session_stays_busy_and_an_interrupting_run_ends_it(store: Store) -> None:
    async with open_driver(store, room=3) as driver:
        await rest(store)
        with pytest.raises(faults.SessionBusy):
            await store.journal.OpenRun(opening("r2"))
        with pytest.raises(faults.SessionBusy):
            await store.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id="s"))
        await store.journal.OpenRun(interrupting("r2"))
        assert (await driver.assignment()).run_id == "r1"
        await store.journal.Append(ending("r1", "d1", 3, epoch=2, kind="run_cancelled"))
        assert (await driver.assignment()).run_id == "r2"


@pytest.mark.feature("R22")
async def test_it_takes_no_place_among_the_running_and_gets_one_again_when_there_is_one(tmp_path: Path) -> None:
    for backend in sorted(BACKENDS):
        limits = RunLimits(each=TenantLimits(running=1))
        async with open_store(backend, tmp_path, limits=limits) as store, open_driver(store, room=3) as driver:
            await rest(store, "r1", "s1")
            await store.journal.OpenRun(opening("r2", "s2"))
            assert (await driver.assignment()).run_id == "r2"
            await store.journal.RecordCommand(deciding("r1"))
            await ticks(store, 3)
            assert await state(store, "r1") == QUEUED
            await store.journal.Append(ending("r2", "d1", 1, session_id="s2"))
            assert (await driver.assignment()).run_id == "r1"


@pytest.mark.feature("R12")
async def test_it_awaits_its_approval_over_a_restart_of_the_store(tmp_path: Path) -> None:
    for backend in ("sqlite", "postgres"):
        clock = ManualClock()
        async with open_store(backend, tmp_path, clock) as store, open_driver(store, room=3):
            await rest(store, wait_ms=MINUTE)
        async with open_store(backend, tmp_path, clock, CountingIds("again")) as store, open_driver(store, "d2", room=3) as driver:
            await ticks(store, 3)
            assert await state(store, "r1") == AWAITING and not driver.assigned
            await store.journal.RecordCommand(deciding("r1"))
            assert (await driver.assignment()).epoch == 2


@pytest.mark.feature("R12")
async def test_a_driver_that_dies_after_it_was_woken_is_followed_by_another(store: Store) -> None:
    async with open_driver(store, "d1", room=3) as first:
        await rest(store)
        await store.journal.RecordCommand(deciding("r1"))
        assert (await first.assignment()).epoch == 2
    await ticks(store, 8)
    async with open_driver(store, "d2", room=1) as second:
        assert (await second.assignment()).epoch == 3


@pytest.mark.feature("A3")
async def test_a_command_that_expects_another_end_of_the_log_is_refused_and_of_many_one_is_recorded(store: Store, driver: Driver) -> None:
    await rest(store)
    with pytest.raises(faults.SequenceConflict):
        await store.journal.RecordCommand(deciding("r1", expected_sequence=1))
    outcomes = await asyncio.gather(
        *(store.journal.RecordCommand(deciding("r1", expected_sequence=2, request_id=f"q{i}")) for i in range(4)), return_exceptions=True
    )
    assert sum(isinstance(outcome, faults.SequenceConflict) for outcome in outcomes) == 3
    assert len(await read_log(store, "r1")) == 3


@pytest.mark.feature("R7")
async def test_a_recorded_command_is_found_by_its_request_though_the_log_has_moved_on(store: Store, driver: Driver) -> None:
    await rest(store)
    first = await store.journal.RecordCommand(deciding("r1", expected_sequence=2, request_id="q", payload_digest="p"))
    again = await store.journal.RecordCommand(deciding("r1", expected_sequence=-1, request_id="q", payload_digest="p"))
    assert first.sequence == again.sequence == 3
    with pytest.raises(faults.SequenceConflict):
        await store.journal.RecordCommand(deciding("r1", expected_sequence=-1, request_id="new"))
    with pytest.raises(faults.RequestInvalid, match="expected_sequence"):
        await store.journal.RecordCommand(deciding("r1", expected_sequence=-2))


async def test_the_wait_and_the_state_come_together_or_not_at_all(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    without = resting("r1")
    without.ClearField("wait_ms")
    alone = appending("r1", "d1", 1)
    alone.wait_ms = MINUTE
    for wrong in (without, alone):
        with pytest.raises(faults.RequestInvalid, match="AWAITING_APPROVAL"):
            await store.journal.Append(wrong)


@pytest.mark.feature("A4")
async def test_runs_that_await_approval_are_listed_and_counted(store: Store) -> None:
    async with open_driver(store, room=3):
        await rest(store, "r1", "s1")
        await store.journal.OpenRun(opening("r2", "s2"))
        listed = await store.journal.ListRuns(pb.ListRunsRequest(states=[AWAITING]))
        assert [run.id for run in listed.runs] == ["r1"]
        await store.journal.RecordCommand(deciding("r1"))
        assert not (await store.journal.ListRuns(pb.ListRunsRequest(states=[AWAITING]))).runs
        for scope in ({}, {"session_id": "s1"}):
            ever = await store.journal.ListRuns(pb.ListRunsRequest(ever_awaited_approval=True, **scope))
            assert [run.id for run in ever.runs] == ["r1"]
        assert not (await store.journal.ListRuns(pb.ListRunsRequest(ever_awaited_approval=True, session_id="s2"))).runs


@pytest.mark.feature("S8")
async def test_a_run_that_awaits_approval_is_counted_as_such(store: Store) -> None:
    async with open_driver(store, room=3):
        await rest(store, "r1", "s1")
        await store.journal.OpenRun(opening("r2", "s2"))
        counted = await store.sessions.GetStatistics(session_pb.GetStatisticsRequest())
        assert (counted.total.runs, counted.total.runs_awaiting_approval) == (2, 1)


@pytest.mark.feature("S4")
async def test_a_decision_at_another_replica_reaches_a_driver_here() -> None:

    clock, storage = ManualClock(), MemoryStorage()
    async with (
        open_store_on(storage, clock, CountingIds("x")) as here,
        open_store_on(storage, clock, CountingIds("y")) as there,
        open_driver(here, room=3) as driver,
    ):
        await rest(there)
        await settle(here)
        await there.journal.RecordCommand(deciding("r1"))
        while (assigned := await driver.assignment()).epoch == 1:
            """It may be told of its opening first."""
        assert (assigned.run_id, assigned.epoch) == ("r1", 2)


@pytest.mark.feature("R6")
async def test_runs_that_queue_behind_it_wait_on(store: Store, driver: Driver) -> None:
    await rest(store)
    await store.journal.OpenRun(queueing("r2"))
    driver.say(room=3)
    await ticks(store, 3)
    assert not driver.assigned
