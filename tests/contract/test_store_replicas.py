"""Several session-stores on one storage that tells them of each other's writes: each hears what concerns those it serves, and no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from behest.event.v1 import event_pb2
from behest.session.v1 import journal_service_pb2 as pb
from behest.session.v1 import session_service_pb2 as session_pb
from chassis import faults
from kit.store import (
    CountingIds,
    ManualClock,
    Store,
    appending,
    cancelling,
    ending,
    open_driver,
    open_store_on,
    opening,
    queueing,
    read_log,
    settle,
    ticks,
)
from session_store.adapters.memory.storage import MemoryStorage
from session_store.operations.ports import Heard, Tables

T = TypeVar("T")


class DeafStorage(MemoryStorage):
    """Tells what the test lets through, and counts the reads of logs."""

    def __init__(self) -> None:
        super().__init__()
        self.deaf = False
        self.pages = 0
        self.hears: list[Callable[[Heard], None]] = []

    def listen(self, hear: Callable[[Heard], None]) -> bool:
        self.hears.append(hear)
        return super().listen(lambda heard: None if self.deaf else hear(heard))

    async def read(self, work: Callable[[Tables], T], *more: object) -> T:
        self.pages += "_page_of" in repr(work)
        await asyncio.sleep(0)  # a real one takes time
        return await super().read(work, *more)


@dataclass
class Replicas:
    """Two stores, the storage and the clock they share."""

    here: Store
    there: Store
    storage: DeafStorage


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    clock, storage = ManualClock(), DeafStorage()
    async with open_store_on(storage, clock, CountingIds("x")) as here, open_store_on(storage, clock, CountingIds("y")) as there:
        yield Replicas(here, there, storage)


def follow(store: Store, **values: object) -> AsyncIterator[pb.FollowResponse]:
    return aiter(store.journal.Follow(pb.FollowRequest(**values)))  # type: ignore[arg-type]


async def take(call: AsyncIterator[pb.FollowResponse], count: int) -> list[event_pb2.Event]:
    seen: list[event_pb2.Event] = []
    while len(seen) < count:
        seen += (await asyncio.wait_for(anext(call), 10)).events
    return seen


async def whole(call: AsyncIterator[pb.FollowResponse]) -> list[event_pb2.Event]:
    return [event async for response in call for event in response.events]


def told(seen: list[event_pb2.Event]) -> list[tuple[str, int]]:
    return [(event.run_id, event.sequence) for event in seen]


@pytest.mark.feature("S4")
@pytest.mark.parametrize("scope", [{"run_id": "r1"}, {"session_id": "s"}, {"tenant": True}])
async def test_a_follower_sees_at_once_what_another_replica_writes(replicas: Replicas, scope: dict[str, object]) -> None:
    async with open_driver(replicas.there):
        await replicas.there.journal.OpenRun(opening("r1", driver_id="d1"))
        call = follow(replicas.here, **scope)
        assert told(await take(call, 1)) == [("r1", 1)]
        for sequence in range(1, 9, 2):
            writer = replicas.here if sequence % 4 == 1 else replicas.there
            await writer.journal.Append(appending("r1", "d1", sequence, 2))
            assert told(await take(call, 2)) == [("r1", sequence + 1), ("r1", sequence + 2)]


@pytest.mark.feature("S5")
async def test_a_busy_replica_does_not_make_the_followers_of_other_runs_read(replicas: Replicas) -> None:
    async with open_driver(replicas.there), open_driver(replicas.here, "d2"):
        await replicas.there.journal.OpenRun(opening("busy", "t", driver_id="d1"))
        await replicas.here.journal.OpenRun(opening("r1", driver_id="d2"))
        calls = [follow(replicas.here, **scope) for scope in ({"run_id": "r1"}, {"session_id": "s"})]
        for call in calls:
            await take(call, 1)
        waiting = [asyncio.ensure_future(take(call, 10)) for call in calls]
        await settle(replicas.here)
        pages = replicas.storage.pages
        for sequence in range(1, 11):
            await replicas.there.journal.Append(appending("busy", "d1", sequence, session_id="t"))
            await replicas.here.journal.Append(appending("r1", "d2", sequence))
            await ticks(replicas.here)
        seen = await asyncio.gather(*waiting)
        assert [told(each) for each in seen] == [[("r1", sequence) for sequence in range(2, 12)]] * 2
        assert replicas.storage.pages == pages


@pytest.mark.feature("S4")
@pytest.mark.parametrize("scope", [{"run_id": "r1"}, {"session_id": "s"}, {"tenant": True}])
async def test_followers_see_what_they_were_not_told_of(replicas: Replicas, scope: dict[str, object]) -> None:
    async with open_driver(replicas.there):
        await replicas.there.journal.OpenRun(opening("r1", driver_id="d1"))
        call = follow(replicas.here, **scope)
        await take(call, 1)
        replicas.storage.deaf = True
        await replicas.there.journal.Append(appending("r1", "d1", 1, 2))
        waiting = asyncio.ensure_future(take(call, 2))
        await ticks(replicas.here, 3)
        assert told(await waiting) == [("r1", 2), ("r1", 3)]


@pytest.mark.feature("S4")
async def test_an_untold_write_of_another_replica_is_not_passed_over_by_one_that_comes_after_it(replicas: Replicas) -> None:
    """A follower of a session cannot tell that something is missing between two positions."""
    async with open_driver(replicas.there):
        await replicas.there.journal.OpenRun(opening("r1", driver_id="d1"))
        call = follow(replicas.here, session_id="s")
        await take(call, 1)
        waiting = asyncio.ensure_future(take(call, 3))
        await settle(replicas.here)
        replicas.storage.deaf = True
        await replicas.there.journal.Append(appending("r1", "d1", 1, 2))
        replicas.storage.deaf = False
        await replicas.here.journal.Append(appending("r1", "d1", 3, 1))
        await settle(replicas.here)
        assert not waiting.done()
        await ticks(replicas.here, 3)
        assert told(await waiting) == [("r1", 2), ("r1", 3), ("r1", 4)]


@pytest.mark.feature("S4")
async def test_a_replica_that_may_have_missed_something_looks_at_once(replicas: Replicas) -> None:
    async with open_driver(replicas.there), open_driver(replicas.here, "d2") as driver:
        await replicas.there.journal.OpenRun(opening("r1", driver_id="d1"))
        await replicas.here.journal.OpenRun(opening("r2", "t", driver_id="d2"))
        call = follow(replicas.here, run_id="r1")
        await take(call, 1)
        replicas.storage.deaf = True
        await replicas.there.journal.Append(appending("r1", "d1", 1))
        await replicas.there.journal.RecordCommand(cancelling("r2"))
        replicas.storage.hears[0](Heard(missed=True))
        assert told(await take(call, 1)) == [("r1", 2)]
        hearing = asyncio.ensure_future(driver.hear())
        await ticks(replicas.here, 1)
        assert list((await hearing).wake_run_ids) == ["r2"]


@pytest.mark.feature("S5")
@pytest.mark.feature("O9")
async def test_followers_of_a_run_that_another_replica_writes_share_their_reads(replicas: Replicas) -> None:
    async with open_driver(replicas.there):
        await replicas.there.journal.OpenRun(opening("r1", driver_id="d1"))
        followers = [asyncio.ensure_future(whole(follow(replicas.here, run_id="r1"))) for _ in range(500)]
        await settle(replicas.here)
        for sequence in range(1, 21):
            await replicas.there.journal.Append(appending("r1", "d1", sequence))
            await settle(replicas.here)
        await replicas.there.journal.Append(ending("r1", "d1", 21))
        seen = await asyncio.wait_for(asyncio.gather(*followers), 30)
        log = await read_log(replicas.there, "r1")
        assert all(each == log for each in seen)
        assert replicas.storage.pages <= 3 * 22


@pytest.mark.feature("S4")
async def test_followers_who_come_and_go_while_two_replicas_write_miss_nothing(replicas: Replicas) -> None:
    async with open_driver(replicas.there):
        await replicas.there.journal.OpenRun(opening("r1", driver_id="d1"))
        followers: list[asyncio.Task[list[event_pb2.Event]]] = []
        for sequence in range(1, 60):
            for scope in ({"run_id": "r1"}, {"session_id": "s"}):
                store = replicas.here if sequence % 3 else replicas.there
                followers.append(asyncio.ensure_future(take(follow(store, **scope), 61)))
            replicas.storage.deaf = sequence % 7 == 0
            await (replicas.here, replicas.there)[sequence % 2].journal.Append(appending("r1", "d1", sequence))
            if sequence % 5 == 0:
                await ticks(replicas.here)
        replicas.storage.deaf = False
        await replicas.here.journal.Append(ending("r1", "d1", 60))
        await ticks(replicas.here, 3)
        for seen in await asyncio.gather(*followers):
            assert told(seen) == [("r1", sequence) for sequence in range(1, 62)]


@pytest.mark.feature("S7")
async def test_followers_are_told_of_a_session_deleted_on_another_replica(replicas: Replicas) -> None:
    await replicas.here.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="s"))
    waiting = asyncio.ensure_future(anext(follow(replicas.here, session_id="s")))
    await settle(replicas.here)
    await replicas.there.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id="s"))
    with pytest.raises(faults.SessionNotFound):
        await asyncio.wait_for(waiting, 10)


@pytest.mark.feature("R7")
async def test_a_command_reaches_the_driver_at_another_replica_at_once(replicas: Replicas) -> None:
    async with open_driver(replicas.here) as driver:
        await replicas.here.journal.OpenRun(opening("r1", driver_id="d1"))
        await replicas.there.journal.RecordCommand(cancelling("r1"))
        assert list((await driver.hear()).wake_run_ids) == ["r1"]


@pytest.mark.feature("R12")
async def test_a_run_without_a_driver_goes_at_once_to_one_at_another_replica(replicas: Replicas) -> None:
    async with open_driver(replicas.here, room=2) as driver:
        await replicas.there.journal.OpenRun(opening("r1"))
        assert (await driver.assignment()).run_id == "r1"
        await replicas.there.journal.OpenRun(queueing("r2"))
        await replicas.there.journal.Append(ending("r1", "d1", 1))
        assert (await driver.assignment()).run_id == "r2"


@pytest.mark.feature("R12")
@pytest.mark.parametrize("writes", [False, True])
async def test_a_driver_is_told_again_of_a_run_opened_elsewhere_unless_it_writes_elsewhere(replicas: Replicas, writes: bool) -> None:
    """The answer to OpenRun may have been lost."""
    async with open_driver(replicas.here) as driver:
        await replicas.there.journal.OpenRun(opening("r1", driver_id="d1"))
        if writes:
            await replicas.there.journal.Append(appending("r1", "d1", 1))
        hearing = asyncio.ensure_future(driver.assignment())
        await ticks(replicas.here, 6)
        assert hearing.done() is not writes
        hearing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert (await hearing).run_id == "r1"
