"""Publishing the log behaves alike on every backend: every event, in order, at least once, whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from behest.session.v1 import session_service_pb2 as session_pb
from behest.session.v1.outbox_service_pb2 import GetOutboxResponse
from chassis.faults import KafkaUnavailable, StorageUnavailable
from chassis.kafka.settings import TopicsSettings
from chassis.world import SystemClock, World
from kit.outbox import LEASE, Outbox, open_outbox, publishing
from kit.publishing import RecordingPublisher, by_run, first_ids
from kit.store import BACKENDS, appending, ending, opening
from session_store.adapters.event_records import EventPublications
from session_store.domain.outbox import SHARDS
from session_store.operations import relay as relaying
from session_store.operations.ports import Storage
from session_store.operations.relay import Relay


@pytest.fixture(params=sorted(BACKENDS))
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with BACKENDS[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
async def store(storage: Storage) -> AsyncIterator[Outbox]:
    async with open_outbox(storage) as opened:
        yield opened


@pytest.mark.feature("E2")
async def test_every_event_of_every_run_is_published_once_and_in_order(storage: Storage, store: Outbox) -> None:
    publisher = RecordingPublisher()
    async with publishing(storage, publisher):
        ids = await store.write_many(7)
        await publisher.until(ids)
    assert sorted(publisher.ids) == sorted(ids)
    assert all(sequences == sorted(sequences) for sequences in by_run(publisher.ids).values())


@pytest.mark.feature("E6")
async def test_what_was_written_before_anything_was_published_is_published_later(storage: Storage, store: Outbox) -> None:
    ids = await store.write("r1", "s1") + await store.write("r2", "s2")
    before = await store.standing()
    assert (before.publishes, before.published_number, len(before.shards)) == (False, 0, SHARDS)
    publisher = RecordingPublisher()
    async with publishing(storage, publisher):
        await publisher.until(ids)
        await store.until_published()
    assert first_ids(publisher.ids) == ids


@pytest.mark.feature("E2")
async def test_a_new_publisher_goes_on_where_the_one_before_it_left(storage: Storage, store: Outbox) -> None:
    first, second = RecordingPublisher(), RecordingPublisher()
    before = await store.write("r1", "s1")
    async with publishing(storage, first):
        await first.until(before)
    after = await store.write("r2", "s2")
    async with publishing(storage, second):
        await second.until(after)
    assert (first.ids, second.ids) == (before, after)


@pytest.mark.feature("E2")
async def test_what_was_sent_when_its_publisher_died_is_sent_again_under_the_same_ids(storage: Storage, store: Outbox) -> None:
    ids = await store.write("r1", "s1")
    torn, whole = RecordingPublisher(tears=3), RecordingPublisher()
    relay = Relay(storage, EventPublications(torn, TopicsSettings(), False), World(), LEASE)
    dying = asyncio.create_task(relay.run())
    await torn.until(ids[:3])
    relay.storage = _Gone()  # so that it cannot even say goodbye
    dying.cancel()
    await asyncio.wait([dying])
    async with publishing(storage, whole):
        await whole.until(ids)
    assert (torn.ids, first_ids(torn.ids + whole.ids)) == (ids[:3], ids)


class _Gone:
    """A storage that cannot be reached."""

    async def read(self, work: object) -> None:
        raise StorageUnavailable("gone")

    write = read


@pytest.mark.feature("E2")
async def test_two_publishers_share_the_sessions_and_publish_nothing_twice(storage: Storage, store: Outbox) -> None:
    one, two = RecordingPublisher(), RecordingPublisher()
    async with publishing(storage, one), publishing(storage, two):
        await store.until(lambda standing: len({shard.owner for shard in standing.shards} - {""}) == 2)
        await store.until(_is_even)
        ids = await store.write_many(16)
        async with asyncio.timeout(20):
            while set(one.ids) | set(two.ids) != set(ids):
                await asyncio.sleep(0.01)
    assert sorted(one.ids + two.ids) == sorted(ids)
    assert len(by_run(one.ids)) == len(by_run(two.ids)) == 8


def _is_even(standing: GetOutboxResponse) -> bool:
    owners = [shard.owner for shard in standing.shards]
    return all(owners.count(owner) == SHARDS / 2 for owner in owners)


@pytest.mark.feature("E2")
async def test_a_dead_publishers_sessions_are_taken_over_when_its_lease_ends(storage: Storage, store: Outbox) -> None:
    hanging, living = RecordingPublisher(), RecordingPublisher()
    hanging.hold()
    relay = Relay(storage, EventPublications(hanging, TopicsSettings(), False), World(), LEASE)
    dying = asyncio.create_task(relay.run())
    ids = await store.write("r1", "s1")
    await hanging.waiting.wait()
    relay.storage = _Gone()
    dying.cancel()
    await asyncio.wait([dying])
    assert {shard.owner for shard in (await store.standing()).shards} != {""}
    async with publishing(storage, living):
        await living.until(ids)
    assert living.ids == ids


@pytest.mark.feature("E2")
@pytest.mark.parametrize("jump", [3600.0, -3600.0], ids=["forward", "back"])
async def test_a_clock_that_jumped_before_a_restart_keeps_nothing_from_being_published(
    storage: Storage, store: Outbox, jump: float
) -> None:
    """The leases of the publisher that died are written by its clock, and the one that comes after it has another."""
    ids, dead, living = await store.write("r1", "s1"), RecordingPublisher(), RecordingPublisher()
    dead.hold()
    relay = Relay(storage, EventPublications(dead, TopicsSettings(), False), World(clock=_Ahead(-jump)), LEASE)
    dying = asyncio.create_task(relay.run())
    await dead.waiting.wait()
    relay.storage = _Gone()
    dying.cancel()
    await asyncio.wait([dying])
    async with publishing(storage, living):
        await living.until(ids)
    assert living.ids == ids


@pytest.mark.feature("E2")
@pytest.mark.parametrize("jump", [3600.0, -3600.0], ids=["forward", "back"])
async def test_publishers_whose_clocks_differ_share_the_sessions_all_the_same(storage: Storage, store: Outbox, jump: float) -> None:
    one, two = RecordingPublisher(), RecordingPublisher()
    other = Relay(storage, EventPublications(two, TopicsSettings(), False), World(clock=_Ahead(jump)), 60.0)
    async with publishing(storage, one, lease=60.0):
        await store.until(lambda standing: all(shard.owner for shard in standing.shards))
        running = asyncio.create_task(other.run())
        await store.until(_is_even)
        ids = await store.write_many(16)
        async with asyncio.timeout(20):
            while set(one.ids) | set(two.ids) != set(ids):
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
    assert sorted(one.ids + two.ids) == sorted(ids)


class _Ahead(SystemClock):
    """A wall clock that is set otherwise than this machine's."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._ahead = seconds

    def now(self) -> float:
        return super().now() + self._ahead


