"""The SQLite chassis: group commit, isolation of failures, and faults that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.faults import Fault, RunEnded, SchemaTooNew, StorageUnavailable
from chassis.sqlite import Database, open_sqlite

V1 = "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT NOT NULL UNIQUE) STRICT;"
V2 = "ALTER TABLE t ADD COLUMN w TEXT NOT NULL DEFAULT 'w';\nCREATE INDEX t_w ON t (w);"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_sqlite(str(tmp_path / "x.db"), [V1], "normal", busy_seconds=0.05) as opened:
        yield opened


def put(value: str):  # type: ignore[no-untyped-def]
    def work(connection: sqlite3.Connection) -> int | None:
        return connection.execute("INSERT INTO t (v) VALUES (?)", (value,)).lastrowid

    return work


def values(connection: sqlite3.Connection) -> list[str]:
    return [value for (value,) in connection.execute("SELECT v FROM t ORDER BY k")]


async def held_up(database: Database) -> threading.Event:
    """Keeps the writer busy until the event is set, so that the writes after it form one group."""
    started, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        go.wait(5)

    database._blocker = asyncio.ensure_future(database.write(work))  # type: ignore[attr-defined]
    await started.wait()
    return go


def commits(database: Database) -> list[str]:
    seen: list[str] = []
    database._connection.set_trace_callback(lambda statement: seen.append(statement) if statement == "COMMIT" else None)
    return seen


async def test_pending_writes_share_one_transaction(tmp_path: Path) -> None:
    async with open_sqlite(str(tmp_path / "x.db"), [V1]) as database:
        go, seen = await held_up(database), commits(database)
        writes = [asyncio.ensure_future(database.write(put(str(n)))) for n in range(50)]
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(*writes) == list(range(1, 51))
        assert len(seen) == 2  # the one that held up, and the group
        database._connection.set_trace_callback(None)


async def test_a_failure_in_a_group_is_its_callers_alone(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        put("lost")(connection)
        raise RunEnded("no")

    go = await held_up(database)
    works = [put("a"), fail, put("b"), put("a"), put("c")]
    writes = [asyncio.ensure_future(database.write(work)) for work in works]
    await asyncio.sleep(0)
    go.set()
    done = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in done] == [int, RunEnded, int, sqlite3.IntegrityError, int]
    assert await database.read(values) == ["a", "b", "c"]


async def test_a_write_that_fills_the_disk_does_not_fail_the_group(database: Database) -> None:
    (pages,) = await database.read(lambda connection: connection.execute("PRAGMA page_count").fetchone())
    await database.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
    go = await held_up(database)
    writes = [asyncio.ensure_future(database.write(put(value))) for value in ("a", "x" * 100_000, "b")]
    await asyncio.sleep(0)
    go.set()
    done = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(done[1], StorageUnavailable) and "free space" in done[1].message
    assert await database.read(values) == ["a", "b"]
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
    await database.write(put("x" * 100_000))
    assert len(await database.read(values)) == 3


async def test_announcements_come_in_the_order_of_commits_even_for_callers_who_left(database: Database) -> None:
    heard: list[int | None] = []
    go = await held_up(database)
    writes = [asyncio.ensure_future(database.write(put(str(n)), heard.append)) for n in range(6)]
    await asyncio.sleep(0)
    writes[4].cancel()
    go.set()
    await asyncio.gather(*writes, return_exceptions=True)
    assert heard == [1, 2, 3, 4, 5]  # the fifth left before its work began, so it was not done
    assert await database.read(values) == ["0", "1", "2", "3", "5"]

    started = asyncio.Event()
    loop, gate = asyncio.get_running_loop(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int | None:
        loop.call_soon_threadsafe(started.set)
        gate.wait(5)
        return put("slow")(connection)

    leaving = asyncio.ensure_future(database.write(slow, heard.append))
    await started.wait()
    leaving.cancel()
    gate.set()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving
    await database.write(put("after"), heard.append)
    assert heard[-2:] == [6, 7]


async def test_an_announcement_that_fails_harms_nobody(database: Database) -> None:
    def fail(_: object) -> None:
        raise ValueError("defect")

    assert await database.write(put("a"), fail) == 1
    assert await database.write(put("b")) == 2


async def test_a_read_sees_one_snapshot_and_cannot_write(database: Database) -> None:
    loop = asyncio.get_running_loop()

    def twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        before = values(connection)
        asyncio.run_coroutine_threadsafe(database.write(put("meanwhile")), loop).result(5)
        return before, values(connection)

    assert await database.read(twice) == ([], [])
    assert await database.read(values) == ["meanwhile"]
    with pytest.raises(StorageUnavailable):
        await database.read(put("no"))


async def test_memory_is_one_database(tmp_path: Path) -> None:
    async with open_sqlite(":memory:", [V1]) as database:
        await database.write(put("a"))
        assert await database.read(values) == ["a"]


async def test_writes_taken_on_are_finished_at_close(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    async with open_sqlite(path, [V1]) as database:
        go = await held_up(database)
        writes = [asyncio.ensure_future(database.write(put(str(n)))) for n in range(5)]
        await asyncio.sleep(0)
        go.set()
    assert all(write.done() and write.result() for write in writes)
    with pytest.raises(StorageUnavailable):
        await database.write(put("late"))
    with pytest.raises(StorageUnavailable):
        await database.read(values)


@pytest.mark.feature("S9")
async def test_migrations_go_forward_once_and_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    async with open_sqlite(path, [V1]) as database:
        await database.write(put("a"))
    for _ in range(2):
        async with open_sqlite(path, [V1, V2]) as database:
            assert await database.read(lambda connection: connection.execute("SELECT v, w FROM t").fetchall()) == [("a", "w")]
    with pytest.raises(SchemaTooNew) as caught:
        async with open_sqlite(path, [V1]):
            pass
    assert caught.value.metadata == {"found": "2", "known": "1"}


@pytest.mark.feature("S9")
async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with pytest.raises(sqlite3.OperationalError):
        async with open_sqlite(path, [V1, "CREATE TABLE u (x INTEGER) STRICT;\nNONSENSE;"]):
            pass
    async with open_sqlite(path, [V1]) as database:
        assert (
            await database.read(lambda connection: connection.execute("SELECT name FROM sqlite_master WHERE name = 'u'").fetchall()) == []
        )
    with pytest.raises(ValueError, match="middle of a statement"):
        async with open_sqlite(path, [V1, "CREATE TABLE"]):
            pass


@pytest.mark.feature("S9")
async def test_processes_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    async def start() -> None:
        async with open_sqlite(str(tmp_path / "x.db"), [V1, V2]) as database:
            await database.read(values)

    await asyncio.gather(*(start() for _ in range(6)))


@pytest.mark.feature("O1")
async def test_a_missing_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="create its folder") as caught:
        async with open_sqlite(str(tmp_path / "nowhere" / "x.db"), [V1]):
            pass
    assert caught.value.metadata["path"].endswith("nowhere/x.db")


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageUnavailable, match="not a SQLite database"):
        async with open_sqlite(str(tmp_path / "x.db"), [V1]):
            pass


async def test_a_lock_held_elsewhere_fails_typed_and_the_database_recovers(database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    done = await asyncio.gather(*(database.write(put(str(n))) for n in range(3)), return_exceptions=True)
    assert all(isinstance(each, StorageUnavailable) and "lock" in each.message and each.retry_after for each in done)
    assert await database.read(values) == []
    other.execute("ROLLBACK")
    other.close()
    await database.write(put("a"))
    assert await database.read(values) == ["a"]


async def test_a_read_only_database_fails_typed_and_recovers(database: Database) -> None:
    database._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageUnavailable, match="read-only"):
        await database.write(put("a"))
    database._connection.execute("PRAGMA query_only = OFF")
    await database.write(put("a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="optional: root may write everything")
async def test_a_read_only_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with open_sqlite(str(path), [V1]):
        pass
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StorageUnavailable, match="writable"):
            async with open_sqlite(str(path), [V1]):
                pass
    finally:
        tmp_path.chmod(0o755)


async def test_every_fault_of_the_storage_is_typed() -> None:
    assert issubclass(StorageUnavailable, Fault) and StorageUnavailable.retryable


async def test_a_file_that_is_deleted_or_replaced_takes_no_writes_and_gives_no_reads_until_it_is_back(tmp_path: Path) -> None:
    file, away = tmp_path / "x.db", tmp_path / "away.db"
    async with open_sqlite(str(file), [V1]) as database:
        await database.write(put("a"))
        file.rename(away)
        for replaced in (False, True):
            if replaced:
                file.write_bytes(b"")
            for call in (database.write(put("b")), database.read(values)):
                with pytest.raises(StorageUnavailable, match="deleted or replaced while in use"):
                    await call
        away.rename(file)
        await database.write(put("c"))
        assert await database.read(values) == ["a", "c"]


async def test_a_file_with_the_tables_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE t (theirs)")
    with pytest.raises(StorageUnavailable, match="tables of another program"):
        async with open_sqlite(str(file), [V1]):
            pass
    with contextlib.closing(sqlite3.connect(file)) as other:
        assert [name for (name,) in other.execute("SELECT name FROM sqlite_master")] == ["t"]


async def test_only_trouble_that_may_pass_by_itself_says_when_to_try_again(database: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable) as locked:
        await database.write(put("a"))
    other.close()
    with pytest.raises(StorageUnavailable) as missing:
        async with open_sqlite(str(tmp_path / "nowhere" / "x.db"), [V1]):
            pass
    assert (locked.value.retry_after, missing.value.retry_after) == (1.0, None)
