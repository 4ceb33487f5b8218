"""The SQLite tables: every question the hot path asks is answered by an index, and a deleted session leaves nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from behest.session.v1 import session_pb2
from behest.session.v1 import session_service_pb2 as session_pb
from chassis.sqlite import open_sqlite
from kit.store import Store, appending, assistant, cancelling, ending, open_driver, open_store, opening, queueing, stored
from session_store.adapters.sqlite import batches, runs, sessions
from session_store.adapters.sqlite.schema import MIGRATIONS
from session_store.adapters.sqlite.storage import SqliteStorage

QUESTIONS = {
    name: statement
    for module in (batches, runs, sessions)
    for name, statement in vars(module).items()
    if isinstance(statement, str) and statement.lstrip().startswith(("SELECT", "UPDATE")) and "?" in statement
}


@pytest.mark.feature("S10")
@pytest.mark.parametrize("name", sorted(QUESTIONS))
async def test_no_statement_scans_a_table(tmp_path: Path, name: str) -> None:
    async with open_sqlite(str(tmp_path / "x.db"), MIGRATIONS) as database:
        blanks = [None] * QUESTIONS[name].count("?")
        plan = await database.read(lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {QUESTIONS[name]}", blanks).fetchall())
    steps = [step[3] for step in plan]
    assert steps and all("USING" in step for step in steps if step.startswith(("SCAN", "SEARCH"))), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


def everything(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


async def fill(store: Store, session: str) -> None:
    """Leaves a row in every table for a session: runs, queued and ended, messages, held ones, usage, requests."""
    a, b, c = (f"{session}-{n}" for n in "abc")
    await store.sessions.CreateSession(session_pb.CreateSessionRequest(session_id=session, request_id=session))
    await store.journal.OpenRun(opening(a, session, driver_id="d1", request_id=a))
    await store.journal.OpenRun(queueing(b, session))
    await store.journal.OpenRun(queueing(c, session))
    row = session_pb2.UsageRow(provider="p", model="m", usage={"input_tokens": 5, "calls": 1})
    more = appending(a, "d1", 1, session_id=session, messages=[stored("m", assistant("a"))], usage=[row])
    await store.journal.Append(more)
    await store.journal.RecordCommand(cancelling(c, f"{c}-cancel"))


@pytest.mark.feature("S7")
async def test_a_deleted_session_leaves_no_row_in_any_table_but_nameless_sums(tmp_path: Path) -> None:
    async with open_store("sqlite", tmp_path) as store, open_driver(store, room=9) as driver:
        assert isinstance(store.storage, SqliteStorage)
        database = store.storage._database
        before = await database.read(everything)
        await fill(store, "doomed")
        await fill(store, "kept")
        during = await database.read(everything)
        assert all(len(during[table]) >= 2 for table in before if table not in ("leases", "schema_versions", "sqlite_sequence"))
        assert (await driver.assignment()).run_id in ("doomed-c", "kept-c")
        for run, after in (("doomed-c", 2), ("doomed-a", 2), ("doomed-b", 1)):
            while run != "doomed-a" and run not in driver.assigned:
                await driver.hear()
            await store.journal.Append(ending(run, "d1", after, session_id="doomed"))
        await store.sessions.DeleteSession(session_pb.DeleteSessionRequest(session_id="doomed"))
        left = await database.read(everything)
        assert not [row for table in left.values() for row in table if any("doomed" in str(value) for value in row)]
        assert [row[:3] for row in left["usage"]] == [("default", 0, 0), ("default", during["sessions"][1][0], during["runs"][3][0])]
        for table in ("messages", "held_messages", "runs", "batches", "requests", "sessions"):
            kept = [row for row in during[table] if not any("doomed" in str(value) for value in row)]
            assert len(left[table]) <= len(kept)


@pytest.mark.feature("S10")
async def test_bytes_and_statements_of_an_append_do_not_grow_with_the_session(tmp_path: Path) -> None:
    async with open_store("sqlite", tmp_path) as store, open_driver(store):
        assert isinstance(store.storage, SqliteStorage)
        database = store.storage._database
        await store.journal.OpenRun(opening("r1", driver_id="d1"))

        async def work(after: int) -> tuple[int, int]:
            """Virtual-machine steps in thousands and rows changed of one append."""
            steps = [0]

            def step() -> int:
                steps[0] += 1
                return 0

            database._connection.set_progress_handler(step, 10)
            changed = database._connection.total_changes
            await store.journal.Append(appending("r1", "d1", after, messages=[stored(f"m{after}", assistant("a" * 50))]))
            database._connection.set_progress_handler(None, 0)
            return steps[0], database._connection.total_changes - changed

        early = await work(1)
        for after in range(2, 1000):
            await store.journal.Append(appending("r1", "d1", after, messages=[stored(f"m{after}", assistant("a" * 50))]))
        late = await work(1000)
        assert late[1] == early[1] and late[0] <= early[0] + 1
