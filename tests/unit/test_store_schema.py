"""The SQLite tables: every question the hot path asks is answered by an index."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.sqlite import open_sqlite
from session_store.adapters.sqlite import batches, runs, sessions
from session_store.adapters.sqlite.schema import MIGRATIONS

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
    within = ("SCAN CONSTANT ROW", "SCAN (subquery-")  # no table: the rows of a step that is listed itself
    assert steps and all("USING" in step for step in steps if step.startswith(("SCAN", "SEARCH")) and not step.startswith(within)), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
