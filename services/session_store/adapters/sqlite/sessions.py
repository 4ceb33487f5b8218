"""Rows of sessions and messages."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from session_store.adapters.sqlite.ledgers import MERGE_USAGE, SUMS_OF_USAGE
from session_store.domain.page import Cursor
from session_store.domain.session import Message, RunId, Session, SessionId, SessionQuery, StoredMessage, Tenant

_COLUMNS = "tenant, id, created_at, updated_at, title, metadata, message_count, active_run, version, key"

_FIND = f"SELECT {_COLUMNS} FROM sessions WHERE tenant = ? AND id = ?"  # noqa: S608 — constants only
_ADD = f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"  # noqa: S608 — constants only
_CHANGE = "UPDATE sessions SET title = ?, metadata = ?, version = ?, updated_at = ? WHERE key = ?"
_OCCUPY = "UPDATE sessions SET active_run = ? WHERE key = ?"
_GROW = "UPDATE sessions SET message_count = message_count + ?, updated_at = ? WHERE key = ? RETURNING message_count"
_HAS_LABEL = "EXISTS (SELECT 1 FROM json_each(metadata) AS label WHERE label.key = ? AND label.value = ?)"

_MESSAGES = """SELECT m.id, m.position, coalesce(runs.id, ''), m.created_at, m.body
    FROM messages AS m LEFT JOIN runs ON runs.key = m.run WHERE m.session = ?"""
_MESSAGES_FORWARD = f"{_MESSAGES} AND m.position > ? ORDER BY m.position LIMIT ?"
_MESSAGES_BACKWARD = f"{_MESSAGES} AND m.position < ? ORDER BY m.position DESC LIMIT ?"

_DELETE = (
    f"""INSERT INTO usage SELECT tenant, 0, 0, provider, model, {SUMS_OF_USAGE} FROM usage
        WHERE tenant = (SELECT tenant FROM sessions WHERE key = :key) AND session = :key GROUP BY tenant, provider, model {MERGE_USAGE}""",  # noqa: S608 — constants only
    "DELETE FROM usage WHERE tenant = (SELECT tenant FROM sessions WHERE key = :key) AND session = :key",
    "DELETE FROM held_messages WHERE run IN (SELECT key FROM runs WHERE session = :key)",
    "DELETE FROM messages WHERE session = :key",
    "DELETE FROM batches WHERE session = :key",
    "DELETE FROM requests WHERE session = :key",
    "DELETE FROM runs WHERE session = :key",
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
        return _row_id(self._execute(_ADD, row))

    def change(self, session: Session) -> None:
        """Stores what an update changes."""
        self._execute(_CHANGE, (session.title, _json(session), session.version, session.updated_at, session.key))

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
        """Removes the session and what hangs on it."""
        for statement in _DELETE:
            self._execute(statement, {"key": key})


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
