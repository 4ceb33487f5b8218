"""What a turn costs does not grow with what was said before: rows, statements and bytes that the database writes, counted and not timed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.store import Store, open_driver, open_store
from kit.store_history import SUCCEEDED, Turn, Writing

TURN = Turn(calls=((SUCCEEDED, 5.0),))  # a model call and a tool call: three appends, two messages, usage, counts
EARLY, LATE, SAMPLE = 10, 1000, 20


@dataclass(frozen=True)
class Cost:
    """What turns cost the database."""

    statements: int
    rows: int
    steps: int
    bytes: int


Meter = Callable[[Callable[[], Awaitable[None]]], Awaitable[Cost]]


@asynccontextmanager
async def sqlite_meter(store: Store, folder: Path) -> AsyncIterator[Meter]:
    database: Any = store.storage._database  # type: ignore[attr-defined]
    connection, log = database._connection, folder / "store.db-wal"
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    said, steps = [0], [0]

    def count(_: str) -> None:
        said[0] += 1

    def step() -> int:
        steps[0] += 1
        return 0

    async def meter(work: Callable[[], Awaitable[None]]) -> Cost:
        said[0] = steps[0] = 0
        changed, size = connection.total_changes, log.stat().st_size
        connection.set_trace_callback(count)
        connection.set_progress_handler(step, 10)
        await work()
        connection.set_progress_handler(None, 0)
        connection.set_trace_callback(None)
        return Cost(said[0], connection.total_changes - changed, steps[0], log.stat().st_size - size)

    yield meter


@asynccontextmanager
async def postgres_meter(store: Store, folder: Path) -> AsyncIterator[Meter]:
    writer: Any = store.storage._database._writer  # type: ignore[attr-defined]
    connection = await writer.server.connect("meter")
    said = [0]

    def count(_: object) -> None:
        said[0] += 1

    async def written() -> tuple[int, int]:
        await store.storage.write(lambda tables: tables.statements.fetch("SELECT pg_stat_force_next_flush()"))  # type: ignore[attr-defined]
        await store.storage.check()  # the numbers are passed on at the end of a transaction
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        rows = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables"
        return await connection.fetchval(rows), await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")

    async def meter(work: Callable[[], Awaitable[None]]) -> Cost:
        before = await written()
        said[0] = 0
        writer._connection.add_query_logger(count)
        await work()
        writer._connection.remove_query_logger(count)
        statements = said[0]
        after = await written()
        return Cost(statements, after[0] - before[0], 0, int(after[1] - before[1]))

    try:
        yield meter
    finally:
        await connection.close()


METERS = {"sqlite": sqlite_meter, "postgres": postgres_meter}


@pytest.mark.feature("S10")
@pytest.mark.parametrize("backend", METERS)
async def test_a_turn_late_in_a_session_costs_the_database_what_an_early_one_does(backend: str, tmp_path: Path) -> None:
    async with open_store(backend, tmp_path) as store, open_driver(store), METERS[backend](store, tmp_path) as meter:
        writing = [Writing(store, "r0")]
        await writing[0].open()

        async def turns(count: int) -> None:
            """Turns of one session, in runs of ten turns."""
            for _ in range(count):
                if writing[-1].turns == 10:
                    await writing[-1].end()
                    writing.append(Writing(store, f"r{len(writing)}"))
                    await writing[-1].open()
                await writing[-1].turn(TURN)

        async def sample() -> list[Cost]:
            return [await meter(lambda: turns(1)) for _ in range(SAMPLE)]

        await turns(EARLY)
        early = least(await sample())
        await turns(LATE - EARLY - SAMPLE)
        late = least(await sample())
    assert early.statements >= 3 and early.rows > 5 and early.bytes > 500
    assert (late.statements, late.rows) == (early.statements, early.rows)
    assert late.steps <= early.steps * 1.1 + 1
    assert late.bytes <= early.bytes * 1.15  # a page more when an index got a level


def least(costs: list[Cost]) -> Cost:
    """The least of each count: what others do to the same server at the time, and runs' ends, only add."""
    return Cost(*(min(astuple(cost)[index] for cost in costs) for index in range(4)))
