"""Rows of runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from chassis.postgres import Row, Statements
from session_store.adapters.postgres.batches import Counters
from session_store.adapters.postgres.sessions import Conditions
from session_store.domain.page import Cursor
from session_store.domain.run import FORGIVEN, Assignment, Place, Run, RunPatch, RunQuery, RunState, Standing
from session_store.domain.schedule import Candidate, Load, Queue
from session_store.domain.session import DriverId, RunId, Tenant
from session_store.domain.tally import NOTHING, Tally

_COLUMNS = (
    "tenant, id, session_id, created_at, state, place, sequence, driver, epoch, started_at, ended_at, details, usage, turns, fault,"
    " output_message_id, input_digest, session, rank, ends_by, wakes_at, key"
)
_PLACES_OF_COLUMNS = ", ".join(f"${place}" for place in range(1, _COLUMNS.count(",") + 2 + 6))
STATES = {state.value: state for state in RunState}
PLACES = {place.value: place for place in Place}
_FORGIVEN = ", ".join(str(state.value) for state in FORGIVEN)

# The conditions of the partial indexes, word for word, so that they are used.
_WAITS = "place = 0 AND state < 3"
_UNASSIGNED = "driver = '' AND place > 0 AND state < 3"
_UNBEGUN = "driver = '' AND state = 1"
_DUE = "driver = '' AND place = 1 AND state = 1"
_ORPHANED = "driver = '' AND state = 2"
_DRIVEN = "driver > '' AND state < 3"

_FIND = f"SELECT {_COLUMNS} FROM runs WHERE tenant = $1 AND id = $2"  # noqa: S608 — constants only
_STANDING = "SELECT key, session, session_id, state, place, sequence, driver, epoch FROM runs WHERE tenant = $1 AND id = $2"
_COUNTERS = "messages, tool_calls, tool_executions, tool_failures, tool_unknown, tool_micros"
_ADD = f"INSERT INTO runs ({_COLUMNS}, {_COUNTERS}) VALUES ({_PLACES_OF_COLUMNS})"  # noqa: S608 — constants only
_ADVANCE = """UPDATE runs SET sequence = $1, state = coalesce($2, state), usage = coalesce($3, usage), turns = coalesce($4, turns),
    fault = coalesce($5, fault), output_message_id = coalesce($6, output_message_id), ended_at = coalesce($7, ended_at) WHERE key = $8"""
_COUNT = """UPDATE runs SET messages = messages + $1, tool_calls = tool_calls + $2, tool_executions = tool_executions + $3,
    tool_failures = tool_failures + $4, tool_unknown = tool_unknown + $5, tool_micros = tool_micros + $6 WHERE key = $7"""
_PLACE = "UPDATE runs SET place = $1 WHERE key = $2"
_WITH_INPUT = f"""SELECT {_COLUMNS} FROM runs WHERE session = $1 AND created_at >= $2 AND input_digest = $3 AND state NOT IN ({_FORGIVEN})
    ORDER BY created_at DESC LIMIT 1"""  # noqa: S608 — constants only
_COUNT_WAITING = f"SELECT count(*) FROM runs WHERE session = $1 AND {_WAITS}"  # noqa: S608 — constants only
_NEXT_WAITING = f"SELECT key, id FROM runs WHERE session = $1 AND {_WAITS} ORDER BY key LIMIT 1"  # noqa: S608 — constants only
_END_BY = "UPDATE runs SET ends_by = $1 WHERE key = $2"
_LOAD = f"""SELECT coalesce(own.running, 0), coalesce(own.waiting, 0), total.running,
    EXISTS (SELECT 1 FROM runs WHERE {_DUE}) OR EXISTS (SELECT 1 FROM runs WHERE {_ORPHANED})
    FROM loads AS total LEFT JOIN loads AS own ON own.tenant = $1 WHERE total.tenant = '*'"""  # noqa: S608 — constants only
_IS_DUE = f"SELECT EXISTS (SELECT 1 FROM runs WHERE {_UNASSIGNED})"  # noqa: S608 — constants only
_ASSIGNMENT = "id, tenant, epoch, sequence"
_OVERDUE = f"SELECT key, place, {_ASSIGNMENT} FROM runs WHERE {_UNBEGUN} AND ends_by <= $1 ORDER BY ends_by, key LIMIT $2"  # noqa: S608 — constants only
_RUNNING = "SELECT running FROM loads WHERE tenant = '*'"
_ORPHANS = f"SELECT key, {_ASSIGNMENT} FROM runs WHERE {_ORPHANED} ORDER BY key LIMIT $1"  # noqa: S608 — constants only
_NEXT_TENANT = f"SELECT tenant FROM runs WHERE {_DUE} AND tenant > {{after}} AND ($2 = '' OR tenant <= $2) ORDER BY tenant LIMIT 1"  # noqa: S608 — constants only
# The names are found by a step in the index for each, however many runs a tenant has. Its first runs are read from where it begins, in
# the order of the index, and what lies beyond it is left: asked for by equality, all of its runs may be read and sorted.
_QUEUES = f"""WITH RECURSIVE names AS (
        ({_NEXT_TENANT.format(after="$1")}) UNION ALL
        SELECT ({_NEXT_TENANT.format(after="names.tenant")}) FROM names WHERE names.tenant IS NOT NULL
    )
    SELECT named.tenant, named.running, first.*
    FROM (SELECT tenant, (SELECT running FROM loads WHERE loads.tenant = names.tenant) AS running
          FROM names WHERE tenant IS NOT NULL LIMIT $3) AS named CROSS JOIN LATERAL
        (SELECT key, rank, {_ASSIGNMENT} FROM runs
         WHERE tenant >= named.tenant AND {_DUE} ORDER BY runs.tenant, rank, key LIMIT $4) AS first
    WHERE first.tenant = named.tenant ORDER BY named.tenant, first.rank, first.key"""  # noqa: S608 — constants only
_ASSIGN = "UPDATE runs SET driver = $1 WHERE key = $2"
_BEGIN = "UPDATE runs SET driver = $1, state = 2, started_at = coalesce(started_at, $2) WHERE key = $3"
_TAKEN = """SELECT hidden.id FROM runs AS hidden JOIN runs AS known ON known.tenant = $1 AND known.id = hidden.id
    WHERE hidden.session = $2 LIMIT 1"""
_REST = "UPDATE runs SET state = 6, driver = '', epoch = epoch + 1, wakes_at = $1 WHERE key = $2"
_WAKE = "UPDATE runs SET state = 1 WHERE key = $1"
_RESTED = "SELECT key FROM runs WHERE state = 6 AND wakes_at <= $1 ORDER BY wakes_at, key LIMIT $2"
_HELD = f"SELECT id, tenant, epoch, sequence FROM runs WHERE driver = $1 AND {_DRIVEN} ORDER BY key"  # noqa: S608 — constants only
_TAKE = f"""WITH taken AS (UPDATE runs SET driver = '', epoch = epoch + 1
        WHERE driver = $1 AND {_DRIVEN} AND ($2::text[] IS NULL OR id = ANY ($2)) RETURNING key, id)
    SELECT key, id FROM taken ORDER BY key"""  # noqa: S608 — constants only


class PostgresRuns:
    """Runs. `touched` gets the key of each that was changed."""

    def __init__(self, statements: Statements, counters: Counters, touched: set[int]) -> None:
        self._statements = statements
        self._counters = counters
        self._touched = touched

    def find(self, tenant: Tenant, id_: RunId) -> Run | None:
        """The run of that id."""
        row = self._statements.fetchrow(_FIND, tenant, id_)
        return _run(row) if row else None

    def standing(self, tenant: Tenant, id_: RunId) -> Standing | None:
        """What decides about writes."""
        row = self._statements.fetchrow(_STANDING, tenant, id_)
        return standing_of(row) if row else None

    def add(self, run: Run) -> int:
        """Stores a new run."""
        r, key = run, self._counters.next_key()
        head = (r.tenant, r.id, r.session_id, r.created_at, r.state.value, r.place.value, r.sequence, r.driver_id, r.epoch)
        rest = (r.started_at, r.ended_at, r.details, r.usage, r.turns, r.fault, r.output_message_id, r.input_digest, r.session_key)
        self._statements.execute(_ADD, *head, *rest, r.rank, r.ends_by, r.wakes_at, key, *astuple(r.tally))
        return key

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None, tally: Tally = NOTHING) -> None:
        """Moves the log's end, and more if the patch says so."""
        self._touched.add(key)
        if tally != NOTHING:
            self.count(key, tally)
        state = None if patch.state is None else patch.state.value
        values = (sequence, state, patch.usage, patch.turns, patch.fault, patch.output_message_id, ended_at, key)
        self._statements.execute(_ADVANCE, *values)

    def count(self, key: int, tally: Tally) -> None:
        """Adds to the counts."""
        self._statements.execute(_COUNT, *astuple(tally), key)

    def place(self, key: int, place: Place) -> None:
        """Changes the place."""
        self._touched.add(key)
        self._statements.execute(_PLACE, place.value, key)

    def taken(self, session_key: int, tenant: Tenant) -> RunId | None:
        """An id that a tenant has."""
        row = self._statements.fetchrow(_TAKEN, tenant, session_key)
        return row[0] if row else None

    def end_by(self, key: int, moment: float) -> None:
        """Changes when one that has not begun is to be ended."""
        self._touched.add(key)
        self._statements.execute(_END_BY, moment, key)

    def page(self, tenant: Tenant, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """Newest first."""
        where = Conditions("tenant = {}", tenant)
        if query.session_key is not None:
            where.add("session = {}", query.session_key)
        if query.states:
            where.add("state = ANY ({})", sorted(state.value for state in query.states))
        if query.rested:
            where.add("wakes_at IS NOT NULL")
        return [_run(row) for row in where.newest_first(self._statements, "runs", _COLUMNS, before, limit)]

    def with_input(self, session_key: int, digest: str, since: float) -> Run | None:
        """The newest run with that input."""
        row = self._statements.fetchrow(_WITH_INPUT, session_key, since, digest)
        return _run(row) if row else None

    def count_waiting(self, session_key: int) -> int:
        """How many wait."""
        return int(self._statements.fetch(_COUNT_WAITING, session_key)[0][0])

    def next_waiting(self, session_key: int) -> tuple[int, RunId] | None:
        """The oldest that waits."""
        row = self._statements.fetchrow(_NEXT_WAITING, session_key)
        return (row[0], row[1]) if row else None

    def load(self, tenant: Tenant) -> Load:
        """How much there is."""
        row = self._statements.fetchrow(_LOAD, tenant)
        assert row is not None, "the row of all tenants is always there"
        return Load(*row)

    def is_due(self) -> bool:
        """Whether any should have a driver."""
        return bool(self._statements.fetch(_IS_DUE)[0][0])

    def overdue(self, now: float, limit: int) -> list[tuple[int, Place, Assignment]]:
        """Those to be ended."""
        return [(key, PLACES[place], Assignment(*rest)) for key, place, *rest in self._statements.fetch(_OVERDUE, now, limit)]

    def count_running(self) -> int:
        """How many run."""
        return int(self._statements.fetch(_RUNNING)[0][0])

    def orphans(self, limit: int) -> list[tuple[int, Assignment]]:
        """The oldest that lost their driver."""
        return [(key, Assignment(*rest)) for key, *rest in self._statements.fetch(_ORPHANS, limit)]

    def queues(self, after: Tenant, tenants: int, runs: int) -> list[Queue]:
        """Tenants with runs that wait for a driver."""
        found = self._queues(after, "", tenants, runs)
        return found + self._queues("", after, tenants - len(found), runs) if after and len(found) < tenants else found

    def assign(self, key: int, driver_id: DriverId, begins_at: float | None) -> None:
        """Hands a run out."""
        self._touched.add(key)
        if begins_at is None:
            self._statements.execute(_ASSIGN, driver_id, key)
        else:
            self._statements.execute(_BEGIN, driver_id, begins_at, key)

    def rest(self, key: int, wakes_at: float) -> None:
        """Takes a run from its driver."""
        self._touched.add(key)
        self._statements.execute(_REST, wakes_at, key)

    def wake(self, key: int) -> None:
        """Lets it wait for a driver."""
        self._touched.add(key)
        self._statements.execute(_WAKE, key)

    def rested(self, now: float, limit: int) -> list[int]:
        """Those to be woken."""
        return [key for (key,) in self._statements.fetch(_RESTED, now, limit)]

    def held_by(self, driver_id: DriverId) -> list[Assignment]:
        """A driver's runs."""
        return [Assignment(*row) for row in self._statements.fetch(_HELD, driver_id)]

    def take(self, driver_id: DriverId, run_ids: Sequence[RunId] | None) -> list[RunId]:
        """Takes runs away."""
        taken = self._statements.fetch(_TAKE, driver_id, None if run_ids is None else list(run_ids))
        self._touched.update(key for key, _ in taken)
        return [id_ for _, id_ in taken]

    def _queues(self, after: str, last: str, tenants: int, runs: int) -> list[Queue]:
        rows = self._statements.fetch(_QUEUES, after, last, tenants, runs)
        grouped = itertools.groupby(rows, key=lambda row: (row[0], row[1]))
        return [Queue(tenant, running, tuple(_candidate(*row[2:]) for row in of_tenant)) for (tenant, running), of_tenant in grouped]


def standing_of(row: Iterable[Any]) -> Standing:
    """The standing of a run by the columns key, session, session_id, state, place, sequence, driver, epoch."""
    key, session_key, session_id, state, place, sequence, driver, epoch = row
    return Standing(key, session_key, session_id, STATES[state], PLACES[place], sequence, driver, epoch)


def _candidate(key: int, rank: float, *assignment: Any) -> Candidate:
    return Candidate(key, rank, Assignment(*assignment))


def _run(row: Row) -> Run:
    tenant, id_, session_id, created_at, state, place, *rest = row
    return Run(tenant, id_, session_id, created_at, STATES[state], PLACES[place], *rest)
