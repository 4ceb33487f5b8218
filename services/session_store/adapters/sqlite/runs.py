"""Rows of runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from session_store.adapters.sqlite.sessions import newest_first
from session_store.domain.page import Cursor
from session_store.domain.run import FORGIVEN, Assignment, Place, Run, RunPatch, RunQuery, RunState, Standing
from session_store.domain.session import DriverId, RunId, Tenant

_COLUMNS = (
    "tenant, id, session_id, created_at, state, place, sequence, driver, epoch, started_at, ended_at, details, usage, turns, fault,"
    " output_message_id, input_digest, session, key"
)
_STATES = {state.value: state for state in RunState}
_PLACES = {place.value: place for place in Place}
_FORGIVEN = ", ".join(str(state.value) for state in FORGIVEN)

# The conditions of the partial indexes, word for word, so that they are used.
_WAITS = "place = 0 AND state < 3"
_UNASSIGNED = "driver = '' AND place > 0 AND state < 3"
_DRIVEN = "driver > '' AND state < 3"

_FIND = f"SELECT {_COLUMNS} FROM runs WHERE tenant = ? AND id = ?"  # noqa: S608 — constants only
_STANDING = "SELECT key, session, session_id, state, place, sequence, driver, epoch FROM runs WHERE tenant = ? AND id = ?"
_ADD = f"INSERT INTO runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"  # noqa: S608 — constants only
_MOVE = "UPDATE runs SET sequence = ? WHERE key = ?"
_ADVANCE = """UPDATE runs SET sequence = ?, state = coalesce(?, state), usage = coalesce(?, usage), turns = coalesce(?, turns),
    fault = coalesce(?, fault), output_message_id = coalesce(?, output_message_id), ended_at = coalesce(?, ended_at) WHERE key = ?"""
_WITH_INPUT = f"""SELECT {_COLUMNS} FROM runs WHERE session = ? AND created_at >= ? AND input_digest = ? AND state NOT IN ({_FORGIVEN})
    ORDER BY created_at DESC LIMIT 1"""  # noqa: S608 — constants only
_COUNT_WAITING = f"SELECT count(*) FROM runs WHERE session = ? AND {_WAITS}"  # noqa: S608 — constants only
_NEXT_WAITING = f"SELECT key, id FROM runs WHERE session = ? AND {_WAITS} ORDER BY key LIMIT 1"  # noqa: S608 — constants only
_UNASSIGNED_RUNS = f"SELECT key, id, tenant, epoch, sequence FROM runs WHERE {_UNASSIGNED} ORDER BY key LIMIT ?"  # noqa: S608 — constants only
_ASSIGN = """UPDATE runs SET driver = ?, state = CASE place WHEN 1 THEN 2 ELSE state END,
    started_at = CASE place WHEN 1 THEN coalesce(started_at, ?) ELSE started_at END WHERE key = ?"""
_HELD = f"SELECT id, tenant, epoch, sequence FROM runs WHERE driver = ? AND {_DRIVEN} ORDER BY key"  # noqa: S608 — constants only
_HELD_IDS = f"SELECT key, id FROM runs WHERE driver = ? AND {_DRIVEN} ORDER BY key"  # noqa: S608 — constants only
_TAKE = "UPDATE runs SET driver = '', epoch = epoch + 1 WHERE key = ?"

_NO_PATCH = RunPatch()


class SqliteRuns:
    """Runs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany

    def find(self, tenant: Tenant, id_: RunId) -> Run | None:
        """The run of that id."""
        row = self._execute(_FIND, (tenant, id_)).fetchone()
        return _run(row) if row else None

    def standing(self, tenant: Tenant, id_: RunId) -> Standing | None:
        """What decides about writes."""
        row = self._execute(_STANDING, (tenant, id_)).fetchone()
        if row is None:
            return None
        key, session_key, session_id, state, place, sequence, driver, epoch = row
        return Standing(key, session_key, session_id, _STATES[state], _PLACES[place], sequence, driver, epoch)

    def add(self, run: Run) -> int:
        """Stores a new run."""
        r = run
        head = (r.tenant, r.id, r.session_id, r.created_at, r.state.value, r.place.value, r.sequence, r.driver_id, r.epoch)
        rest = (r.started_at, r.ended_at, r.details, r.usage, r.turns, r.fault, r.output_message_id, r.input_digest, r.session_key)
        key = self._execute(_ADD, (*head, *rest)).lastrowid
        assert key is not None
        return key

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None) -> None:
        """Moves the log's end, and more if the patch says so."""
        if patch == _NO_PATCH and ended_at is None:
            self._execute(_MOVE, (sequence, key))
            return
        state = None if patch.state is None else patch.state.value
        values = (sequence, state, patch.usage, patch.turns, patch.fault, patch.output_message_id, ended_at, key)
        self._execute(_ADVANCE, values)

    def place(self, key: int, place: Place) -> None:
        """Changes the place."""
        self._execute("UPDATE runs SET place = ? WHERE key = ?", (place.value, key))

    def page(self, tenant: Tenant, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """Newest first."""
        conditions: list[str] = ["tenant = ?"]
        values: list[Any] = [tenant]
        if query.session_key is not None:
            conditions, values = ["+tenant = ?", "session = ?"], [tenant, query.session_key]  # the plus keeps to the session's index
        if query.states:
            conditions.append(f"state IN ({', '.join('?' * len(query.states))})")
            values += sorted(state.value for state in query.states)
        return [_run(row) for row in newest_first(self._execute, "runs", _COLUMNS, conditions, values, before, limit)]

    def with_input(self, session_key: int, digest: str, since: float) -> Run | None:
        """The newest run with that input."""
        row = self._execute(_WITH_INPUT, (session_key, since, digest)).fetchone()
        return _run(row) if row else None

    def count_waiting(self, session_key: int) -> int:
        """How many wait."""
        return int(self._execute(_COUNT_WAITING, (session_key,)).fetchone()[0])

    def next_waiting(self, session_key: int) -> tuple[int, RunId] | None:
        """The oldest that waits."""
        row = self._execute(_NEXT_WAITING, (session_key,)).fetchone()
        return (row[0], row[1]) if row else None

    def unassigned(self, limit: int) -> list[tuple[int, Assignment]]:
        """The oldest that should have a driver."""
        return [(key, Assignment(*rest)) for key, *rest in self._execute(_UNASSIGNED_RUNS, (limit,))]

    def assign(self, key: int, driver_id: DriverId, now: float) -> None:
        """Hands a run out."""
        self._execute(_ASSIGN, (driver_id, now, key))

    def held_by(self, driver_id: DriverId) -> list[Assignment]:
        """A driver's runs."""
        return [Assignment(*row) for row in self._execute(_HELD, (driver_id,))]

    def take(self, driver_id: DriverId, run_ids: Sequence[RunId] | None) -> list[RunId]:
        """Takes runs away."""
        wanted = None if run_ids is None else set(run_ids)
        taken = [(key, id_) for key, id_ in self._execute(_HELD_IDS, (driver_id,)).fetchall() if wanted is None or id_ in wanted]
        self._executemany(_TAKE, [(key,) for key, _ in taken])
        return [id_ for _, id_ in taken]


def _run(row: tuple[Any, ...]) -> Run:
    tenant, id_, session_id, created_at, state, place, *rest = row
    return Run(tenant, id_, session_id, created_at, _STATES[state], _PLACES[place], *rest)