@pytest.mark.feature("E2")
async def test_while_nothing_can_be_published_only_a_page_is_held_and_the_log_waits(
    storage: Storage, store: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "PAGE", 4)
    publisher = RecordingPublisher(problem=KafkaUnavailable("the brokers are away"))
    publisher.hold()
    async with publishing(storage, publisher):
        first = await store.write("r1", "s1")
        await publisher.waiting.wait()
        later = await store.write("r2", "s1", appends=8)
        held = sum(publisher.calls)
        assert publisher.calls == [held] and held <= 4 * 2
        standing = await store.standing()
        assert standing.published_number == 0 and standing.last_number == 15
        publisher.release()
        await publisher.until(first + later)
    assert publisher.ids == first + later
    assert max(publisher.calls) <= 4 * 2


@pytest.mark.feature("E2")
async def test_a_publisher_keeps_its_sessions_while_it_waits_for_kafka(storage: Storage, store: Outbox) -> None:
    waiting, idle = RecordingPublisher(), RecordingPublisher()
    waiting.hold()
    async with publishing(storage, waiting):
        ids = await store.write("r1", "s1")
        await waiting.waiting.wait()
        owner = next(shard.owner for shard in (await store.standing()).shards if shard.owner)
        async with publishing(storage, idle):
            await asyncio.sleep(3 * LEASE)
            owners = {shard.owner for shard in (await store.standing()).shards if shard.number == 0}
            waiting.release()
            await waiting.until(ids)
    assert owner in owners and idle.ids == []


@pytest.mark.feature("E4")
async def test_deltas_pass_without_being_published_unless_asked_for(storage: Storage, store: Outbox) -> None:
    await store.journal.OpenRun(opening("r1", "s1", driver_id="d1"))
    await store.journal.Append(appending("r1", "d1", 1, 3, session_id="s1"))
    await store.journal.Append(ending("r1", "d1", 4, session_id="s1"))
    plain, chatty = RecordingPublisher(), RecordingPublisher()
    async with publishing(storage, plain):
        await store.until_published()
    assert plain.ids == ["r1/1", "r1/5"]
    await storage.write(_forget_positions)
    async with publishing(storage, chatty, deltas=True):
        await chatty.until([f"r1/{n}" for n in range(1, 6)])
    assert [record.topic for record in chatty.records] == ["behest.runs", *3 * ["behest.deltas"], "behest.runs"]


