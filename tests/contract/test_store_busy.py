"""What becomes of a run whose session is busy behaves alike on every backend: it interrupts, forks, waits or is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as pb
from behest.session.v1 import session_pb2
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
    assistant,
    ending,
    forking,
    interrupting,
    open_driver,
    open_store,
    open_store_on,
    opening,
    queueing,
    read_log,
    read_messages,
    stored,
    ticks,
)


@pytest.fixture(params=sorted(BACKENDS))
async def replicas(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """Two stores on one storage; where it can be opened twice, as two processes do it."""
    clock = ManualClock()
    async with open_store(request.param, tmp_path, clock, CountingIds("x")) as here:
        if request.param == "memory":
            async with open_store_on(here.storage, clock, CountingIds("y")) as there:
                yield here, there
        else:
            async with open_store(request.param, tmp_path, clock, CountingIds("y")) as there:
                yield here, there


async def get(store: Store, run_id: str) -> run_pb2.Run:
    return (await store.journal.GetRun(pb.GetRunRequest(run_id=run_id))).run


async def session_of(store: Store, session_id: str = "s") -> session_pb2.Session:
    return (await store.sessions.GetSession(session_pb.GetSessionRequest(session_id=session_id))).session


async def texts(store: Store, session_id: str = "s") -> list[tuple[int, str]]:
    return [(message.position, message.id) for message in await read_messages(store, session_id)]


async def next_assignment(driver: Driver, run_id: str) -> pb.Assignment:
    while run_id not in driver.assigned:
        await driver.hear()
    return driver.assigned[run_id]


async def have_a_history(store: Store) -> None:
    """A session with one exchange behind it, and a second run that has called a tool."""
    await store.journal.OpenRun(opening("r0", driver_id="d1"))
    await store.journal.Append(appending("r0", "d1", 1, messages=[stored("answer", assistant("an answer"))]))
    await store.journal.Append(ending("r0", "d1", 2))
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.Append(appending("r1", "d1", 1, messages=[stored("call", assistant("calls a tool"))]))


@pytest.mark.feature("R6")
async def test_an_interrupting_run_asks_the_active_one_to_stop_and_follows_it(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    opened = await store.journal.OpenRun(interrupting("r2", driver_id="d1"))
    assert (opened.epoch, opened.run.state, opened.run.session_id) == (0, run_pb2.RUN_STATE_QUEUED, "s")
    asked = (await read_log(store, "r1"))[-1]
    assert (asked.sequence, asked.session_id, asked.cancel_requested.reason) == (2, "s", "interrupted by run r2")
    assert asked.time.seconds == 1_700_000_000
    assert list((await driver.hear()).wake_run_ids) == ["r1"]
    with pytest.raises(faults.SequenceConflict):
        await store.journal.Append(appending("r1", "d1", 1))
    driver.say(room=1)
    await store.journal.Append(ending("r1", "d1", 2, kind="run_cancelled"))
    assert (await next_assignment(driver, "r2")).sequence == 1
    assert (await session_of(store)).active_run_id == "r2"
    assert await texts(store) == [(1, "r1-input"), (2, "r2-input")]


@pytest.mark.feature("R6")
async def test_runs_that_waited_go_before_the_one_that_interrupts(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    for request in (queueing("r2"), interrupting("r3"), queueing("r4")):
        await store.journal.OpenRun(request)
    driver.say(room=9)
    order = []
    for run, after in (("r1", 2), ("r2", 1), ("r3", 1), ("r4", 1)):
        await next_assignment(driver, run) if run != "r1" else None
        order.append((await session_of(store)).active_run_id)
        await store.journal.Append(ending(run, "d1", after))
    assert order == ["r1", "r2", "r3", "r4"]


@pytest.mark.feature("R6")
async def test_an_interrupted_run_that_nobody_drives_is_ended_without_waiting_for_room(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1"))
    await store.journal.OpenRun(interrupting("r2"))
    assigned = await next_assignment(driver, "r1")
    assert assigned.sequence == 2 and (await get(store, "r1")).state == run_pb2.RUN_STATE_QUEUED
    await store.journal.Append(ending("r1", "d1", 2, kind="run_cancelled"))
    await ticks(store, 2)
    assert "r2" not in driver.assigned
    driver.say(room=1)
    await next_assignment(driver, "r2")


@pytest.mark.feature("R6")
@pytest.mark.feature("R1")
async def test_a_repeated_interrupting_order_interrupts_once(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    requests = [interrupting(f"i{n}", request_id="q", payload_digest="p") for n in range(5)]
    opened = await asyncio.gather(*map(store.journal.OpenRun, requests))
    assert len({each.run.id for each in opened}) == 1
    assert [each.WhichOneof("kind") for each in await read_log(store, "r1")] == ["run_created", "cancel_requested"]


@pytest.mark.feature("R2")
async def test_an_interrupting_order_with_the_same_input_is_refused_and_interrupts_nobody(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1", input_digest="i"))
    for request in (interrupting("r2", input_digest="i"), forking("r2", "f", input_digest="i")):
        with pytest.raises(faults.InputDuplicate):
            await store.journal.OpenRun(request)
    assert len(await read_log(store, "r1")) == 1
    with pytest.raises(faults.SessionNotFound):
        await session_of(store, "f")


@pytest.mark.feature("R6")
@pytest.mark.parametrize("request_of", [interrupting, lambda run_id: forking(run_id, "f")])
async def test_in_a_session_that_is_free_every_strategy_just_runs(store: Store, driver: Driver, request_of: object) -> None:
    opened = await store.journal.OpenRun(request_of("r1"))  # type: ignore[operator]
    driven = await store.journal.OpenRun(opening("r2", "t", driver_id="d1"))
    assert (opened.run.session_id, (await session_of(store)).active_run_id) == ("s", "r1")
    assert driven.epoch == 0, "r1 waits for a driver, so r2 waits behind it"
    assert not (await session_of(store)).forked_from_session_id
    assert not (await read_log(store, "r1"))[0].run_created.forked_from_session_id


@pytest.mark.feature("R6")
async def test_a_run_forks_a_busy_session_from_before_its_active_run(store: Store, driver: Driver) -> None:
    await have_a_history(store)
    await store.sessions.UpdateSession(session_pb.UpdateSessionRequest(session={"id": "s", "title": "T", "metadata": {"a": "b"}}))
    opened = await store.journal.OpenRun(forking("r2", "f", driver_id="d1"))
    assert (opened.run.session_id, opened.epoch, opened.run.state) == ("f", 1, run_pb2.RUN_STATE_RUNNING)
    fork, origin = await session_of(store, "f"), await session_of(store)
    assert (fork.forked_from_session_id, fork.forked_at_position, fork.message_count) == ("s", 2, 3)
    assert (fork.title, dict(fork.metadata), fork.active_run_id, origin.active_run_id) == ("T", {"a": "b"}, "r2", "r1")
    assert await texts(store, "f") == [(1, "r0-input"), (2, "answer"), (3, "r2-input")]
    assert [message.run_id for message in await read_messages(store, "f")] == ["", "", "r2"]
    (created,) = await read_log(store, "r2")
    assert (created.session_id, created.run_created.forked_from_session_id) == ("f", "s")
    assert len(await read_log(store, "r1")) == 2


@pytest.mark.feature("R6")
async def test_a_fork_and_its_origin_go_on_apart(store: Store, driver: Driver) -> None:
    await have_a_history(store)
    await store.journal.OpenRun(forking("r2", "f", driver_id="d1"))
    await store.journal.Append(appending("r2", "d1", 1, session_id="f", messages=[stored("other", assistant("another answer"))]))
    await store.journal.Append(ending("r2", "d1", 2, session_id="f"))
    await store.journal.Append(ending("r1", "d1", 2))
    assert await texts(store) == [(1, "r0-input"), (2, "answer"), (3, "r1-input"), (4, "call")]
    assert await texts(store, "f") == [(1, "r0-input"), (2, "answer"), (3, "r2-input"), (4, "other")]
    request = pb.FollowRequest(session_id="f", replay_only=True)
    followed = [event async for response in store.journal.Follow(request) for event in response.events]
    assert [(event.run_id, event.session_id) for event in followed] == [("r2", "f")] * 3
    await store.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id="s"))
    assert [message.message for message in await read_messages(store, "f")][1] == assistant("an answer")
    assert (await session_of(store, "f")).forked_from_session_id == "s"


@pytest.mark.feature("R6")
async def test_deleting_a_fork_leaves_its_origin_whole(store: Store, driver: Driver) -> None:
    await have_a_history(store)
    await store.journal.OpenRun(forking("r2", "f", driver_id="d1", request_id="q"))
    await store.journal.Append(ending("r2", "d1", 1, session_id="f"))
    await store.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id="f"))
    assert len(await texts(store)) == 4
    assert not (await store.journal.OpenRun(forking("r3", "f3", request_id="q"))).existed


@pytest.mark.feature("R6")
@pytest.mark.feature("R1")
async def test_a_repeated_forking_order_forks_once_even_at_once(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    requests = [forking(f"i{n}", f"f{n}", request_id="q", payload_digest="p") for n in range(5)]
    opened = await asyncio.gather(*map(store.journal.OpenRun, requests))
    assert len({(each.run.id, each.run.session_id) for each in opened}) == 1
    listed = (await store.sessions.ListSessions(session_pb.ListSessionsRequest())).sessions
    assert len(listed) == 2


@pytest.mark.feature("R2")
async def test_the_same_input_forks_a_session_once_a_minute(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.OpenRun(forking("r2", "f2", input_digest="i"))
    with pytest.raises(faults.InputDuplicate) as caught:
        await store.journal.OpenRun(forking("r3", "f3", input_digest="i"))
    assert caught.value.metadata == {"session_id": "f2", "run_id": "r2"}
    await store.journal.OpenRun(forking("r4", "f4", input_digest="other"))
    with as_tenant("other"):
        await store.journal.OpenRun(opening("o1", tenant="other"))
        await store.journal.OpenRun(forking("o2", "fo", tenant="other", input_digest="i"))
    store.clock.advance(61)
    await store.journal.OpenRun(forking("r3", "f3", input_digest="i"))


@pytest.mark.parametrize("fork", ["", "s", "taken", "no id!"])
async def test_a_fork_needs_an_id_of_its_own(store: Store, driver: Driver, fork: str) -> None:
    await store.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="taken"))
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    with pytest.raises(faults.RequestInvalid, match="fork_session_id"):
        await store.journal.OpenRun(forking("r2", fork))
    with pytest.raises(faults.RunNotFound):
        await get(store, "r2")


@pytest.mark.parametrize(("field", "values"), [("on_busy", {"on_busy": 9}), ("max_wait_ms", {"max_wait_ms": -1})])
async def test_values_that_are_none_are_refused(store: Store, field: str, values: dict[str, int]) -> None:
    with pytest.raises(faults.RequestInvalid, match=field):
        await store.journal.OpenRun(opening("r1", **values))


@pytest.mark.feature("R6")
async def test_an_interruption_on_another_replica_wakes_the_driver(replicas: tuple[Store, Store]) -> None:
    here, there = replicas
    async with open_driver(here) as driver:
        await here.journal.OpenRun(opening("r1", driver_id="d1"))
        await there.journal.OpenRun(interrupting("r2"))
        hearing = asyncio.ensure_future(driver.hear())
        await ticks(here, 4)
        assert "r1" in (await hearing).wake_run_ids


@pytest.mark.feature("R6")
async def test_of_all_strategies_at_once_on_two_replicas_one_run_is_active_and_the_rest_is_as_asked(
    replicas: tuple[Store, Store],
) -> None:
    here, there = replicas
    await here.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="s"))
    requests = [
        request
        for n in range(4)
        for request in (opening(f"reject{n}"), queueing(f"queue{n}"), interrupting(f"interrupt{n}"), forking(f"fork{n}", f"f{n}"))
    ]
    calls = [replicas[number % 2].journal.OpenRun(request) for number, request in enumerate(requests)]
    opened = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in opened if isinstance(each, faults.SessionBusy)]
    accepted = [each.run for each in opened if isinstance(each, pb.OpenRunResponse)]
    assert len(refused) + len(accepted) == len(requests)
    in_session = [run.id for run in accepted if run.session_id == "s"]
    active = (await there.sessions.GetSession(session_pb.GetSessionRequest(session_id="s"))).session.active_run_id
    assert active in in_session
    assert {run.id.rstrip("0123") for run in accepted if run.id != active} <= {"queue", "interrupt", "fork"}
    for run in accepted:
        if run.session_id != "s":
            assert (await session_of(here, run.session_id)).active_run_id == run.id
            assert await texts(here, run.session_id) == [(1, f"{run.id}-input")]
    order = await _carry_out(replicas, [run.id for run in accepted])
    assert [run for run in order if run in in_session] == await _by_creation(here, in_session)


async def _carry_out(replicas: tuple[Store, Store], runs: list[str]) -> list[str]:
    """Drives all runs to their ends on the second replica; the order in which they ended."""
    order: list[str] = []
    async with open_driver(replicas[1], "d", room=50) as driver:

        async def work() -> None:
            while len(order) < len(runs):
                for given in (await driver.hear()).assignments:
                    log = await read_log(replicas[1], given.run_id)
                    request = ending(given.run_id, "d", len(log), epoch=given.epoch, session_id=log[0].session_id)
                    with contextlib.suppress(faults.RunEnded):
                        await replicas[1].journal.Append(request)
                        order.append(given.run_id)

        working = asyncio.ensure_future(work())
        while not working.done():
            driver.say(room=50)
            await ticks(replicas[1], 1)
        await working
    assert sorted(order) == sorted(runs)
    return order


async def _by_creation(store: Store, runs: list[str]) -> list[str]:
    """Runs in the order of their first events' positions, which is that of commits."""
    positions = {run: (await read_log(store, run))[0].position for run in runs}
    return sorted(runs, key=positions.__getitem__)
