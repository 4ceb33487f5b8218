"""Rows of sessions and messages."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from session_store.adapters.sqlite.counts import DELETE
from session_store.domain.page import Cursor
from session_store.domain.session import Message, RunId, Session, SessionId, SessionQuery, StoredMessage, Tenant

MAX_NUMBER = (1 << 63) - 1
_COLUMNS = "tenant, id, created_at, updated_at, title, metadata, message_count, active_run, version, forked_from, forked_at, key"

_FIND = f"SELECT {_COLUMNS} FROM sessions WHERE tenant = ? AND id = ?"  # noqa: S608 — constants only
_ADD = f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"  # noqa: S608 — constants only
_CHANGE = "UPDATE sessions SET title = ?, metadata = ?, version = ?, updated_at = ? WHERE key = ?"
_FORKS = """SELECT key FROM sessions WHERE tenant = ? AND forked_from = ? AND forked_from > '' AND created_at >= ?
    ORDER BY created_at DESC LIMIT ?"""
_OCCUPY = "UPDATE sessions SET active_run = ? WHERE key = ?"
_GROW = "UPDATE sessions SET message_count = message_count + ?, updated_at = ? WHERE key = ? RETURNING message_count"
_HAS_LABEL = "EXISTS (SELECT 1 FROM json_each(metadata) AS label WHERE label.key = ? AND label.value = ?)"

_MESSAGES = """SELECT m.id, m.position, coalesce(runs.id, ''), m.created_at, m.body
    FROM messages AS m LEFT JOIN runs ON runs.key = m.run WHERE m.session = ?"""
_COPY = """INSERT INTO messages SELECT NULL, ?, position, id, 0, created_at, body FROM messages
    WHERE session = ? AND position <= ? ORDER BY position"""
_BEFORE = "SELECT position FROM messages WHERE session = ? AND run <> ? ORDER BY position DESC LIMIT 1"
_MESSAGES_FORWARD = f"{_MESSAGES} AND m.position > ? ORDER BY m.position LIMIT ?"
_MESSAGES_BACKWARD = f"{_MESSAGES} AND m.position < ? ORDER BY m.position DESC LIMIT ?"

_OLDEST = f"""SELECT {_COLUMNS} FROM sessions WHERE tenant = ? AND created_at < ? AND (created_at, id) > (?, ?)
    ORDER BY created_at, id LIMIT ?"""  # noqa: S608 — constants only
_NEXT_TENANT = "SELECT tenant FROM sessions WHERE tenant > ? AND tenant NOT LIKE '/%' ORDER BY tenant LIMIT 1"

# Many sessions may wait for batches to be published: none of them stands in another's way.
_SWEEPABLE = """SELECT session FROM hidden WHERE until <= ?
    AND NOT EXISTS (SELECT 1 FROM batches WHERE batches.session = hidden.session AND batches.number > ?) LIMIT 1"""
_SWEEP = (  # what may be much; the log from its end, so that what is left of it has no gap
    "DELETE FROM messages WHERE key IN (SELECT key FROM messages WHERE session = ? LIMIT ?)",
    "DELETE FROM batches WHERE number IN (SELECT number FROM batches WHERE session = ? ORDER BY number DESC LIMIT ?)",
    "DELETE FROM runs WHERE key IN (SELECT key FROM runs WHERE session = ? LIMIT ?)",
)
_SWEEP_LAST = (
    "DELETE FROM usage WHERE tenant = (SELECT tenant FROM hidden WHERE session = :key) AND session = :key",
    "DELETE FROM hidden WHERE session = :key",
    "DELETE FROM sessions WHERE key = :key",
)


class SqliteSessions:
    """Sessions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def find(self, tenant: Tenant, id_: SessionId) -> Session | None:
        """The session of that id."""
        row = self._execute(_FIND, (tenant, id_)).fetchone()
        return _session(row) if row else None

    def add(self, session: Session) -> int:
        """Stores a new session."""
        s = session
        row = (s.tenant, s.id, s.created_at, s.updated_at, s.title, _json(s), s.message_count, s.active_run_id, s.version)
        return _row_id(self._execute(_ADD, (*row, s.forked_from, s.forked_at)))

    def change(self, session: Session) -> None:
        """Stores what an update changes."""
        self._execute(_CHANGE, (session.title, _json(session), session.version, session.updated_at, session.key))

    def forks(self, tenant: Tenant, id_: SessionId, since: float, limit: int) -> list[int]:
        """Forks of a session."""
        return [key for (key,) in self._execute(_FORKS, (tenant, id_, since, limit))]

    def occupy(self, key: int, run_id: RunId) -> None:
        """Makes a run the active one."""
        self._execute(_OCCUPY, (run_id, key))

    def grow(self, key: int, count: int, now: float) -> int:
        """Counts messages in."""
        (after,) = self._execute(_GROW, (count, now, key)).fetchone()
        return int(after) - count

    def page(self, tenant: Tenant, query: SessionQuery, before: Cursor | None, limit: int) -> list[Session]:
        """Newest first."""
        conditions: list[str] = ["tenant = ?"]
        values: list[Any] = [tenant]
        if query.created_after is not None:
            conditions.append("created_at >= ?")
            values.append(query.created_after)
        if query.created_before is not None:
            conditions.append("created_at < ?")
            values.append(query.created_before)
        for label in sorted(query.metadata.items()):
            conditions.append(_HAS_LABEL)
            values += label
        return [_session(row) for row in newest_first(self._execute, "sessions", _COLUMNS, conditions, values, before, limit)]

    def delete(self, key: int) -> None:
        """Takes it out of every look-up."""
        for statement in DELETE:
            self._execute(statement, {"key": key})

    def oldest(self, tenant: Tenant, created_before: float, after: Cursor | None, limit: int) -> list[Session]:
        """Oldest first."""
        since = (-1.0, "") if after is None else (after.created_at, after.id)
        return [_session(row) for row in self._execute(_OLDEST, (tenant, created_before, *since, limit))]

    def next_tenant(self, after: str) -> Tenant | None:
        """The next in the order of their names."""
        row = self._execute(_NEXT_TENANT, (after,)).fetchone()
        return row[0] if row else None

    def hide(self, key: int, tenant: Tenant, until: float) -> None:
        """Marks it to be swept."""
        self._execute("INSERT OR REPLACE INTO hidden VALUES (?, ?, ?)", (key, tenant, until))

    def show(self, key: int) -> None:
        """Gives it to its tenant."""
        for table, column in (("sessions", "key"), ("runs", "session")):
            self._execute(f"UPDATE {table} SET tenant = (SELECT tenant FROM hidden WHERE session = ?) WHERE {column} = ?", (key, key))  # noqa: S608 — constants only
        self._execute("DELETE FROM hidden WHERE session = ?", (key,))

    def sweep(self, now: float, limit: int, published: int | None) -> int:
        """Removes rows of the first session that can go."""
        row = self._execute(_SWEEPABLE, (now, MAX_NUMBER if published is None else published)).fetchone()
        if row is None:
            return 0
        removed = 0
        for statement in _SWEEP:
            removed += self._execute(statement, (row[0], limit - removed)).rowcount
            if removed >= limit:
                return removed
        for statement in _SWEEP_LAST:
            self._execute(statement, {"key": row[0]})
        return removed + 1


