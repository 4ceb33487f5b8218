"""Leases and hand-outs behave alike on every backend."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as pb
from chassis import faults
from kit.store import (
    CountingIds,
    Driver,
    ManualClock,
    Store,
    appending,
    as_tenant,
    cancelling,
    ending,
    open_driver,
    open_store,
    open_store_on,
    opening,
    queueing,
    read_log,
    settle,
    ticks,
)


async def state(store: Store, run_id: str) -> int:
    return (await store.journal.GetRun(pb.GetRunRequest(run_id=run_id))).run.state


async def next_assignments(driver: Driver, count: int) -> list[pb.Assignment]:
    seen: list[pb.Assignment] = []
    while len(seen) < count:
        seen += (await driver.hear()).assignments
    return seen


@pytest.mark.feature("S6")
async def test_the_first_answer_tells_the_lease(store: Store) -> None:
    driver = Driver(store, "d1")
    driver.say(room=1)
    assert (await driver.hear()).lease_ms == 3000


async def test_a_run_without_a_driver_goes_to_one_with_room_once_there_is_one(store: Store) -> None:
    with as_tenant("other"):
        await store.journal.OpenRun(opening("r1", tenant="other"))
    async with open_driver(store, "full", room=0) as full, open_driver(store, "free", room=1) as free:
        assigned = await free.assignment()
        assert (assigned.run_id, assigned.tenant, assigned.epoch, assigned.sequence) == ("r1", "other", 1, 1)
        await ticks(store, 2)
        assert not full.assigned
        with as_tenant("other"):
            assert await state(store, "r1") == run_pb2.RUN_STATE_RUNNING
            await store.journal.Append(appending("r1", "free", 1, tenant="other"))


async def test_room_is_not_overrun_and_the_rest_waits(store: Store) -> None:
    for number in range(5):
        await store.journal.OpenRun(opening(f"r{number}", session_id=f"s{number}"))
    async with open_driver(store, room=2) as driver:
        assert [each.run_id for each in await next_assignments(driver, 2)] == ["r0", "r1"]
        await ticks(store, 3)
        assert sorted(driver.assigned) == ["r0", "r1"]
        await store.journal.Append(appending("r1", "d1", 1, session_id="s1"))
        await store.journal.Append(ending("r0", "d1", 1, session_id="s0"))
        driver.say(room=1)
        assert (await driver.assignment()).run_id == "r2"


async def test_waiting_runs_are_shared_among_drivers_oldest_first(store: Store) -> None:
    async with open_driver(store, "a") as a, open_driver(store, "b") as b:
        for number in range(6):
            await store.journal.OpenRun(opening(f"r{number}", session_id=f"s{number}"))
        a.say(room=10)
        b.say(room=10)
        await settle(store)
        while len(a.assigned) + len(b.assigned) < 6:
            await (a if len(a.assigned) < 1 else b if len(b.assigned) < 1 else a).hear()
        assert sorted({**a.assigned, **b.assigned}) == [f"r{number}" for number in range(6)]


@pytest.mark.feature("S6")
@pytest.mark.feature("R12")
async def test_a_silent_drivers_runs_go_to_another_and_its_writes_are_refused(store: Store) -> None:
    async with open_driver(store, "silent") as silent, open_driver(store, "alive") as alive:
        await store.journal.OpenRun(opening("r1", driver_id="silent"))
        await store.journal.Append(appending("r1", "silent", 1))
        await ticks(store, 8)
        alive.say(room=1)
        await settle(store)
        await store.journal.Append(appending("r1", "silent", 2))
        assert not alive.assigned
        await ticks(store, 5)
        assigned = await alive.assignment()
        assert (assigned.run_id, assigned.epoch, assigned.sequence) == ("r1", 2, 3)
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r1", "silent", 3))
        await store.journal.Append(appending("r1", "alive", 3, epoch=2))
        silent.say(room=1)
        await settle(store)
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r1", "silent", 4))
        assert await state(store, "r1") == run_pb2.RUN_STATE_RUNNING


@pytest.mark.feature("S6")
async def test_each_sign_of_life_renews_all_leases(store: Store) -> None:
    async with open_driver(store) as driver:
        for number in range(3):
            await store.journal.OpenRun(opening(f"r{number}", session_id=f"s{number}", driver_id="d1"))
        for _ in range(6):
            await ticks(store, 4)
            driver.say()
            await settle(store)
        for number in range(3):
            await store.journal.Append(appending(f"r{number}", "d1", 1, session_id=f"s{number}"))


@pytest.mark.feature("R12")
async def test_a_broken_streams_runs_are_handed_over_after_a_grace(store: Store) -> None:
    async with open_driver(store, "alive", room=1) as alive:
        async with open_driver(store, "broken"):
            await store.journal.OpenRun(opening("r1", driver_id="broken"))
        await settle(store)
        await ticks(store, 3)
        await store.journal.Append(appending("r1", "broken", 1))
        await ticks(store, 2)
        assert (await alive.assignment()).epoch == 2
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r1", "broken", 2))


@pytest.mark.feature("S6")
async def test_a_driver_that_comes_back_in_time_keeps_its_runs_and_is_told_of_them(store: Store) -> None:
    async with open_driver(store, "d1"):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await ticks(store, 2)
    again = Driver(store, "d1")
    again.say(room=1)
    (held,) = (await again.hear()).assignments
    assert (held.run_id, held.epoch) == ("r1", 1)
    await ticks(store, 8)
    await store.journal.Append(appending("r1", "d1", 1))


@pytest.mark.feature("S6")
async def test_a_driver_that_comes_back_too_late_gets_nothing_back(store: Store) -> None:
    async with open_driver(store, "d1"):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        await ticks(store, 14)
        again = Driver(store, "d1")
        again.say(room=0)
        assert not (await again.hear()).assignments
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r1", "d1", 1))


async def test_a_driver_that_attaches_twice_is_heard_on_the_newer_stream(store: Store) -> None:
    async with open_driver(store, "d1") as older, open_driver(store, "d1", room=1) as newer:
        with pytest.raises(StopAsyncIteration):
            await older.hear()
        await store.journal.OpenRun(opening("r1"))
        assert (await newer.assignment()).run_id == "r1"
        await ticks(store, 8)
        await store.journal.Append(appending("r1", "d1", 1))


@pytest.mark.feature("R13")
async def test_a_leaving_drivers_runs_go_to_others_at_once(store: Store) -> None:
    async with open_driver(store, "leaving") as leaving, open_driver(store, "stays", room=5) as stays:
        for number in range(3):
            await store.journal.OpenRun(opening(f"r{number}", session_id=f"s{number}", driver_id="leaving"))
        leaving.say(leaving=True)
        assert {(each.run_id, each.epoch) for each in await next_assignments(stays, 3)} == {("r0", 2), ("r1", 2), ("r2", 2)}
        with pytest.raises(StopAsyncIteration):
            await leaving.hear()
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r0", "leaving", 1, session_id="s0"))


async def test_a_released_run_goes_to_another_and_the_others_stay(store: Store) -> None:
    async with open_driver(store, "gives") as gives, open_driver(store, "takes", room=5) as takes:
        for number in range(2):
            await store.journal.OpenRun(opening(f"r{number}", session_id=f"s{number}", driver_id="gives"))
        gives.say(released=("r0", "unknown"))
        assert (await takes.assignment()).run_id == "r0"
        await store.journal.Append(appending("r1", "gives", 1, session_id="s1"))
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r0", "gives", 1, session_id="s0"))


async def test_a_driver_cannot_release_anothers_run(store: Store) -> None:
    async with open_driver(store, "owner"), open_driver(store, "thief", room=1) as thief:
        await store.journal.OpenRun(opening("r1", driver_id="owner"))
        thief.say(room=1, released=("r1",))
        await settle(store)
        await store.journal.Append(appending("r1", "owner", 1))


@pytest.mark.feature("R12")
async def test_an_assignment_that_is_not_answered_is_told_again(store: Store) -> None:
    async with open_driver(store) as driver:
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        await store.journal.OpenRun(opening("r2", session_id="t", driver_id="d1"))
        await store.journal.Append(appending("r2", "d1", 1, session_id="t"))
        for _ in range(2):
            await ticks(store, 5)
            driver.say()
            assert [(each.run_id, each.epoch) for each in (await driver.hear()).assignments] == [("r1", 1)]
        await store.journal.Append(appending("r1", "d1", 1))
        await ticks(store, 5)
        await store.journal.RecordCommand(cancelling("r1"))
        assert not (await driver.hear()).assignments


async def test_a_command_wakes_only_the_runs_driver(store: Store) -> None:
    async with open_driver(store, "a") as a, open_driver(store, "b") as b:
        await store.journal.OpenRun(opening("r1", driver_id="a"))
        await store.journal.OpenRun(opening("r2", session_id="t", driver_id="b"))
        await store.journal.RecordCommand(cancelling("r1"))
        await store.journal.RecordCommand(cancelling("r2"))
        assert list((await a.hear()).wake_run_ids) == ["r1"]
        assert list((await b.hear()).wake_run_ids) == ["r2"]


async def test_a_driver_must_keep_its_name_and_tell_a_possible_room(store: Store) -> None:
    for wrong in (pb.DriveRequest(driver_id="", room=1), pb.DriveRequest(driver_id="d1", room=-1)):
        driver = Driver(store, "d1")
        driver._said.put_nowait(wrong)
        with pytest.raises(faults.RequestInvalid):
            await driver.hear()
    async with open_driver(store, "d1") as driver:
        driver.id = "d2"
        driver.say()
        with pytest.raises(faults.RequestInvalid, match="driver_id"):
            await driver.hear()


@pytest.mark.feature("O6")
async def test_a_store_that_leaves_sends_its_drivers_on(store: Store) -> None:
    async with open_driver(store) as driver:
        await store.drain()  # type: ignore[misc]
        with pytest.raises(faults.ShuttingDown):
            await driver.hear()
        with pytest.raises(faults.ShuttingDown):
            async with open_driver(store, "d2"):
                pass


@pytest.mark.feature("S6")
@pytest.mark.feature("R12")
async def test_leases_survive_a_restart_of_the_store(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_store("sqlite", tmp_path, clock, CountingIds("x")) as store, open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
    clock.advance(1)
    async with open_store("sqlite", tmp_path, clock, CountingIds("y")) as store:
        await ticks(store, 2)
        await store.journal.Append(appending("r1", "d1", 1))
        async with open_driver(store) as driver:
            assert driver.assigned["r1"].epoch == 1
            await ticks(store, 8)
            await store.journal.Append(appending("r1", "d1", 2))


@pytest.mark.feature("R12")
async def test_orphans_and_waiting_runs_are_found_after_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_store("sqlite", tmp_path, clock, CountingIds("x")) as store, open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        await store.journal.OpenRun(opening("r2", session_id="t"))
        await store.journal.OpenRun(queueing("r3"))
    clock.advance(10)
    async with open_store("sqlite", tmp_path, clock, CountingIds("y")) as store, open_driver(store, "d2", room=5) as driver:
        found = await next_assignments(driver, 2)
        assert [(each.run_id, each.epoch) for each in found] == [("r1", 2), ("r2", 1)]
        await store.journal.Append(ending("r1", "d2", 1, epoch=2))
        assert (await driver.assignment()).run_id == "r3"


@pytest.mark.feature("S6")
async def test_a_driver_that_moved_to_another_replica_keeps_its_runs(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        open_store("sqlite", tmp_path, clock, CountingIds("x")) as here,
        open_store_on(here.storage, clock, CountingIds("y")) as there,
    ):
        async with open_driver(here, "d1"):
            await here.journal.OpenRun(opening("r1", driver_id="d1"))
        async with open_driver(there, "d1", room=1) as driver:
            assert driver.assigned["r1"].epoch == 1
            await ticks(here, 10)
            await there.journal.Append(appending("r1", "d1", 1))


async def test_a_command_recorded_on_another_replica_wakes_the_driver_too(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        open_store("sqlite", tmp_path, clock, CountingIds("x")) as here,
        open_store("sqlite", tmp_path, clock, CountingIds("y")) as there,
        open_driver(here) as driver,
    ):
        await here.journal.OpenRun(opening("r1", driver_id="d1"))
        await there.journal.RecordCommand(cancelling("r1"))
        hearing = asyncio.ensure_future(driver.hear())
        await ticks(here, 4)
        assert list((await hearing).wake_run_ids) == ["r1"]


@pytest.mark.feature("R22")
async def test_many_runs_and_drivers_that_come_and_go_end_every_run_once(store: Store) -> None:
    """Drivers appear, leave and die; each run still gets exactly one end, written by whoever held it."""
    runs = [f"r{number:02d}" for number in range(30)]
    for run in runs:
        await store.journal.OpenRun(queueing(run, session_id=f"s{int(run[1:]) % 7}"))

    ended: set[str] = set()

    async def work(driver: Driver, enough: int) -> None:
        while len(ended) < enough:
            for assigned in (await driver.hear()).assignments:
                session = f"s{int(assigned.run_id[1:]) % 7}"
                request = ending(assigned.run_id, driver.id, assigned.sequence, epoch=assigned.epoch, session_id=session)
                with contextlib.suppress(faults.LeaseLost, faults.RunEnded):
                    await store.journal.Append(request)
                    ended.add(assigned.run_id)

    async def live(*drivers: Driver) -> None:
        while True:
            store.clock.advance(0.25)
            for driver in drivers:
                driver.say(room=3)
            await asyncio.sleep(0.002)

    async with open_driver(store, "dies", room=4), open_driver(store, "works", room=3) as works:
        living = asyncio.ensure_future(live(works))
        await asyncio.wait_for(work(works, 10), 10)
        living.cancel()
        works.say(leaving=True)
    async with open_driver(store, "last", room=3) as last:
        living = asyncio.ensure_future(live(last))
        await asyncio.wait_for(work(last, len(runs)), 20)
        living.cancel()
    for run in runs:
        assert [each.WhichOneof("kind") for each in await read_log(store, run)] == ["run_created", "run_completed"]


@pytest.mark.feature("S6")
@pytest.mark.feature("R12")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_wall_clock_that_jumps_takes_no_run_from_a_driver_and_leaves_none_with_a_dead_one(store: Store, jump: float) -> None:
    async with open_driver(store, "lives", room=2) as lives, open_driver(store, "dies") as dies:
        await store.journal.OpenRun(opening("r1", driver_id="lives"))
        await store.journal.OpenRun(opening("r2", "t", driver_id="dies"))
        await store.journal.Append(appending("r1", "lives", 1))
        store.clock.jump(jump)
        for _ in range(20):
            lives.say(room=1)
            await ticks(store)
        await store.journal.Append(appending("r1", "lives", 2))
        assert (await lives.assignment()).run_id == "r2"
        with pytest.raises(faults.LeaseLost):
            await store.journal.Append(appending("r2", "dies", 1, session_id="t"))
        dies.stop_talking()
