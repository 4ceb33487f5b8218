"""The session store under kill -9, a full disk, a held lock: nothing acknowledged is lost, nothing is half done, and it goes on after."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from behest.session.v1 import session_service_pb2 as session_pb
from chassis import faults
from chassis.sqlite import Database
from chassis.world import World
from kit.store import (
    Store,
    appending,
    assistant,
    ending,
    open_driver,
    open_store,
    opening,
    queueing,
    read_log,
    read_messages,
    stored,
)
from session_store.adapters.sqlite.sessions import SqliteMessages
from session_store.adapters.sqlite.storage import SqliteStorage
from session_store.app import open_app
from session_store.settings import SessionStoreSettings

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("services", "gen", "tests"))


async def killed_after(folder: Path, lines: int) -> dict[str, dict[str, int]]:
    """The last sequence by run, acknowledged and seen, that a process told of before it was killed."""
    command = (sys.executable, "-m", "kit.store_appender", str(folder), "12")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": PATHS})
    assert process.stdout is not None
    told: dict[str, dict[str, int]] = {"acked": defaultdict(int), "seen": defaultdict(int)}
    count = 0
    async for line in process.stdout:
        if line.endswith(b"\n"):
            what, run, sequence = line.decode().split()
            told[what][run] = max(told[what][run], int(sequence))
        count += 1
        if count == lines:
            process.kill()
    await process.wait()
    return told


@pytest.mark.feature("S3")
@pytest.mark.feature("R12")
@pytest.mark.parametrize("lines", [60, 200, 1500])
async def test_what_a_killed_store_acknowledged_or_delivered_is_there(tmp_path: Path, lines: int) -> None:
    told = await killed_after(tmp_path, lines)
    assert told["acked"]
    async with open_store("sqlite", tmp_path) as store:
        for run in told["acked"] | told["seen"]:
            sequences = [event.sequence for event in await read_log(store, run)]
            assert sequences == list(range(1, len(sequences) + 1))
            assert len(sequences) >= max(told["acked"][run], told["seen"][run])
            messages = await read_messages(store, f"s-{run}")
            assert [message.position for message in messages] == list(range(1, len(messages) + 1))
            assert len(messages) == 1 + (len(sequences) - 1) // 2
            assert (await store.journal.OpenRun(opening("new", f"s-{run}", request_id=run))).existed


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store("sqlite", tmp_path) as opened, open_driver(opened):
        yield opened


def database(store: Store) -> Database:
    assert isinstance(store.storage, SqliteStorage)
    return store.storage._database


async def limit_pages(store: Store, pages: int) -> None:
    await database(store).write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())


@pytest.mark.feature("S3")
async def test_a_full_disk_fails_typed_leaves_nothing_half_done_and_is_survived(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await limit_pages(store, 1)  # SQLite takes the present size as the least
    big = appending("r1", "d1", 1, messages=[stored("m1", assistant("x" * 50_000))])
    with pytest.raises(faults.StorageUnavailable, match="free space"):
        await store.journal.Append(big)
    with pytest.raises(faults.StorageUnavailable):
        await store.journal.OpenRun(opening("r2", "t", messages=[stored("m", assistant("x" * 50_000))]))
    assert [event.sequence for event in await read_log(store, "r1")] == [1]
    assert len(await read_messages(store)) == 1
    with pytest.raises(faults.SessionNotFound):
        await read_messages(store, "t")
    await limit_pages(store, 1_000_000)
    assert (await store.journal.Append(big)).sequence == 2
    assert len(await read_messages(store)) == 2
    await store.storage.check()


async def test_a_lock_held_by_another_process_fails_typed_and_is_survived(store: Store, tmp_path: Path) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await database(store).write(lambda connection: connection.execute("PRAGMA busy_timeout = 20").fetchone())
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for call in (store.journal.Append(appending("r1", "d1", 1)), store.storage.check()):
        with pytest.raises(faults.StorageUnavailable, match="lock"):
            await call
    assert len(await read_log(store, "r1")) == 1
    other.execute("ROLLBACK")
    other.close()
    assert (await store.journal.Append(appending("r1", "d1", 1))).sequence == 2


async def test_a_write_that_fails_in_the_middle_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run frees the session, promotes the next run and stores its message: all or nothing."""
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.OpenRun(queueing("r2"))
    monkeypatch.setattr(SqliteMessages, "release", lambda *_: 1 / 0)
    with pytest.raises(faults.Internal):
        await store.journal.Append(ending("r1", "d1", 1))
    monkeypatch.undo()
    assert len(await read_log(store, "r1")) == 1
    session = (await store.sessions.GetSession(session_pb.GetSessionRequest(session_id="s"))).session
    assert (session.active_run_id, session.message_count) == ("r1", 1)
    await store.journal.Append(ending("r1", "d1", 1))
    assert [message.id for message in await read_messages(store)] == ["r1-input", "r2-input"]


@pytest.mark.feature("O1")
async def test_a_store_that_cannot_open_its_file_does_not_start_and_says_why(tmp_path: Path) -> None:
    settings = SessionStoreSettings(database=f"sqlite:{tmp_path}/nowhere/x.db")
    with pytest.raises(faults.StorageUnavailable, match="create its folder"):
        async with open_app(settings, World()):
            pass
