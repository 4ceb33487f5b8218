"""Backups made while writers go on: each is one moment, whole; restored, it holds what was acknowledged before it, and its runs go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from behest.run.v1 import run_pb2, run_service_pb2
from behest.session.v1 import journal_service_pb2 as journal_pb
from chassis import faults
from chassis.sqlite_backup import back_up
from kit.postgres import PASSWORD, binaries, fresh_database, url_of
from kit.store import Store, open_driver, open_store, open_store_on, read_log, read_messages, ticks
from kit.store_history import TOOL_TURN, Writing, statistics
from kit.suites import call, check_history, kinds, open_suite_under_test, tool_turns
from session_store.adapters.postgres.storage import open_postgres_storage
from session_store.adapters.sqlite.storage import open_sqlite_storage

RUNS, BACKUPS = 6, 3
Acknowledged = dict[str, int]


@contextlib.asynccontextmanager
async def writers(store: Store, acknowledged: Acknowledged) -> AsyncIterator[None]:
    """Runs that are written to without pause; acknowledged has the sequence that each was told last. Some have ended before."""
    for number in range(RUNS):
        ended = Writing(store, f"ended{number}", f"s{number}")
        await ended.open()
        await ended.turn(TOOL_TURN)
        await ended.end()
        acknowledged[ended.run_id] = ended.sequence

    async def write(number: int) -> None:
        writing = Writing(store, f"live{number}", f"s{number}")
        await writing.open()
        while True:
            await writing.turn(TOOL_TURN)
            acknowledged[writing.run_id] = writing.sequence

    tasks = [asyncio.create_task(write(number)) for number in range(RUNS)]
    try:
        while len(acknowledged) < 2 * RUNS:
            await asyncio.sleep(0.01)
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended


async def check(store: Store, before: Acknowledged, after: Acknowledged) -> None:
    """The restored store is one moment between before and after, and goes on."""
    lengths = {}
    for run_id in after:
        log = await read_log(store, run_id)
        lengths[run_id] = len(log)
        assert [event.sequence for event in log] == list(range(1, len(log) + 1))
        run = (await store.journal.GetRun(journal_pb.GetRunRequest(run_id=run_id))).run
        assert run.sequence == len(log)
        assert before[run_id] <= len(log) <= after[run_id] + 20
    for number in range(RUNS):
        messages = await read_messages(store, f"s{number}")
        assert [message.position for message in messages] == list(range(1, len(messages) + 1))
    sums, parts = await statistics(store), [await statistics(store, run_id=run_id) for run_id in lengths]
    assert (sums.runs, sums.events) == (2 * RUNS, sum(lengths.values()))
    assert sums.usage_total.calls == sum(part.turns for part in parts) == sum(part.usage_total.calls for part in parts)
    await _goes_on(store, lengths)


async def _goes_on(store: Store, lengths: Acknowledged) -> None:
    """Every run that had not ended is handed to a driver, at a new epoch, and can be ended."""
    await ticks(store, 12, seconds=0.5)
    async with open_driver(store, "other", room=RUNS) as driver:
        await ticks(store)
        async with asyncio.timeout(20):
            while len(driver.assigned) < RUNS:
                await driver.hear()
        for run_id, assignment in driver.assigned.items():
            assert run_id.startswith("live") and assignment.epoch > 1 and assignment.sequence == lengths[run_id]
            session_id = f"s{run_id.removeprefix('live')}"
            await Writing(store, run_id, session_id, driver_id="other", epoch=assignment.epoch, sequence=assignment.sequence).end()
    runs = (await store.journal.ListRuns(journal_pb.ListRunsRequest(page_size=1000))).runs
    assert {run.state for run in runs} == {run_pb2.RUN_STATE_COMPLETED}


@pytest.mark.feature("S13")
async def test_a_sqlite_backup_under_load_is_whole_and_its_runs_go_on(tmp_path: Path) -> None:
    acknowledged: Acknowledged = {}
    moments: list[tuple[Path, Acknowledged, Acknowledged]] = []
    async with open_store("sqlite", tmp_path) as store, open_driver(store), writers(store, acknowledged):
        for number in range(BACKUPS):
            before, copy = dict(acknowledged), tmp_path / f"copy{number}.db"
            await asyncio.to_thread(back_up, tmp_path / "store.db", copy)
            moments.append((copy, before, dict(acknowledged)))
    assert moments[0][2] != moments[-1][2], "nothing was written meanwhile"
    for copy, before, after in moments:
        async with open_sqlite_storage(str(copy)) as storage, open_store_on(storage) as restored:
            await check(restored, before, after)


@pytest.mark.feature("S13")
async def test_a_postgres_dump_under_load_is_whole_and_its_runs_go_on(tmp_path: Path) -> None:
    programs = binaries()
    if programs is None or not (programs / "pg_dump").exists():
        pytest.skip("no pg_dump beside PostgreSQL")
    acknowledged: Acknowledged = {}
    moments: list[tuple[Path, Acknowledged, Acknowledged]] = []
    async with open_store("postgres", tmp_path) as store, open_driver(store), writers(store, acknowledged):
        url = (tmp_path / "session_store.database").read_text()
        for number in range(BACKUPS):
            before, dump = dict(acknowledged), tmp_path / f"copy{number}.dump"
            await asyncio.to_thread(run, programs / "pg_dump", "--format=custom", "--enable-row-security", f"--file={dump}", at=url)
            moments.append((dump, before, dict(acknowledged)))
    assert moments[0][2] != moments[-1][2], "nothing was written meanwhile"
    for dump, before, after in moments:
        async with fresh_database() as empty:
            name = urlsplit(empty).path.removeprefix("/")
            await asyncio.to_thread(run, programs / "pg_restore", "--no-owner", "--exit-on-error", f"--dbname={name}", str(dump), at=name)
            async with open_postgres_storage(lambda url=empty: url) as storage, open_store_on(storage) as restored:  # type: ignore[misc]
                await check(restored, before, after)


def run(program: Path, *arguments: str, at: str) -> None:
    """One of PostgreSQL's programs, as the service's own role, which sees all rows because it says so."""
    place = urlsplit(url_of(at))
    env = {
        **os.environ,
        "PGHOST": place.hostname or "",
        "PGPORT": str(place.port),
        "PGUSER": place.username or "",
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": at,
        "PGOPTIONS": "-c behest.tenant=*",
    }
    subprocess.run([program, *arguments], env=env, check=True, capture_output=True, timeout=60)


def behest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(str(root / name) for name in ("services", "gen", "tests"))}
    command = [sys.executable, "-m", "suite", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.feature("S13")
@pytest.mark.feature("R12")
async def test_a_suite_whose_disk_is_lost_goes_on_from_its_backup(tmp_path: Path) -> None:
    labels = [[f"turn{turn}"] for turn in range(20)]
    script = {"rules": [{"when": {"equals": "work"}, "turns": tool_turns(labels, wait_ms=300)}]}
    async with open_suite_under_test(tmp_path, script, one_process=True) as suite, call(suite) as caller:
        before = await caller.create("work")
        await caller.until(before.id, "tool_execution_finished", 3)
        done = await asyncio.to_thread(behest, tmp_path, "backup", "kept", "--config", str(suite.config), "--data", str(tmp_path), "--json")
        assert done.returncode == 0, done.stderr
        kept = await caller.runs.GetRun(run_service_pb2.GetRunRequest(run_id=before.id))
        await suite.kill("suite")
        for file in tmp_path.glob("behest.db*"):
            file.unlink()
        shutil.copy(tmp_path / "kept" / "behest.db", tmp_path / "behest.db")
        await suite.start("suite")
        events = await caller.watch(before.id)
        check_history(events)
        assert kinds(events)[-1] == "run_completed" and len(events) >= kept.run.sequence
        assert "run_resumed" in kinds(events)


@pytest.mark.parametrize("trouble", ["no source", "target exists", "no database", "nowhere to write"])
def test_a_backup_that_cannot_be_made_says_why_and_leaves_nothing(trouble: str, tmp_path: Path) -> None:
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    makers: dict[str, Callable[[], object]] = {
        "no source": lambda: None,
        "target exists": lambda: (source.touch(), target.write_text("mine")),
        "no database": lambda: source.write_text("no database " * 1000),
        "nowhere to write": lambda: source.touch(),
    }
    makers[trouble]()
    if trouble == "nowhere to write":
        target = tmp_path / "missing" / "b.db"
    with pytest.raises(faults.StorageUnavailable) as caught:
        back_up(source, target)
    assert "choose another" in caught.value.message or "name the folder" in caught.value.message or "restore it" in caught.value.message
    assert not target.exists() or target.read_text() == "mine"
    assert not list(tmp_path.glob("*.part"))