def _forget_positions(tables: object) -> None:
    for shard in tables.outbox.shards():  # type: ignore[attr-defined]
        tables.outbox.put(type(shard)(shard.index))  # type: ignore[attr-defined]


@pytest.mark.feature("E2")
async def test_shards_that_are_far_behind_catch_up_without_the_others_being_published_again(storage: Storage, store: Outbox) -> None:
    ids = await store.write_many(8)
    publisher, again = RecordingPublisher(), RecordingPublisher()
    async with publishing(storage, publisher):
        await publisher.until(ids)
        await store.until_published()
    behind = {run for run, index in await storage.read(_shards_of_runs) if index in (2, 5)}

    def forget(tables) -> None:
        for shard in tables.outbox.shards():
            if shard.index in (2, 5):
                tables.outbox.put(type(shard)(shard.index))

    await storage.write(forget)
    async with publishing(storage, again):
        await again.until(id_ for id_ in ids if id_.partition("/")[0] in behind)
        await store.until_published()
    assert behind and set(by_run(again.ids)) == behind


def _shards_of_runs(tables) -> list[tuple[str, int]]:
    return [
        (announcement.batch.run_id, index)
        for index in range(SHARDS)
        for announcement in tables.outbox.due(1 << index, 0, 1 << 40, 1000, 1 << 30)
    ]


@pytest.mark.feature("E2")
async def test_a_storage_that_fails_for_a_while_only_delays(storage: Storage, store: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = RecordingPublisher()
    async with publishing(storage, publisher) as relay:
        await publisher.until(await store.write("r1", "s1"))
        relay.storage = _Gone()  # type: ignore[assignment]
        ids = await store.write("r2", "s2")
        await asyncio.sleep(LEASE)
        assert not set(ids) & set(publisher.ids)
        relay.storage = storage
        await publisher.until(ids)


@pytest.mark.feature("E2")
async def test_a_store_that_is_told_where_to_publish_does_so_as_soon_as_something_is_committed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "TEND_SECONDS", 60.0)  # so that it does not come across what is new by itself
    publisher = RecordingPublisher()
    async with open_outbox(storage, publisher) as store:
        await store.until(lambda standing: all(shard.owner for shard in standing.shards))
        async with asyncio.timeout(5):  # its own look at the log comes every ten seconds
            await publisher.until(await store.write("r1", "s1"))
        assert (await store.standing()).publishes
    async with open_outbox(storage) as store:
        standing = await store.standing()
        assert {shard.owner for shard in standing.shards} == {""}, "it left its shards to others"
        assert standing.published_number == standing.last_number


@pytest.mark.feature("E2")
@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"memory"}))
async def test_no_batch_is_passed_over_while_several_processes_commit_at_once(backend: str, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        storages = [await stack.enter_async_context(BACKENDS[backend](tmp_path)) for _ in range(3)]
        stores = [await stack.enter_async_context(open_outbox(storage)) for storage in storages[:2]]
        publisher = RecordingPublisher()
        await stack.enter_async_context(publishing(storages[2], publisher))
        runs = [(store, f"{name}{number}") for store, name in zip(stores, "ab", strict=True) for number in range(12)]
        written = await asyncio.gather(*(store.write(run, f"s-{run}", appends=6) for store, run in runs))
        ids = [id_ for each in written for id_ in each]
        await publisher.until(ids)
        assert sorted(publisher.ids) == sorted(ids)
        assert all(sequences == sorted(sequences) for sequences in by_run(publisher.ids).values())


@pytest.mark.feature("O4")
async def test_the_outbox_tells_what_is_in_the_way(storage: Storage) -> None:
    publisher = RecordingPublisher(problem=KafkaUnavailable("no broker answers"))
    async with open_outbox(storage, publisher) as store:
        assert (await store.standing()).problem == "no broker answers"


@pytest.mark.feature("S7")
async def test_a_session_deleted_after_its_events_left_does_not_trouble_the_others(storage: Storage, store: Outbox) -> None:
    publisher = RecordingPublisher()
    async with publishing(storage, publisher):
        await publisher.until(await store.write("r1", "s1"))
        await store.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id="s1"))
        await publisher.until(await store.write("r2", "s2"))
