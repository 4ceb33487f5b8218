"""Who gets a driver next, how many may run and wait, and what becomes of those who wait too long behave alike on every backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

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
from session_store.domain.priority import PRIORITY_SECONDS
from session_store.domain.schedule import RunLimits, TenantLimits
from session_store.domain.session import Tenant

Opens = Callable[[RunLimits], AbstractAsyncContextManager[Store]]


@pytest.fixture(params=sorted(BACKENDS))
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    """Opens a store with limits."""
    return lambda limits: open_store(request.param, tmp_path, limits=limits)


def at_most(running: int = 100, waiting: int = 100, in_all: int = 1000, **tenants: TenantLimits) -> RunLimits:
    return RunLimits(in_all, TenantLimits(running, waiting), {Tenant(name): own for name, own in tenants.items()})


async def open_run(store: Store, run_id: str, tenant: str = "default", priority: int = 0, **values: object) -> pb.OpenRunResponse:
    """A run in a session of its own, which has the run's name."""
    request = opening(run_id, f"s-{run_id}", tenant, **values)
    request.run.priority = priority  # type: ignore[assignment]
    with as_tenant(tenant):
        return await store.journal.OpenRun(request)


async def end(store: Store, run_id: str, tenant: str = "default", driver: str = "d1", after: int = 1, kind: str = "run_completed") -> None:
    with as_tenant(tenant):
        await store.journal.Append(ending(run_id, driver, after, kind=kind, session_id=f"s-{run_id}", tenant=tenant))


async def state(store: Store, run_id: str, tenant: str = "default") -> int:
    with as_tenant(tenant):
        return (await store.journal.GetRun(pb.GetRunRequest(run_id=run_id))).run.state


async def order_of(driver: Driver, count: int) -> list[str]:
    """The runs that a driver is given."""
    while len(driver.assigned) < count:
        await driver.hear()
    return list(driver.assigned)


@pytest.mark.feature("R22")
async def test_a_tenant_with_many_waiting_runs_does_not_starve_one_with_few(store: Store) -> None:
    for number in range(30):
        await open_run(store, f"many{number:02d}", "many")
    await open_run(store, "few", "few")
    await open_run(store, "one", "one")
    async with open_driver(store, room=3) as driver:
        assert await order_of(driver, 3) == ["many00", "few", "one"]


@pytest.mark.feature("R22")
async def test_a_freed_place_goes_to_the_tenant_that_runs_least(limited: Opens) -> None:
    async with limited(at_most(in_all=3)) as store:
        for number in range(6):
            await open_run(store, f"a{number}", "a")
        async with open_driver(store, room=99) as driver:
            assert await order_of(driver, 3) == ["a0", "a1", "a2"]
            for number in range(3):
                await open_run(store, f"b{number}", "b")
            for freed, expected in (("a0", "b0"), ("b0", "b1"), ("a1", "a3")):
                await end(store, freed, freed[0])
                assert (await order_of(driver, len(driver.assigned) + 1))[-1] == expected


@pytest.mark.feature("R22")
async def test_more_tenants_than_are_looked_at_in_one_round_all_get_their_turn(store: Store) -> None:
    for number in range(150):
        await open_run(store, "r", f"t{number:03d}")
    seen: set[str] = set()
    async with open_driver(store, room=1) as driver:
        while len(seen) < 150:
            for given in (await driver.hear()).assignments:
                seen.add(given.tenant)
                await end(store, "r", given.tenant)
                driver.say(room=1)


@pytest.mark.feature("R22")
async def test_a_higher_priority_goes_first_and_waiting_makes_up_for_it(store: Store) -> None:
    for name, priority in (("low", 1), ("unset", 0), ("normal", 2), ("high", 3)):
        opened = await open_run(store, name, priority=priority)
        assert opened.run.priority == (priority or run_pb2.RUN_PRIORITY_NORMAL)
        store.clock.advance(1)
    store.clock.advance(PRIORITY_SECONDS)
    await open_run(store, "late-high", priority=3)
    await open_run(store, "late", priority=2)
    async with open_driver(store, room=9) as driver:
        assert await order_of(driver, 6) == ["high", "unset", "normal", "late-high", "low", "late"]


@pytest.mark.feature("R22")
async def test_a_priority_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(faults.RequestInvalid, match=r"run\.priority"):
        await open_run(store, "r", priority=7)


@pytest.mark.feature("R22")
@pytest.mark.feature("R6")
async def test_within_a_session_the_order_of_creation_counts_more_than_priority(store: Store) -> None:
    async with open_driver(store) as driver:
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        for name, priority in (("r2", 1), ("r3", 3)):
            request = queueing(name)
            request.run.priority = priority  # type: ignore[assignment]
            await store.journal.OpenRun(request)
        driver.say(room=9)
        for run, after in (("r1", "r2"), ("r2", "r3")):
            await store.journal.Append(ending(run, "d1", 1))
            while after not in driver.assigned:
                await driver.hear()


