"""Following runs, sessions and tenants behaves alike on every backend."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from behest.event.v1 import event_pb2
from behest.session.v1 import journal_service_pb2 as pb
from behest.session.v1 import session_service_pb2 as session_pb
from chassis import faults
from kit.store import (
    BACKENDS,
    ManualClock,
    Store,
    appending,
    as_tenant,
    ending,
    open_driver,
    open_store,
    open_store_on,
    opening,
    queueing,
    read_log,
    ticks,
)


@pytest.fixture(params=sorted(BACKENDS))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(request.param, tmp_path) as opened, open_driver(opened):
        yield opened


def follow(store: Store, **values: object) -> AsyncIterator[pb.FollowResponse]:
    return store.journal.Follow(pb.FollowRequest(**values))  # type: ignore[arg-type,return-value]


async def take(call: AsyncIterator[pb.FollowResponse], count: int) -> list[event_pb2.Event]:
    """The next events, at least count."""
    seen: list[event_pb2.Event] = []
    while len(seen) < count:
        seen += (await asyncio.wait_for(anext(call), 10)).events
    return seen


async def collect(store: Store, **values: object) -> list[event_pb2.Event]:
    return [each async for response in follow(store, **values) for each in response.events]


def sequences(found: list[event_pb2.Event]) -> list[int]:
    return [each.sequence for each in found]


@pytest.mark.feature("S4")
async def test_a_runs_stream_replays_goes_on_live_and_ends_after_the_last_event(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.Append(appending("r1", "d1", 1, 2))
    call = aiter(follow(store, run_id="r1"))
    assert sequences(await take(call, 3)) == [1, 2, 3]
    await store.journal.Append(appending("r1", "d1", 3, 2))
    assert sequences(await take(call, 2)) == [4, 5]
    await store.journal.Append(ending("r1", "d1", 5))
    assert sequences(await take(call, 1)) == [6]
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(call), 10)


@pytest.mark.feature("S4")
@pytest.mark.parametrize("after", range(8))
async def test_a_stream_resumes_after_any_sequence(store: Store, after: int) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.Append(appending("r1", "d1", 1, 3))
    await store.journal.Append(appending("r1", "d1", 4, 2))
    await store.journal.Append(ending("r1", "d1", 6))
    whole = await collect(store, run_id="r1")
    assert sequences(whole) == list(range(1, 8))
    assert await collect(store, run_id="r1", after=after) == whole[after:]


async def test_a_place_beyond_the_end_is_out_of_range(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    with pytest.raises(faults.SequenceOutOfRange) as caught:
        await collect(store, run_id="r1", after=2)
    assert caught.value.metadata == {"after": "2", "last": "1"}
    position = (await read_log(store, "r1"))[0].position
    for values in ({"session_id": "s", "after": position + 8192}, {"tenant": True, "after": position + 8192}):
        with pytest.raises(faults.SequenceOutOfRange):
            await collect(store, **values)


@pytest.mark.parametrize("values", [{}, {"tenant": False}, {"run_id": "r1", "after": -1}, {"session_id": "s", "after": -2}])
async def test_a_wrong_question_is_refused(store: Store, values: dict[str, object]) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    with pytest.raises(faults.RequestInvalid):
        await collect(store, **values)


async def test_what_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(faults.RunNotFound):
        await collect(store, run_id="r1")
    with pytest.raises(faults.SessionNotFound):
        await collect(store, session_id="s")


@pytest.mark.feature("E8")
async def test_a_session_is_followed_across_its_runs_and_resumed_by_position(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.OpenRun(opening("x1", session_id="x", driver_id="d1"))
    await store.journal.OpenRun(queueing("r2"))
    await store.journal.Append(appending("r1", "d1", 1, 3))
    await store.journal.Append(appending("x1", "d1", 1, 3, session_id="x"))
    await store.journal.Append(ending("r1", "d1", 4))
    whole = await collect(store, session_id="s", replay_only=True)
    assert [(each.run_id, each.sequence) for each in whole] == [("r1", 1), ("r2", 1), ("r1", 2), ("r1", 3), ("r1", 4), ("r1", 5)]
    positions = [each.position for each in whole]
    assert positions == sorted(set(positions)) and positions[0] > 0
    for index, position in enumerate(positions):
        assert await collect(store, session_id="s", after=position, replay_only=True) == whole[index + 1 :]


@pytest.mark.feature("E8")
@pytest.mark.feature("S12")
async def test_a_tenant_follows_all_its_runs_and_none_of_others(store: Store) -> None:
    with as_tenant("other"):
        await store.journal.OpenRun(opening("o1", tenant="other", driver_id="d1"))
        theirs = aiter(follow(store, tenant=True))
        assert [each.run_id for each in await take(theirs, 1)] == ["o1"]
    ours = aiter(follow(store, tenant=True, after=-1))
    waiting = asyncio.ensure_future(anext(ours))
    await asyncio.sleep(0.02)
    with as_tenant("other"):
        await store.journal.Append(appending("o1", "d1", 1, tenant="other"))
    await store.journal.OpenRun(opening("r1", "s", driver_id="d1"))
    await store.journal.OpenRun(opening("r2", "t", driver_id="d1"))
    seen = list((await asyncio.wait_for(waiting, 10)).events)
    seen += await take(ours, 2 - len(seen))
    assert [each.run_id for each in seen] == ["r1", "r2"]
    assert [each.run_id for each in await take(theirs, 1)] == ["o1"]


@pytest.mark.feature("S12")
async def test_followers_of_equal_ids_in_two_tenants_see_their_own(store: Store) -> None:
    calls = {}
    for tenant in ("default", "other"):
        with as_tenant(tenant):
            await store.journal.OpenRun(opening("r1", tenant=tenant, driver_id="d1"))
            calls[tenant] = (aiter(follow(store, run_id="r1", after=1)), aiter(follow(store, session_id="s", after=-1)))
            await asyncio.gather(*(store.journal.Append(appending("r1", "d1", 1, tenant=tenant)) for _ in range(1)))
    assert [each.tenant for each in await take(calls["other"][0], 1)] == ["other"]
    assert [each.tenant for each in await take(calls["default"][0], 1)] == ["default"]


async def test_from_now_on_means_nothing_of_before(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    call = aiter(follow(store, session_id="s", after=-1))
    first = asyncio.ensure_future(anext(call))
    await asyncio.sleep(0.02)
    await store.journal.Append(appending("r1", "d1", 1))
    assert sequences(list((await asyncio.wait_for(first, 10)).events)) == [2]
    assert await collect(store, session_id="s", after=-1, replay_only=True) == []


@pytest.mark.feature("S4")
async def test_a_log_of_any_length_is_replayed_in_bounded_responses(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    for number in range(300):
        await store.journal.Append(appending("r1", "d1", 1 + number))
    big = appending("r1", "d1", 301, 4)
    for each in big.events:
        each.text_delta.text = "x" * 200_000
    for _ in range(3):
        await store.journal.Append(big)
        after = big.events[-1].sequence
        big.expected_sequence = after
        for offset, each in enumerate(big.events, 1):
            each.sequence = after + offset
    sizes, seen = [], []
    async for response in follow(store, run_id="r1", replay_only=True):
        sizes.append((len(response.events), response.ByteSize()))
        seen += sequences(list(response.events))
    assert seen == list(range(1, 301 + 12 + 1))
    assert max(count for count, _ in sizes) <= 256 and max(size for _, size in sizes) < 1_000_000


@pytest.mark.feature("S4")
@pytest.mark.feature("S5")
async def test_any_interleaving_of_follow_and_append_gives_the_same_streams(store: Store) -> None:
    chance = random.Random(7)
    runs = [f"r{n}" for n in range(4)]
    for run in runs:
        await store.journal.OpenRun(opening(run, session_id=f"s-{run}", driver_id="d1"))
    streams: list[tuple[dict[str, object], list[event_pb2.Event]]] = []

    async def write(run: str) -> None:
        after = 1
        for _ in range(40):
            count = chance.randint(1, 3)
            await store.journal.Append(appending(run, "d1", after, count, session_id=f"s-{run}"))
            after += count
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() / 500)
        await store.journal.Append(ending(run, "d1", after, session_id=f"s-{run}"))

    async def read(scope: dict[str, object], ends: int) -> None:
        await asyncio.sleep(chance.random() / 20)
        seen: list[event_pb2.Event] = []
        streams.append((scope, seen))
        async for response in follow(store, **scope):
            seen += response.events
            if sum(each.HasField("run_completed") for each in seen) == ends and "run_id" not in scope:
                return
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() / 100)

    scopes: list[tuple[dict[str, object], int]] = [({"run_id": run}, 1) for run in runs for _ in range(5)]
    scopes += [({"session_id": f"s-{run}"}, 1) for run in runs] + [({"tenant": True}, len(runs))] * 3
    await asyncio.wait_for(asyncio.gather(*map(write, runs), *(read(*scope) for scope in scopes)), 20)
    for scope, seen in streams:
        assert seen == await collect(store, replay_only=True, **scope), scope


@pytest.mark.feature("S5")
async def test_a_slow_follower_lags_alone_and_misses_nothing(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    slow = aiter(follow(store, run_id="r1"))
    assert sequences(await take(slow, 1)) == [1]
    pending = asyncio.ensure_future(anext(slow))
    await asyncio.sleep(0.02)
    quick = asyncio.ensure_future(collect(store, run_id="r1"))
    for number in range(600):
        await store.journal.Append(appending("r1", "d1", 1 + number))
    await store.journal.Append(ending("r1", "d1", 601))
    assert sequences(await quick) == list(range(1, 603))
    seen = sequences(list((await pending).events))
    async for response in slow:
        seen += sequences(list(response.events))
    assert seen == list(range(2, 603))


@pytest.mark.feature("S4")
async def test_a_follower_on_another_replica_misses_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_store("sqlite", tmp_path, clock) as here, open_store("sqlite", tmp_path, clock) as there, open_driver(here):
        await here.journal.OpenRun(opening("r1", driver_id="d1"))
        call = aiter(follow(there, run_id="r1"))
        assert sequences(await take(call, 1)) == [1]
        await here.journal.Append(appending("r1", "d1", 1, 2))
        following = asyncio.ensure_future(take(call, 2))
        while not following.done():
            await ticks(there)
        assert sequences(following.result()) == [2, 3]


@pytest.mark.feature("R6")
async def test_two_replicas_on_one_storage_keep_one_gate(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_store("sqlite", tmp_path, clock) as here, open_store_on(here.storage, clock) as there:
        opened = await asyncio.gather(
            *(store.journal.OpenRun(opening(f"{name}{n}")) for n in range(5) for name, store in (("a", here), ("b", there))),
            return_exceptions=True,
        )
        assert sum(isinstance(each, pb.OpenRunResponse) for each in opened) == 1


@pytest.mark.feature("S7")
async def test_followers_of_a_deleted_session_are_told(store: Store) -> None:
    await store.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="s"))
    call = aiter(follow(store, session_id="s"))
    waiting = asyncio.ensure_future(anext(call))
    await asyncio.sleep(0.02)
    await store.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id="s"))
    with pytest.raises(faults.SessionNotFound):
        await asyncio.wait_for(waiting, 10)


@pytest.mark.feature("O6")
async def test_a_store_that_leaves_sends_its_followers_on(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    call = aiter(follow(store, run_id="r1"))
    await take(call, 1)
    waiting = asyncio.ensure_future(anext(call))
    await asyncio.sleep(0.02)
    await store.drain()  # type: ignore[misc]
    with pytest.raises(faults.ShuttingDown):
        await asyncio.wait_for(waiting, 10)
