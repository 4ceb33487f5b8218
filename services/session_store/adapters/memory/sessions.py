"""Sessions and messages in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from session_store.adapters.memory.rows import Rows
from session_store.domain.page import Cursor
from session_store.domain.session import Message, RunId, Session, SessionId, SessionQuery, StoredMessage, Tenant
from session_store.domain.usage import Usage


class MemorySessions:
    """Sessions."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, tenant: Tenant, id_: SessionId) -> Session | None:
        """The session of that id."""
        key = self._rows.session_keys.get((tenant, id_))
        return None if key is None else self._rows.sessions[key]

    def add(self, session: Session) -> int:
        """Stores a new session."""
        key = self._rows.next_key()
        self._rows.sessions[key] = replace(session, metadata=dict(session.metadata), key=key)
        self._rows.session_keys[session.tenant, session.id] = key
        return key

    def change(self, session: Session) -> None:
        """Stores what an update changes."""
        self._rows.sessions[session.key] = replace(session, metadata=dict(session.metadata))

    def occupy(self, key: int, run_id: RunId) -> None:
        """Makes a run the active one."""
        self._rows.sessions[key] = replace(self._rows.sessions[key], active_run_id=run_id)

    def grow(self, key: int, count: int, now: float) -> int:
        """Counts messages in."""
        session = self._rows.sessions[key]
        self._rows.sessions[key] = replace(session, message_count=session.message_count + count, updated_at=now)
        return session.message_count

    def page(self, tenant: Tenant, query: SessionQuery, before: Cursor | None, limit: int) -> list[Session]:
        """Newest first."""
        matching = [session for session in self._rows.sessions.values() if session.tenant == tenant and _matches(session, query)]
        ordered = sorted(matching, key=lambda session: (session.created_at, session.id), reverse=True)
        return [session for session in ordered if before is None or (session.created_at, session.id) < (before.created_at, before.id)][
            :limit
        ]

    def delete(self, key: int) -> None:
        """Removes the session and what hangs on it."""
        rows = self._rows
        session = rows.sessions.pop(key)
        del rows.session_keys[session.tenant, session.id]
        rows.messages.pop(key, None)
        for run_key in rows.runs_of.pop(key, []):
            run = rows.runs.pop(run_key)
            del rows.run_keys[run.tenant, run.id]
            rows.batches_of_run.pop(run_key, None)
            rows.held.pop(run_key, None)
            rows.live.pop(run_key, None)
        self._drop_batches(session)
        for request_key in [name for name, row in rows.requests.items() if row.session_key == key]:
            del rows.requests[request_key]
        self._fold_usage(key)

    def _drop_batches(self, session: Session) -> None:
        gone = {batch.number for batch in self._rows.batches_of_session.pop(session.key, [])}
        kept = [batch for batch in self._rows.batches_of_tenant[session.tenant] if batch.number not in gone]
        self._rows.batches_of_tenant[session.tenant] = kept

    def _fold_usage(self, session_key: int) -> None:
        for name in [name for name in self._rows.usage if name[1] == session_key]:
            tenant, _, _, provider, model = name
            nameless = (tenant, 0, 0, provider, model)
            self._rows.usage[nameless] = self._rows.usage.get(nameless, Usage()) + self._rows.usage.pop(name)


class MemoryMessages:
    """Messages, and those held for runs that wait."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add(self, session_key: int, first: int, run_key: int, now: float, messages: Sequence[Message]) -> None:
        """Stores messages."""
        run_id = self._rows.runs[run_key].id if run_key else RunId("")
        kept = self._rows.messages[session_key]
        kept.extend(StoredMessage(message.id, position, run_id, now, message.body) for position, message in enumerate(messages, first))

    def page(self, session_key: int, after: int, limit: int, newest_first: bool) -> list[StoredMessage]:
        """Messages beyond a position; the message at position n has index n - 1."""
        kept = self._rows.messages.get(session_key, [])
        if newest_first:
            end = after - 1 if after else len(kept)
            return kept[max(0, end - limit) : end][::-1]
        return kept[after : after + limit]

    def hold(self, run_key: int, messages: Sequence[Message]) -> None:
        """Keeps messages with a run."""
        self._rows.held[run_key] = list(messages)

    def release(self, run_key: int) -> list[Message]:
        """Takes held messages out."""
        return self._rows.held.pop(run_key, [])


def _matches(session: Session, query: SessionQuery) -> bool:
    if query.created_after is not None and session.created_at < query.created_after:
        return False
    if query.created_before is not None and session.created_at >= query.created_before:
        return False
    return query.metadata.items() <= session.metadata.items()