@pytest.mark.feature("R22")
async def test_who_opens_a_run_does_not_overtake_those_that_wait(store: Store) -> None:
    async with open_driver(store) as driver:
        await open_run(store, "waits", "other")
        opened = await open_run(store, "new", driver_id="d1")
        assert (opened.epoch, opened.run.state) == (0, run_pb2.RUN_STATE_QUEUED)
        driver.say(room=1)
        assert await order_of(driver, 1) == ["waits"]
        assert (await open_run(store, "newer", driver_id="d1")).epoch == 0
        driver.say(room=9)
        assert await order_of(driver, 3) == ["waits", "new", "newer"]
        assert (await open_run(store, "newest", driver_id="d1")).epoch == 1


@pytest.mark.feature("R22")
async def test_a_run_over_its_tenants_limit_waits_until_one_of_them_ends(limited: Opens) -> None:
    async with limited(at_most(running=2)) as store, open_driver(store, room=9) as driver:
        assert [(await open_run(store, f"r{n}", driver_id="d1")).epoch for n in range(4)] == [1, 1, 0, 0]
        assert [await state(store, f"r{n}") for n in range(4)] == [2, 2, 1, 1]
        with_room = await open_run(store, "other", "other", driver_id="d1")
        await settle(store)
        assert with_room.epoch or "other" in await order_of(driver, 1)
        await ticks(store, 2)
        assert "r2" not in driver.assigned
        await end(store, "r0")
        while "r2" not in driver.assigned:
            await driver.hear()
        assert await state(store, "r2") == 2 and await state(store, "r3") == 1


@pytest.mark.feature("R22")
async def test_no_more_runs_run_in_all_than_may(limited: Opens) -> None:
    async with limited(at_most(in_all=3)) as store, open_driver(store, room=9) as driver:
        opened = [await open_run(store, f"r{n}", f"t{n}", driver_id="d1") for n in range(5)]
        assert [each.epoch for each in opened] == [1, 1, 1, 0, 0]
        await ticks(store, 2)
        assert not driver.assigned
        await end(store, "r1", "t1")
        assert await order_of(driver, 1) == ["r3"]


@pytest.mark.feature("R22")
async def test_too_many_waiting_runs_are_refused_with_the_limit_and_when_to_retry(limited: Opens) -> None:
    limits = at_most(running=1, waiting=2, roomy=TenantLimits(1, 5))
    async with limited(limits) as store, open_driver(store):
        await open_run(store, "runs", driver_id="d1")
        await open_run(store, "w1")
        with as_tenant("default"):
            await store.journal.OpenRun(queueing("w2", "s-runs"))
        with pytest.raises(faults.RunsExhausted, match="limits") as caught:
            await open_run(store, "w3", driver_id="d1")
        assert caught.value.metadata == {"tenant": "default", "limit": "2", "limit_name": "waiting_runs_per_tenant"}
        assert caught.value.retry_after
        with pytest.raises(faults.SessionNotFound):
            await store.sessions.GetSession(session_pb.GetSessionRequest(session_id="s-w3"))
        for number in range(4):
            await open_run(store, f"roomy{number}", "roomy")
        await open_run(store, "other", "other")


@pytest.mark.feature("R22")
async def test_places_of_waiting_runs_are_free_again_when_they_are_cancelled_or_begin(limited: Opens) -> None:
    async with limited(at_most(running=1, waiting=1)) as store, open_driver(store, room=5) as driver:
        await open_run(store, "runs", driver_id="d1")
        await open_run(store, "waits")
        await store.journal.RecordCommand(cancelling("waits"))
        assert await order_of(driver, 1) == ["waits"]
        await end(store, "waits", after=2, kind="run_cancelled")
        await open_run(store, "waits2")
        with pytest.raises(faults.RunsExhausted):
            await open_run(store, "waits3")
        await end(store, "runs")
        assert "waits2" in await order_of(driver, 2)
        await open_run(store, "waits3")


@pytest.mark.feature("R22")
@pytest.mark.feature("S7")
async def test_a_deleted_sessions_runs_count_no_more(limited: Opens) -> None:
    async with limited(at_most(running=1)) as store, open_driver(store) as driver:
        for number in range(3):
            await open_run(store, f"r{number}", driver_id="d1")
            await end(store, f"r{number}")
            await store.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id=f"s-r{number}"))
        assert (await open_run(store, "last", driver_id=driver.id)).epoch == 1


