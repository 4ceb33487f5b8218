"""What a deleted session leaves behind: nothing but nameless sums, in any table of any backend, whenever the delete is interrupted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as journal_pb
from behest.session.v1 import session_service_pb2 as pb
from chassis import faults
from kit.store import (
    BACKENDS,
    Store,
    appending,
    cancelling,
    ending,
    open_driver,
    open_store,
    opening,
    queueing,
    read_log,
    ticks,
)
from kit.store_history import TOOL_TURN, holding, statistics, write_run
from session_store.adapters.memory.storage import MemoryStorage
from session_store.adapters.sqlite.storage import SqliteStorage
from session_store.domain.session import SessionId, Tenant
from session_store.operations.erasure import SWEEP_ROWS
from session_store.operations.ports import Tables

Row = dict[str, Any]

HANG_ON_A_SESSION = {"messages", "runs", "batches", "requests", "usage", "held_messages", "hidden"}
HANG_ON_NONE = {
    "sessions": "the session itself",
    "counters": "numbers for all",
    "session_store_writers": "processes",
    "leases": "drivers",
    "outbox": "how far all sessions of a shard are published",
    "loads": "how many runs of a tenant have not ended",
    "departed": "sums of a tenant's day",
    "departed_usage": "sums of a tenant's day",
}
OF_OTHERS = ("schema_versions", "sqlite_sequence", "session_store_migrations")


async def tables_of(store: Store) -> dict[str, list[Row]]:
    """Every table with its rows; of one that is empty, a row without values to show its columns."""
    storage: Any = store.storage
    if isinstance(storage, MemoryStorage):
        rows = storage._tables.sessions._rows
        return {each.name: _entries(getattr(rows, each.name)) for each in dataclasses.fields(rows)}
    if isinstance(storage, SqliteStorage):
        return await storage._database.read(_of_sqlite)  # type: ignore[no-any-return]
    return await storage._database.read(_of_postgres, "*")  # type: ignore[no-any-return]


def _entries(value: Any) -> list[Row]:
    if not isinstance(value, dict):
        return []
    return [{"entry": f"{key!r}: {each!r}"} for key, each in value.items() if each or each is None]


def _of_sqlite(connection: Any) -> dict[str, list[Row]]:
    found = {}
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = [column for (_, column, *_) in connection.execute(f"PRAGMA table_info({name})")]
        rows = connection.execute(f"SELECT * FROM {name}").fetchall()
        found[name] = [dict(zip(columns, row, strict=True)) for row in rows] or [dict.fromkeys(columns)]
    return found


def _of_postgres(statements: Any) -> dict[str, list[Row]]:
    columns = """SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables USING (table_name)
        WHERE tables.table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position"""
    found: dict[str, list[Row]] = {}
    for table, column in statements.fetch(columns):
        found.setdefault(table, [{}])[0][column] = None
    return {table: [dict(row.items()) for row in statements.fetch(f"SELECT * FROM {table}")] or shown for table, shown in found.items()}


def of_session(tables: dict[str, list[Row]], session: int, runs: set[int]) -> dict[str, int]:
    """How many rows of each table are a session's, by its key and its runs'."""

    def is_its(table: str, row: Row) -> bool:
        keys = (table == "sessions" and row.get("key") == session, row.get("session") == session, row.get("run") in runs)
        return any(keys)

    return {table: sum(1 for row in rows if is_its(table, row)) for table, rows in tables.items()}


async def fill(store: Store, session: str) -> None:
    """Leaves rows everywhere: a run under way, one that waits, one that was cancelled while it waited; messages, usage, requests."""
    a, b, c = (f"{session}-{n}" for n in "abc")
    await store.sessions.CreateSession(pb.CreateSessionRequest(session_id=session, request_id=session))
    await write_run(store, f"{session}-0", session, TOOL_TURN)
    await store.journal.OpenRun(opening(a, session, driver_id="d1", request_id=a))
    await store.journal.OpenRun(queueing(b, session))
    await store.journal.OpenRun(queueing(c, session))
    await store.journal.Append(appending(a, "d1", 1, session_id=session))
    await store.journal.RecordCommand(cancelling(c, f"{c}-cancel"))


async def end_all(store: Store, driver: Any, session: str) -> None:
    for run, after in ((f"{session}-c", 2), (f"{session}-a", 2), (f"{session}-b", 1)):
        while run != f"{session}-a" and run not in driver.assigned:
            await driver.hear()
        await store.journal.Append(ending(run, "d1", after, session_id=session, kind="run_cancelled"))


async def delete(store: Store, session: str = "s") -> None:
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id=session))


async def delete_and_die(store: Store, session: str = "s") -> None:
    """A delete whose process is killed right after its first transaction."""

    def work(tables: Tables) -> None:
        found = tables.sessions.find(Tenant("default"), SessionId(session))
        assert found is not None
        tables.sessions.delete(found.key)

    await store.storage.write(work)


@pytest.mark.feature("S7")
async def test_a_deleted_session_leaves_no_row_in_any_table(store: Store) -> None:
    async with open_driver(store, room=9) as driver:
        await fill(store, "doomed")
        await fill(store, "kept")
        during = await tables_of(store)
        await end_all(store, driver, "doomed")
        before = await tables_of(store)
        assert "doomed" in str(before)
        await delete(store, "doomed")
        after = await tables_of(store)
        assert "doomed" not in str(after)
        assert "kept" in str(after)
    if isinstance(store.storage, MemoryStorage):
        return
    (session,) = (row["key"] for row in during["sessions"] if row["id"] == "doomed")
    runs = {row["key"] for row in during["runs"] if row["session"] == session}
    had, left = of_session(during, session, runs), of_session(after, session, runs)
    missing = [table for table in HANG_ON_A_SESSION - {"hidden"} if not had[table]]
    assert not missing, f"the test leaves no row of a session in {missing}, so it proves nothing about them"
    assert not any(left.values()), {table: count for table, count in left.items() if count}


@pytest.mark.feature("S7")
@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"memory"}))
async def test_every_table_is_known_to_hang_on_sessions_or_not_to(backend: str, tmp_path: Path) -> None:
    """A table that is added must be deleted from, or be said here not to need it."""
    async with open_store(backend, tmp_path) as store:
        tables = {name: rows for name, rows in (await tables_of(store)).items() if name not in OF_OTHERS}
    hanging = {name for name, rows in tables.items() if {"session", "run"} & set(rows[0]) or name == "hidden"}
    assert hanging == HANG_ON_A_SESSION
    unknown = set(tables) - hanging - set(HANG_ON_NONE)
    assert not unknown, f"say in this test whether rows of {sorted(unknown)} hang on sessions, and delete those that do"


@pytest.mark.feature("S7")
async def test_a_delete_whose_process_died_is_seen_by_nobody_and_swept_up_later(store: Store) -> None:
    async with open_driver(store):
        await write_run(store, "r1", "s", TOOL_TURN)
    await delete_and_die(store)
    with pytest.raises(faults.SessionNotFound):
        await holding(store)
    with pytest.raises(faults.RunNotFound):
        await read_log(store, "r1")
    assert not (await store.sessions.ListSessions(pb.ListSessionsRequest())).sessions
    assert not (await store.journal.ListRuns(journal_pb.ListRunsRequest())).runs
    feed = store.journal.Follow(journal_pb.FollowRequest(tenant=True, replay_only=True))
    assert [each async for response in feed for each in response.events] == []
    assert (await statistics(store)).runs == 1
    await ticks(store, seconds=61)
    tables = await tables_of(store)
    assert "r1" not in str(tables)
    assert (await statistics(store)).runs == 1


@pytest.mark.feature("S7")
async def test_an_id_is_free_as_soon_as_its_session_is_deleted(store: Store) -> None:
    async with open_driver(store):
        await write_run(store, "r1", "s", TOOL_TURN)
        await delete_and_die(store)
        await write_run(store, "r1", "s")
        assert len(await read_log(store, "r1")) == 2
        await ticks(store, seconds=61)
        assert len(await read_log(store, "r1")) == 2
        assert len((await holding(store)).messages) == 1


@pytest.mark.feature("S7")
async def test_a_session_is_not_deleted_while_a_cancelled_run_is_still_to_end(store: Store) -> None:
    async with open_driver(store):
        first = await write_run(store, "r1", "s", end="")
        await store.journal.OpenRun(queueing("r2", "s"))
        await store.journal.RecordCommand(cancelling("r2"))
        await first.end()
        run = (await store.journal.GetRun(journal_pb.GetRunRequest(run_id="r2"))).run
        assert run.state == run_pb2.RUN_STATE_QUEUED
        with pytest.raises(faults.SessionBusy) as caught:
            await delete(store)
        assert caught.value.metadata["run_id"] == "r2"


@pytest.mark.feature("S7")
async def test_a_large_session_goes_in_small_transactions(tmp_path: Path) -> None:
    async with open_store("sqlite", tmp_path) as store, open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        for after in range(1, 60):
            await store.journal.Append(appending("r1", "d1", after))
        await store.journal.Append(ending("r1", "d1", 60))
        await delete_and_die(store)
        portions = []
        while count := await store.storage.write(lambda tables: tables.sessions.sweep(store.clock.now(), 25, None)):
            portions.append(count)
        assert portions == [25, 25, 14] and SWEEP_ROWS <= 1000  # 61 batches, a message, a run, the session


@pytest.mark.feature("S7")
@pytest.mark.feature("E2")
@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"memory"}))
async def test_events_that_are_not_published_stay_until_they_are(backend: str, tmp_path: Path) -> None:
    async with open_store(backend, tmp_path) as store, open_driver(store):
        for name in ("s", "t"):
            await write_run(store, f"{name}-run", name)
            await delete_and_die(store, name)

        async def sweep(published: int) -> int:
            return await store.storage.write(lambda tables: tables.sessions.sweep(store.clock.now(), 100, published))

        due = await store.storage.read(lambda tables: tables.outbox.due(255, 0, 99, 99, 1 << 20))
        assert [(each.tenant, each.batch.run_id, each.batch.session_id) for each in due] == [
            ("default", f"{name}-run", name) for name in ("s", "s", "t", "t")
        ]
        last = due[1].batch.number
        assert await sweep(last - 1) == 0
        assert await sweep(last) > 0 and await sweep(last) == 0
        assert len(await store.storage.read(lambda tables: tables.outbox.due(255, 0, 99, 99, 1 << 20))) == 2
        assert await sweep(due[3].batch.number) > 0
