"""Rows of sessions and messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chassis.postgres import Row, Statements
from session_store.adapters.postgres.batches import Counters
from session_store.adapters.postgres.counts import DELETE
from session_store.domain.page import Cursor
from session_store.domain.session import Message, RunId, Session, SessionId, SessionQuery, StoredMessage, Tenant

MAX_NUMBER = (1 << 63) - 1
_COLUMNS = "tenant, id, created_at, updated_at, title, metadata, message_count, active_run, version, forked_from, forked_at, key"

_FIND = f"SELECT {_COLUMNS} FROM sessions WHERE tenant = $1 AND id = $2"  # noqa: S608 — constants only
_ADD = f"INSERT INTO sessions ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"  # noqa: S608 — constants only
_CHANGE = "UPDATE sessions SET title = $1, metadata = $2, version = $3, updated_at = $4 WHERE key = $5"
_FORKS = """SELECT key FROM sessions WHERE tenant = $1 AND forked_from = $2 AND forked_from > '' AND created_at >= $3
    ORDER BY created_at DESC LIMIT $4"""
_OCCUPY = "UPDATE sessions SET active_run = $1 WHERE key = $2"
_GROW = "UPDATE sessions SET message_count = message_count + $1, updated_at = $2 WHERE key = $3 RETURNING message_count"

_ADD_MESSAGE = """INSERT INTO messages (tenant, session, position, id, run, created_at, body)
    SELECT coalesce((SELECT tenant FROM hidden WHERE session = $1), tenant), key, $2, $3, $4, $5, $6 FROM sessions WHERE key = $1"""
_MESSAGES = """SELECT m.id, m.position, coalesce(runs.id, ''), m.created_at, m.body
    FROM messages AS m LEFT JOIN runs ON runs.key = m.run WHERE m.session = $1"""
_COPY = """INSERT INTO messages (tenant, session, position, id, run, created_at, body)
    SELECT tenant, $1, position, id, 0, created_at, body FROM messages WHERE session = $2 AND position <= $3"""
_BEFORE = "SELECT position FROM messages WHERE session = $1 AND run <> $2 ORDER BY position DESC LIMIT 1"
_MESSAGES_FORWARD = f"{_MESSAGES} AND m.position > $2 ORDER BY m.position LIMIT $3"
_MESSAGES_BACKWARD = f"{_MESSAGES} AND m.position < $2 ORDER BY m.position DESC LIMIT $3"
_HOLD = "INSERT INTO held_messages (tenant, run, ordinal, id, body) SELECT tenant, key, $2, $3, $4 FROM runs WHERE key = $1"
_RELEASE = """WITH taken AS (DELETE FROM held_messages WHERE run = $1 RETURNING ordinal, id, body)
    SELECT id, body FROM taken ORDER BY ordinal"""

_OLDEST = f"""SELECT {_COLUMNS} FROM sessions WHERE tenant = $1 AND created_at < $2 AND (created_at, id) > ($3, $4)
    ORDER BY created_at, id LIMIT $5"""  # noqa: S608 — constants only
_NEXT_TENANT = "SELECT tenant FROM sessions WHERE tenant > $1 AND tenant NOT LIKE '/%' ORDER BY tenant LIMIT 1"
_HIDE = """INSERT INTO hidden (session, tenant, until) VALUES ($1, $2, $3)
    ON CONFLICT (session) DO UPDATE SET until = excluded.until"""
_SHOW = (
    "UPDATE sessions SET tenant = (SELECT tenant FROM hidden WHERE session = $1) WHERE key = $1",
    "UPDATE runs SET tenant = (SELECT tenant FROM hidden WHERE session = $1) WHERE session = $1",
    "DELETE FROM hidden WHERE session = $1",
)

# Many sessions may wait for batches to be published: none of them stands in another's way.
_SWEEPABLE = """SELECT session FROM hidden WHERE until <= $1
    AND NOT EXISTS (SELECT 1 FROM batches WHERE batches.session = hidden.session AND batches.number > $2) LIMIT 1"""
_GONE = "WITH gone AS (DELETE FROM {table} WHERE session = $1 AND {key} IN ({some}) RETURNING 1) SELECT count(*) FROM gone"
_SWEEP = tuple(  # what may be much; the log from its end, so that what is left of it has no gap
    _GONE.format(table=table, key=key, some=f"SELECT {key} FROM {table} WHERE session = $1 ORDER BY {key} DESC LIMIT $2")  # noqa: S608 — constants only
    for table, key in (("messages", "position"), ("batches", "number"), ("runs", "key"))
)
_SWEEP_LAST = (
    "DELETE FROM usage WHERE tenant = (SELECT tenant FROM hidden WHERE session = $1) AND session = $1",
    "DELETE FROM hidden WHERE session = $1",
    "DELETE FROM sessions WHERE key = $1",
)


class PostgresSessions:
    """Sessions."""

    def __init__(self, statements: Statements, counters: Counters) -> None:
        self._statements = statements
        self._counters = counters

    def find(self, tenant: Tenant, id_: SessionId) -> Session | None:
        """The session of that id."""
        row = self._statements.fetchrow(_FIND, tenant, id_)
        return _session(row) if row else None

    def add(self, session: Session) -> int:
        """Stores a new session."""
        s, key = session, self._counters.next_key()
        head = (s.tenant, s.id, s.created_at, s.updated_at, s.title, _json(s.metadata), s.message_count, s.active_run_id, s.version)
        self._statements.execute(_ADD, *head, s.forked_from, s.forked_at, key)
        return key

    def change(self, session: Session) -> None:
        """Stores what an update changes."""
        s = session
        self._statements.execute(_CHANGE, s.title, _json(s.metadata), s.version, s.updated_at, s.key)

    def forks(self, tenant: Tenant, id_: SessionId, since: float, limit: int) -> list[int]:
        """Forks of a session."""
        return [key for (key,) in self._statements.fetch(_FORKS, tenant, id_, since, limit)]

    def occupy(self, key: int, run_id: RunId) -> None:
        """Makes a run the active one."""
        self._statements.execute(_OCCUPY, run_id, key)

    def grow(self, key: int, count: int, now: float) -> int:
        """Counts messages in."""
        row = self._statements.fetchrow(_GROW, count, now, key)
        assert row is not None, "a session that was found"
        return int(row[0]) - count

    def page(self, tenant: Tenant, query: SessionQuery, before: Cursor | None, limit: int) -> list[Session]:
        """Newest first."""
        where = Conditions("tenant = {}", tenant)
        if query.created_after is not None:
            where.add("created_at >= {}", query.created_after)
        if query.created_before is not None:
            where.add("created_at < {}", query.created_before)
        if query.metadata:
            where.add("metadata @> {}::jsonb", _json(query.metadata))
        return [_session(row) for row in where.newest_first(self._statements, "sessions", _COLUMNS, before, limit)]

    def delete(self, key: int) -> None:
        """Takes it out of every look-up."""
        for statement in DELETE:
            self._statements.execute(statement, key)

    def oldest(self, tenant: Tenant, created_before: float, after: Cursor | None, limit: int) -> list[Session]:
        """Oldest first."""
        since = (-1.0, "") if after is None else (after.created_at, after.id)
        return [_session(row) for row in self._statements.fetch(_OLDEST, tenant, created_before, *since, limit)]

    def next_tenant(self, after: str) -> Tenant | None:
        """The next in the order of their names."""
        row = self._statements.fetchrow(_NEXT_TENANT, after)
        return row[0] if row else None

    def hide(self, key: int, tenant: Tenant, until: float) -> None:
        """Marks it to be swept."""
        self._statements.execute(_HIDE, key, tenant, until)

    def show(self, key: int) -> None:
        """Gives it to its tenant."""
        for statement in _SHOW:
            self._statements.execute(statement, key)

    def sweep(self, now: float, limit: int, published: int | None) -> int:
        """Removes rows of the first session that can go."""
        row = self._statements.fetchrow(_SWEEPABLE, now, MAX_NUMBER if published is None else published)
        if row is None:
            return 0
        removed = 0
        for statement in _SWEEP:
            removed += int(self._statements.fetch(statement, row[0], limit - removed)[0][0])
            if removed >= limit:
                return removed
        for statement in _SWEEP_LAST:
            self._statements.execute(statement, row[0])
        return removed + 1


class PostgresMessages:
    """Messages, and those held for runs that wait."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def add(self, session_key: int, first: int, run_key: int, now: float, messages: Sequence[Message]) -> None:
        """Stores messages."""
        rows = [(session_key, position, message.id, run_key, now, message.body) for position, message in enumerate(messages, first)]
        self._statements.executemany(_ADD_MESSAGE, rows)

    def copy(self, session_key: int, last: int, to_session_key: int) -> None:
        """Copies messages."""
        self._statements.execute(_COPY, to_session_key, session_key, last)

    def count_before(self, session_key: int, run_key: int) -> int:
        """How many there were before the newest run: a walk over that run's messages, back from the end."""
        row = self._statements.fetchrow(_BEFORE, session_key, run_key)
        return int(row[0]) if row else 0

    def page(self, session_key: int, after: int, limit: int, newest_first: bool) -> list[StoredMessage]:
        """Messages beyond a position."""
        if newest_first:
            rows = self._statements.fetch(_MESSAGES_BACKWARD, session_key, after or 1 << 62, limit)
        else:
            rows = self._statements.fetch(_MESSAGES_FORWARD, session_key, after, limit)
        return [StoredMessage(*row) for row in rows]

    def hold(self, run_key: int, messages: Sequence[Message]) -> None:
        """Keeps messages with a run."""
        self._statements.executemany(_HOLD, [(run_key, ordinal, message.id, message.body) for ordinal, message in enumerate(messages)])

    def release(self, run_key: int) -> list[Message]:
        """Takes held messages out."""
        return [Message(id_, body) for id_, body in self._statements.fetch(_RELEASE, run_key)]