@pytest.mark.feature("R22")
@pytest.mark.feature("R12")
async def test_a_run_that_lost_its_driver_keeps_its_place_and_goes_first(limited: Opens) -> None:
    async with limited(at_most(running=2)) as store, open_driver(store, "alive") as alive:
        async with open_driver(store, "dies"):
            await open_run(store, "orphan", driver_id="dies")
        await open_run(store, "waits")
        await ticks(store, 14)
        assert await state(store, "orphan") == run_pb2.RUN_STATE_RUNNING
        alive.say(room=1)
        assert await order_of(alive, 1) == ["orphan"]
        alive.say(room=9)
        assert await order_of(alive, 2) == ["orphan", "waits"]


@pytest.mark.feature("R22")
async def test_limits_count_the_runs_of_all_replicas(tmp_path: Path) -> None:
    clock, limits = ManualClock(), at_most(running=2, waiting=1)
    async with (
        open_store("sqlite", tmp_path, clock, CountingIds("x"), limits) as here,
        open_store("sqlite", tmp_path, clock, CountingIds("y"), limits) as there,
        open_driver(here, "h", room=9),
        open_driver(there, "t", room=9) as driver,
    ):
        assert (await open_run(here, "r1", driver_id="h")).epoch == 1
        assert (await open_run(there, "r2", driver_id="t")).epoch == 1
        assert (await open_run(here, "r3", driver_id="h")).epoch == 0
        with pytest.raises(faults.RunsExhausted):
            await open_run(there, "r4", driver_id="t")
        await end(here, "r1", driver="h")
        await ticks(there, 2)
        await settle(here)
        assert await state(here, "r3") == run_pb2.RUN_STATE_RUNNING
        assert (await open_run(there, "r4", driver_id="t")).epoch == 0
        assert driver.assigned.keys() <= {"r3"}


@pytest.mark.feature("R7")
@pytest.mark.parametrize("place", ["behind its session", "for a driver"])
async def test_a_cancelled_waiting_run_is_ended_by_a_driver_without_room(store: Store, place: str) -> None:
    async with open_driver(store) as driver:
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        await store.journal.OpenRun(queueing("r2") if place == "behind its session" else opening("r2", "t"))
        await store.journal.RecordCommand(cancelling("r2"))
        assert await order_of(driver, 1) == ["r2"]
        assert await state(store, "r2") == run_pb2.RUN_STATE_QUEUED
        session_id = "s" if place == "behind its session" else "t"
        await store.journal.Append(ending("r2", "d1", 2, kind="run_cancelled", session_id=session_id))
        assert await state(store, "r2") == run_pb2.RUN_STATE_CANCELLED


@pytest.mark.feature("R5")
async def test_runs_that_wait_too_long_are_handed_out_to_be_ended_without_room(store: Store) -> None:
    async with open_driver(store) as driver:
        await store.journal.OpenRun(opening("active", driver_id="d1"))
        await store.journal.OpenRun(queueing("behind", max_wait_ms=60_000))
        await open_run(store, "undriven", max_wait_ms=60_000)
        await open_run(store, "patient")
        for _ in range(59):
            driver.say()
            await ticks(store, 1, seconds=1.0)
        assert "behind" not in driver.assigned and "undriven" not in driver.assigned
        for _ in range(2):
            driver.say()
            await ticks(store, 1, seconds=1.0)
        while not {"behind", "undriven"} <= driver.assigned.keys():
            await driver.hear()
        assert "patient" not in driver.assigned
        await end(store, "undriven", kind="run_failed")
        await store.journal.Append(ending("behind", "d1", 1, kind="run_failed"))
        await store.journal.Append(appending("active", "d1", 1))
        assert (await store.sessions.GetSession(session_pb.GetSessionRequest(session_id="s"))).session.active_run_id == "active"


@pytest.mark.feature("R5")
async def test_a_run_that_began_in_time_is_not_bothered(store: Store) -> None:
    async with open_driver(store) as driver:
        await open_run(store, "r", driver_id="d1", max_wait_ms=1000)
        for _ in range(8):
            driver.say()
            await ticks(store, 1)
        with as_tenant("default"):
            await store.journal.Append(appending("r", "d1", 1, session_id="s-r"))
        assert [event.WhichOneof("kind") for event in await read_log(store, "r")] == ["run_created", "text_delta"]


async def test_more_runs_than_fit_into_one_round_are_all_handed_out_in_order(store: Store) -> None:
    for number in range(200):
        await open_run(store, f"r{number:03d}")
    async with open_driver(store, room=500) as driver, open_store_on(store.storage, store.clock):
        assert await order_of(driver, 200) == [f"r{number:03d}" for number in range(200)]
