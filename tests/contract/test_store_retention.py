"""Retention: sessions that nobody used for too long are deleted, and nothing else, on every backend."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from behest.session.v1 import session_service_pb2 as pb
from chassis.world import World
from kit.store import BACKENDS, Store, as_tenant, assistant, open_driver, open_store, ticks
from kit.store_history import TOOL_TURN, Writing, statistics, write_run
from session_store.domain.retention import Retention
from session_store.domain.session import Tenant
from session_store.operations.broadcast import Broadcaster
from session_store.operations.upkeep import Upkeep

DAY = 86_400.0
WEEK = Retention(7 * DAY, {Tenant("short"): 1 * DAY, Tenant("kept"): None})


@contextlib.asynccontextmanager
async def open_kept(backend: str, folder: Path, retention: Retention = WEEK) -> AsyncIterator[Store]:
    async with open_store(backend, folder, retention=retention) as store:
        yield store


@pytest.fixture(params=sorted(BACKENDS))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_kept(request.param, tmp_path) as opened:
        yield opened


async def live(store: Store, seconds: float) -> None:
    """Lets time pass, and the store do its rounds."""
    await ticks(store, 2, seconds)


async def create(store: Store, *sessions: str) -> None:
    for session in sessions:
        await store.sessions.CreateSession(pb.CreateSessionRequest(session_id=session))


async def present(store: Store) -> list[str]:
    return sorted(session.id for session in (await store.sessions.ListSessions(pb.ListSessionsRequest())).sessions)


@pytest.mark.feature("S11")
async def test_a_session_goes_when_it_was_idle_for_long_enough_and_not_before(store: Store) -> None:
    await create(store, "a")
    async with open_driver(store):
        await write_run(store, "r1", "b", TOOL_TURN)
    await live(store, 3.4 * DAY)
    assert await present(store) == ["a", "b"]
    await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="a", messages=[assistant("hello")]))
    await live(store, 0.2 * DAY)
    assert await present(store) == ["a"]
    assert (await statistics(store)).runs == 1
    await live(store, 4 * DAY)
    assert await present(store) == []


@pytest.mark.feature("S11")
async def test_tenants_have_their_own_days_and_may_keep_everything(store: Store) -> None:
    for tenant in ("short", "kept", "other"):
        with as_tenant(tenant):
            await create(store, "s")
    await live(store, 0.6 * DAY)
    assert [await of(store, tenant) for tenant in ("short", "kept", "other")] == [[], ["s"], ["s"]]
    await live(store, 400 * DAY)
    assert [await of(store, tenant) for tenant in ("short", "kept", "other")] == [[], ["s"], []]


async def of(store: Store, tenant: str) -> list[str]:
    with as_tenant(tenant):
        return await present(store)


@pytest.mark.feature("S11")
async def test_a_session_with_a_run_that_has_not_ended_is_never_deleted(store: Store) -> None:
    async with open_driver(store):
        await write_run(store, "r1", "s", TOOL_TURN, end="")
        await live(store, 30 * DAY)
        assert await present(store) == ["s"]
    # the driver is gone: the run waits for another, however long
    await live(store, 30 * DAY)
    assert await present(store) == ["s"]
    async with open_driver(store, "d2", room=1) as driver:
        assignment = driver.assigned.get("r1") or await driver.assignment()
        await Writing(store, "r1", driver_id="d2", epoch=assignment.epoch, sequence=assignment.sequence).end()
    await live(store, 3 * DAY)
    assert await present(store) == ["s"]  # its end was its last activity
    await live(store, 5 * DAY)
    assert await present(store) == []


@pytest.mark.feature("S11")
@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_nothing_is_deleted_unless_it_was_asked_for(backend: str, tmp_path: Path) -> None:
    async with open_kept(backend, tmp_path, Retention()) as store:
        await create(store, "s")
        await live(store, 4000 * DAY)
        assert await present(store) == ["s"]


@pytest.mark.feature("S11")
@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_tenants_are_served_in_turn_oldest_sessions_first_and_one_line_tells_of_it(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_kept(backend, tmp_path, Retention()) as store:
        for tenant, sessions in (("a", "123"), ("b", "12"), ("c", "1")):
            for number in sessions:
                with as_tenant(tenant):
                    await create(store, f"{tenant}{number}")
                store.clock.advance(1)
        store.clock.advance(8 * DAY)
        deleted: list[str] = []
        upkeep = Upkeep(store.storage, Listening(deleted), world_of(store), WEEK, publishes=False)  # type: ignore[arg-type]
        logs = CapturingLogger()
        monkeypatch.setattr("structlog.get_logger", lambda: logs)
        done = await upkeep.round()
        assert deleted == ["a1", "b1", "c1", "a2", "b2", "a3"]
        assert (done.sessions, len(done.tenants)) == (6, 3)
        (told,) = logs.calls
        assert (told.method_name, told.kwargs["sessions"], told.kwargs["tenants"]) == ("info", 6, 3)
        await upkeep.round()
        assert len(logs.calls) == 1


@pytest.mark.feature("S11")
@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_replicas_that_do_the_same_round_at_once_delete_each_session_once(backend: str, tmp_path: Path) -> None:
    async with open_kept(backend, tmp_path, Retention()) as store:
        for number in range(20):
            async with open_driver(store, f"d{number}"):
                await write_run(store, f"r{number}", f"s{number}", driver_id=f"d{number}")
        before = await statistics(store)
        store.clock.advance(8 * DAY)
        deleted: list[str] = []
        replicas = [Upkeep(store.storage, Listening(deleted), world_of(store), WEEK, publishes=False) for _ in range(3)]  # type: ignore[arg-type]
        done = await asyncio.gather(*(upkeep.round() for upkeep in replicas))
        assert await present(store) == []
        assert sum(each.sessions for each in done) == 20 and len(set(deleted)) == len(deleted) == 20
        assert await statistics(store) == before


@pytest.mark.feature("S11")
async def test_a_session_that_is_used_between_look_and_delete_stays(tmp_path: Path) -> None:
    async with open_kept("sqlite", tmp_path, Retention()) as store:
        await create(store, "a", "b")
        store.clock.advance(8 * DAY)
        deleted: list[str] = []

        class Used(Listening):
            """Somebody uses b while a is deleted."""

            def lag(self, scope: object) -> None:
                super().lag(scope)
                tasks.append(store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="b", messages=[assistant("hi")])))

        tasks: list[object] = []
        upkeep = Upkeep(store.storage, Used(deleted), world_of(store), WEEK, publishes=False)  # type: ignore[arg-type]
        rounds = upkeep._delete_in_turn

        async def in_turn(tenants: list[Tenant], done: object) -> None:
            """The page holds both sessions; b is used before its turn."""
            page = await upkeep._page(tenants[0], store.clock.now() - 7 * DAY, None)
            assert [session.id for session in page] == ["a", "b"]
            assert await upkeep._delete(page[0])
            await tasks[0]  # type: ignore[misc]
            assert not await upkeep._delete(page[1])
            await rounds(tenants, done)  # type: ignore[arg-type]

        upkeep._delete_in_turn = in_turn  # type: ignore[method-assign,assignment]
        await upkeep.round()
        assert await present(store) == ["b"]


class Listening(Broadcaster):
    """Notes which sessions were deleted, in order."""

    def __init__(self, deleted: list[str]) -> None:
        super().__init__()
        self._deleted = deleted

    def lag(self, scope: object = None) -> None:
        if scope is not None:
            self._deleted.append(scope.session_id)  # type: ignore[attr-defined]


def world_of(store: Store) -> World:
    return World(clock=store.clock)  # type: ignore[arg-type]