class Conditions:
    """Conditions of a query with their values; `{}` stands for the value's place."""

    def __init__(self, condition: str, value: Any) -> None:
        self._conditions: list[str] = []
        self._values: list[Any] = []
        self.add(condition, value)

    def add(self, condition: str, *values: Any) -> None:
        """One more condition."""
        places = [f"${place}" for place in range(len(self._values) + 1, len(self._values) + len(values) + 1)]
        self._conditions.append(condition.format(*places))
        self._values += values

    def newest_first(self, statements: Statements, table: str, columns: str, before: Cursor | None, limit: int) -> list[Row]:
        """Rows of a table by (created_at, id), greatest first, from before a cursor."""
        if before is not None:
            self.add("(created_at, id) < ({}, {})", before.created_at, before.id)
        where, place = " AND ".join(self._conditions), len(self._values) + 1
        select = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY created_at DESC, id DESC LIMIT ${place}"  # noqa: S608 — constants only
        return statements.fetch(select, *self._values, limit)


def _session(row: Row) -> Session:
    tenant, id_, created_at, updated_at, title, metadata, *rest = row
    return Session(tenant, id_, created_at, updated_at, title, json.loads(metadata), *rest)


def _json(labels: Any) -> str:
    return json.dumps(dict(labels), ensure_ascii=False, separators=(",", ":"))
