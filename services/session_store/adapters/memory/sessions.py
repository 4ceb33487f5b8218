"""Sessions and messages in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from session_store.adapters.memory.counts import MemoryCounts
from session_store.adapters.memory.rows import Rows
from session_store.domain.page import Cursor
from session_store.domain.session import Message, RunId, Session, SessionId, SessionQuery, StoredMessage, Tenant


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

    def forks(self, tenant: Tenant, id_: SessionId, since: float, limit: int) -> list[int]:
        """Forks of a session."""
        forks = [each for each in self._rows.sessions.values() if (each.tenant, each.forked_from) == (tenant, id_)]
        newest = sorted((each for each in forks if each.created_at >= since), key=lambda each: each.created_at, reverse=True)
        return [each.key for each in newest[:limit]]

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

    def oldest(self, tenant: Tenant, created_before: float, after: Cursor | None, limit: int) -> list[Session]:
        """Oldest first."""
        matching = [each for each in self._rows.sessions.values() if each.tenant == tenant and each.created_at < created_before]
        ordered = sorted(matching, key=lambda each: (each.created_at, each.id))
        return [each for each in ordered if after is None or (each.created_at, each.id) > (after.created_at, after.id)][:limit]

    def next_tenant(self, after: str) -> Tenant | None:
        """The next in the order of their names."""
        names = (each.tenant for key, each in self._rows.sessions.items() if key not in self._rows.hidden)
        return min((name for name in names if name > after), default=None)

    def delete(self, key: int) -> None:
        """Removes the session and what hangs on it, all at once: there is nobody to keep waiting."""
        MemoryCounts(self._rows).depart(key)
        self._remove(key)

    def hide(self, key: int, tenant: Tenant, until: float) -> None:
        """Marks it to be swept."""
        self._rows.hidden[key] = (tenant, until)

    def show(self, key: int) -> None:
        """Gives it to its tenant."""
        rows = self._rows
        tenant, _ = rows.hidden.pop(key)
        session = rows.sessions[key]
        del rows.session_keys[session.tenant, session.id]
        rows.sessions[key] = replace(session, tenant=tenant)
        rows.session_keys[tenant, session.id] = key
        for run_key in rows.runs_of.get(key, []):
            run = rows.runs[run_key]
            del rows.run_keys[run.tenant, run.id]
            rows.put_run(replace(run, tenant=tenant))
            rows.run_keys[tenant, run.id] = run_key

    def sweep(self, now: float, limit: int, published: int | None) -> int:
        """Removes what was hidden for too long."""
        due = [key for key, (_, until) in self._rows.hidden.items() if until <= now]
        for key in due:
            del self._rows.hidden[key]
            self._remove(key)
        return len(due)

    def _remove(self, key: int) -> None:
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
        for name in [name for name in rows.usage if name[1] == key]:
            del rows.usage[name]

    def _drop_batches(self, session: Session) -> None:
        gone = {batch.number for batch in self._rows.batches_of_session.pop(session.key, [])}
        kept = [batch for batch in self._rows.batches_of_tenant[session.tenant] if batch.number not in gone]
        self._rows.batches_of_tenant[session.tenant] = kept


class MemoryMessages:
    """Messages, and those held for runs that wait."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add(self, session_key: int, first: int, run_key: int, now: float, messages: Sequence[Message]) -> None:
        """Stores messages."""
        run_id = self._rows.runs[run_key].id if run_key else RunId("")
        kept = self._rows.messages[session_key]
        kept.extend(StoredMessage(message.id, position, run_id, now, message.body) for position, message in enumerate(messages, first))

    def copy(self, session_key: int, last: int, to_session_key: int) -> None:
        """Copies messages."""
        self._rows.messages[to_session_key] = [replace(each, run_id=RunId("")) for each in self._rows.messages[session_key][:last]]

    def count_before(self, session_key: int, run_key: int) -> int:
        """How many there were before the newest run."""
        run_id = self._rows.runs[run_key].id
        return max((each.position for each in self._rows.messages[session_key] if each.run_id != run_id), default=0)

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