class SqliteMessages:
    """Messages, and those held for runs that wait."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany

    def add(self, session_key: int, first: int, run_key: int, now: float, messages: Sequence[Message]) -> None:
        """Stores messages."""
        self._executemany(
            "INSERT INTO messages VALUES (NULL, ?, ?, ?, ?, ?, ?)",
            [(session_key, position, message.id, run_key, now, message.body) for position, message in enumerate(messages, first)],
        )

    def copy(self, session_key: int, last: int, to_session_key: int) -> None:
        """Copies messages."""
        self._execute(_COPY, (to_session_key, session_key, last))

    def count_before(self, session_key: int, run_key: int) -> int:
        """How many there were before the newest run: a walk over that run's messages, back from the end."""
        row = self._execute(_BEFORE, (session_key, run_key)).fetchone()
        return int(row[0]) if row else 0

    def page(self, session_key: int, after: int, limit: int, newest_first: bool) -> list[StoredMessage]:
        """Messages beyond a position."""
        if newest_first:
            rows = self._execute(_MESSAGES_BACKWARD, (session_key, after or 1 << 62, limit))
        else:
            rows = self._execute(_MESSAGES_FORWARD, (session_key, after, limit))
        return [StoredMessage(*row) for row in rows]

    def hold(self, run_key: int, messages: Sequence[Message]) -> None:
        """Keeps messages with a run."""
        rows = [(run_key, ordinal, message.id, message.body) for ordinal, message in enumerate(messages)]
        self._executemany("INSERT INTO held_messages VALUES (?, ?, ?, ?)", rows)

    def release(self, run_key: int) -> list[Message]:
        """Takes held messages out."""
        rows = self._execute("SELECT id, body FROM held_messages WHERE run = ? ORDER BY ordinal", (run_key,)).fetchall()
        self._execute("DELETE FROM held_messages WHERE run = ?", (run_key,))
        return [Message(id_, body) for id_, body in rows]


def newest_first(
    execute: Any, table: str, columns: str, conditions: list[str], values: list[Any], before: Cursor | None, limit: int
) -> Any:
    """Rows of a table by (created_at, id), greatest first, from before a cursor."""
    if before is not None:
        conditions.append("(created_at, id) < (?, ?)")
        values += (before.created_at, before.id)
    where = " AND ".join(conditions)
    return execute(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY created_at DESC, id DESC LIMIT ?", (*values, limit))  # noqa: S608 — constants only


def _session(row: tuple[Any, ...]) -> Session:
    tenant, id_, created_at, updated_at, title, metadata, *rest = row
    return Session(tenant, id_, created_at, updated_at, title, json.loads(metadata), *rest)


def _json(session: Session) -> str:
    return json.dumps(dict(session.metadata), ensure_ascii=False, separators=(",", ":"))


def _row_id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid
