"""Rows of runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from chassis.tenants import EVERYBODY
from session_store.adapters.sqlite.sessions import newest_first
from session_store.domain.page import Cursor
from session_store.domain.run import FORGIVEN, Assignment, Place, Run, RunPatch, RunQuery, RunState, Standing
from session_store.domain.schedule import Candidate, Load, Queue
from session_store.domain.session import DriverId, RunId, Tenant
from session_store.domain.tally import NOTHING, Tally

_COLUMNS = (
    "tenant, id, session_id, created_at, state, place, sequence, driver, epoch, started_at, ended_at, details, usage, turns, fault,"
    " output_message_id, input_digest, session, rank, ends_by, wakes_at, key"
)
_STATES = {state.value: state for state in RunState}
_PLACES = {place.value: place for place in Place}
_FORGIVEN = ", ".join(str(state.value) for state in FORGIVEN)

# The conditions of the partial indexes, word for word, so that they are used.
_WAITS = "place = 0 AND state < 3"
_UNASSIGNED = "driver = '' AND place > 0 AND state < 3"
_UNBEGUN = "driver = '' AND state = 1"
_DUE = "driver = '' AND place = 1 AND state = 1"
_ORPHANED = "driver = '' AND state = 2"
_DRIVEN = "driver > '' AND state < 3"

_FIND = f"SELECT {_COLUMNS} FROM runs WHERE tenant = ? AND id = ?"  # noqa: S608 — constants only
_STANDING = "SELECT key, session, session_id, state, place, sequence, driver, epoch FROM runs WHERE tenant = ? AND id = ?"
_COUNTERS = "messages, tool_calls, tool_executions, tool_failures, tool_unknown, tool_micros"
_ADD = f"INSERT INTO runs ({_COLUMNS}, {_COUNTERS}) VALUES ({', '.join('?' * 21)}, NULL, {', '.join('?' * 6)})"  # noqa: S608 — constants only
_MOVE = "UPDATE runs SET sequence = ? WHERE key = ?"
_ADVANCE = """UPDATE runs SET sequence = ?, state = coalesce(?, state), usage = coalesce(?, usage), turns = coalesce(?, turns),
    fault = coalesce(?, fault), output_message_id = coalesce(?, output_message_id), ended_at = coalesce(?, ended_at) WHERE key = ?"""
_WITH_INPUT = f"""SELECT {_COLUMNS} FROM runs WHERE session = ? AND created_at >= ? AND input_digest = ? AND state NOT IN ({_FORGIVEN})
    ORDER BY created_at DESC LIMIT 1"""  # noqa: S608 — constants only
_COUNT_WAITING = f"SELECT count(*) FROM runs WHERE session = ? AND {_WAITS}"  # noqa: S608 — constants only
_NEXT_WAITING = f"SELECT key, id FROM runs WHERE session = ? AND {_WAITS} ORDER BY key LIMIT 1"  # noqa: S608 — constants only
_LOAD = f"""SELECT coalesce(own.running, 0), coalesce(own.waiting, 0), total.running,
    EXISTS (SELECT 1 FROM runs INDEXED BY runs_due WHERE {_DUE}) OR EXISTS (SELECT 1 FROM runs WHERE {_ORPHANED})
    FROM loads AS total LEFT JOIN loads AS own ON own.tenant = ? WHERE total.tenant = '*'"""  # noqa: S608 — constants only
_IS_DUE = f"SELECT EXISTS (SELECT 1 FROM runs WHERE {_UNASSIGNED})"  # noqa: S608 — constants only
_ASSIGNMENT = "id, tenant, epoch, sequence"
_OVERDUE = f"SELECT key, place, {_ASSIGNMENT} FROM runs WHERE {_UNBEGUN} AND ends_by <= ? ORDER BY ends_by, key LIMIT ?"  # noqa: S608 — constants only
_ORPHANS = f"SELECT key, {_ASSIGNMENT} FROM runs WHERE {_ORPHANED} ORDER BY key LIMIT ?"  # noqa: S608 — constants only
_NEXT_TENANT = f"SELECT tenant FROM runs WHERE {_DUE} AND tenant > ? ORDER BY tenant LIMIT 1"  # noqa: S608 — constants only
_RUNNING = "SELECT running FROM loads WHERE tenant = ?"
_QUEUE = f"SELECT key, rank, {_ASSIGNMENT} FROM runs WHERE tenant = ? AND {_DUE} ORDER BY rank, key LIMIT ?"  # noqa: S608 — constants only
_ASSIGN = "UPDATE runs SET driver = ? WHERE key = ?"
_BEGIN = "UPDATE runs SET driver = ?, state = 2, started_at = coalesce(started_at, ?) WHERE key = ?"
_TAKEN = """SELECT hidden.id FROM runs AS hidden JOIN runs AS known ON known.tenant = ? AND known.id = hidden.id
    WHERE hidden.session = ? LIMIT 1"""
_REST = "UPDATE runs SET state = 6, driver = '', epoch = epoch + 1, wakes_at = ? WHERE key = ?"
_WAKE = "UPDATE runs SET state = 1 WHERE key = ?"
_RESTED = "SELECT key FROM runs WHERE state = 6 AND wakes_at <= ? ORDER BY wakes_at, key LIMIT ?"
_HELD = f"SELECT id, tenant, epoch, sequence FROM runs WHERE driver = ? AND {_DRIVEN} ORDER BY key"  # noqa: S608 — constants only
_HELD_IDS = f"SELECT key, id FROM runs WHERE driver = ? AND {_DRIVEN} ORDER BY key"  # noqa: S608 — constants only
_TAKE = "UPDATE runs SET driver = '', epoch = epoch + 1 WHERE key = ?"

_COUNT = """UPDATE runs SET messages = messages + ?, tool_calls = tool_calls + ?, tool_executions = tool_executions + ?,
    tool_failures = tool_failures + ?, tool_unknown = tool_unknown + ?, tool_micros = tool_micros + ? WHERE key = ?"""

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
        key = self._execute(_ADD, (*head, *rest, r.rank, r.ends_by, r.wakes_at, *astuple(r.tally))).lastrowid
        assert key is not None
        return key

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None, tally: Tally = NOTHING) -> None:
        """Moves the log's end, and more if the patch says so."""
        if tally != NOTHING:
            self.count(key, tally)
        if patch == _NO_PATCH and ended_at is None:
            self._execute(_MOVE, (sequence, key))
            return
        state = None if patch.state is None else patch.state.value
        values = (sequence, state, patch.usage, patch.turns, patch.fault, patch.output_message_id, ended_at, key)
        self._execute(_ADVANCE, values)

    def count(self, key: int, tally: Tally) -> None:
        """Adds to the counts."""
        self._execute(_COUNT, (*astuple(tally), key))

    def place(self, key: int, place: Place) -> None:
        """Changes the place."""
        self._execute("UPDATE runs SET place = ? WHERE key = ?", (place.value, key))

    def taken(self, session_key: int, tenant: Tenant) -> RunId | None:
        """An id that a tenant has."""
        row = self._execute(_TAKEN, (tenant, session_key)).fetchone()
        return row[0] if row else None

    def end_by(self, key: int, moment: float) -> None:
        """Changes when one that has not begun is to be ended."""
        self._execute("UPDATE runs SET ends_by = ? WHERE key = ?", (moment, key))

    def page(self, tenant: Tenant, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """Newest first."""
        conditions: list[str] = ["tenant = ?"]
        values: list[Any] = [tenant]
        if query.session_key is not None:
            conditions, values = ["+tenant = ?", "session = ?"], [tenant, query.session_key]  # the plus keeps to the session's index
        if query.states:
            conditions.append(f"state IN ({', '.join('?' * len(query.states))})")
            values += sorted(state.value for state in query.states)
        if query.rested:
            conditions.append("wakes_at IS NOT NULL")
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

    def load(self, tenant: Tenant) -> Load:
        """How much there is."""
        running, waiting, running_of_all, due = self._execute(_LOAD, (tenant,)).fetchone()
        return Load(running, waiting, running_of_all, bool(due))

    def is_due(self) -> bool:
        """Whether any should have a driver."""
        return bool(self._execute(_IS_DUE).fetchone()[0])

    def overdue(self, now: float, limit: int) -> list[tuple[int, Place, Assignment]]:
        """Those to be ended."""
        return [(key, _PLACES[place], Assignment(*rest)) for key, place, *rest in self._execute(_OVERDUE, (now, limit))]

    def count_running(self) -> int:
        """How many run."""
        return int(self._execute(_RUNNING, (EVERYBODY,)).fetchone()[0])

    def orphans(self, limit: int) -> list[tuple[int, Assignment]]:
        """The oldest that lost their driver."""
        return [(key, Assignment(*rest)) for key, *rest in self._execute(_ORPHANS, (limit,))]

    def queues(self, after: Tenant, tenants: int, runs: int) -> list[Queue]:
        """Tenants with runs that wait for a driver."""
        names = self._tenants(after, None, tenants)
        names += self._tenants(Tenant(""), after, tenants - len(names)) if after else []
        return [self._queue(name, runs) for name in names]

    def assign(self, key: int, driver_id: DriverId, begins_at: float | None) -> None:
        """Hands a run out."""
        if begins_at is None:
            self._execute(_ASSIGN, (driver_id, key))
        else:
            self._execute(_BEGIN, (driver_id, begins_at, key))

    def rest(self, key: int, wakes_at: float) -> None:
        """Takes a run from its driver."""
        self._execute(_REST, (wakes_at, key))

    def wake(self, key: int) -> None:
        """Lets it wait for a driver."""
        self._execute(_WAKE, (key,))

    def rested(self, now: float, limit: int) -> list[int]:
        """Those to be woken."""
        return [key for (key,) in self._execute(_RESTED, (now, limit))]

    def held_by(self, driver_id: DriverId) -> list[Assignment]:
        """A driver's runs."""
        return [Assignment(*row) for row in self._execute(_HELD, (driver_id,))]

    def take(self, driver_id: DriverId, run_ids: Sequence[RunId] | None) -> list[RunId]:
        """Takes runs away."""
        wanted = None if run_ids is None else set(run_ids)
        taken = [(key, id_) for key, id_ in self._execute(_HELD_IDS, (driver_id,)).fetchall() if wanted is None or id_ in wanted]
        self._executemany(_TAKE, [(key,) for key, _ in taken])
        return [id_ for _, id_ in taken]

    def _tenants(self, after: Tenant, last: Tenant | None, limit: int) -> list[Tenant]:
        """Names behind one, up to another, a step in the index for each."""
        names: list[Tenant] = []
        while len(names) < limit and (row := self._execute(_NEXT_TENANT, (after,)).fetchone()):
            after = row[0]
            if last is not None and after > last:
                break
            names.append(after)
        return names

    def _queue(self, tenant: Tenant, limit: int) -> Queue:
        (running,) = self._execute(_RUNNING, (tenant,)).fetchone()
        rows = self._execute(_QUEUE, (tenant, limit))
        return Queue(tenant, running, tuple(Candidate(key, rank, Assignment(*rest)) for key, rank, *rest in rows))


def _run(row: tuple[Any, ...]) -> Run:
    tenant, id_, session_id, created_at, state, place, *rest = row
    return Run(tenant, id_, session_id, created_at, _STATES[state], _PLACES[place], *rest)
