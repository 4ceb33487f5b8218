"""Sessions and their messages: what each call of SessionService does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chassis.faults import SessionChanged, SessionExists
from chassis.world import World
from session_store.domain.page import Cursor
from session_store.domain.run import REQUEST_SECONDS
from session_store.domain.session import Message, MessageId, RunId, Session, SessionChange, SessionId, SessionQuery, StoredMessage, Tenant
from session_store.domain.usage import ModelUsage
from session_store.operations.appending import run_not_found
from session_store.operations.broadcast import Broadcaster, SessionScope
from session_store.operations.erasure import delete, sweep
from session_store.operations.opening import find_again, join_session, session_busy, session_not_found
from session_store.operations.ports import Request, Storage, Tables
from session_store.operations.telling import of_deleted

CREATE_SESSION = "create_session"
APPEND_MESSAGES = "append_messages"


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A caller's request id (empty: not idempotent) and the digest of its payload."""

    request_id: str = ""
    digest: str = ""


class SessionOperations:
    """Creates, finds, changes and deletes sessions and their messages."""

    def __init__(self, storage: Storage, broadcaster: Broadcaster, world: World, publishes: bool = False) -> None:
        self._storage = storage
        self._broadcaster = broadcaster
        self._world = world
        self._publishes = publishes

    async def create(self, session: Session, request: Repeatable) -> Session:
        """Creates a session; an empty id gets a UUIDv7. Raises SessionExists, RequestIdReused."""
        now = self._world.clock.now()
        fresh = replace(session, id=session.id or SessionId(self._world.ids.new()), created_at=now, updated_at=now)
        return await self._storage.write(lambda tables: _create(tables, fresh, request))

    async def get(self, tenant: Tenant, session_id: SessionId) -> Session:
        """The session. Raises SessionNotFound."""
        return await self._storage.read(lambda tables: found(tables, tenant, session_id), tenant)

    async def page(self, tenant: Tenant, query: SessionQuery, before: Cursor | None, limit: int) -> list[Session]:
        """At most limit sessions, newest first."""
        return await self._storage.read(lambda tables: tables.sessions.page(tenant, query, before, limit), tenant)

    async def update(self, tenant: Tenant, session_id: SessionId, change: SessionChange) -> Session:
        """Changes title or labels and returns the session. Raises SessionNotFound, SessionChanged."""
        now = self._world.clock.now()
        return await self._storage.write(lambda tables: _update(tables, tenant, session_id, change, now))

    async def delete(self, tenant: Tenant, session_id: SessionId) -> None:
        """Deletes a session and all that hangs on it. Raises SessionNotFound, SessionBusy."""
        scope = SessionScope(tenant, session_id)
        await self._storage.write(
            lambda tables: _delete(tables, tenant, session_id),
            lambda _: self._broadcaster.lag(scope),
            lambda _: of_deleted(tenant, session_id),
        )
        await sweep(self._storage, self._world.clock.now(), self._publishes)

    async def append_messages(
        self, tenant: Tenant, session_id: SessionId, bodies: Sequence[bytes], request: Repeatable
    ) -> list[StoredMessage]:
        """Adds messages at the end. Raises SessionNotFound, SessionBusy, RequestIdReused."""
        messages = tuple(Message(MessageId(self._world.ids.new()), body) for body in bodies)
        now = self._world.clock.now()
        return await self._storage.write(_append(tenant, session_id, messages, request, now))

    async def list_messages(self, tenant: Tenant, session_id: SessionId, after: int, limit: int, newest_first: bool) -> list[StoredMessage]:
        """At most limit messages beyond a position in the asked direction, 0 for its start. Raises SessionNotFound."""

        def work(tables: Tables) -> list[StoredMessage]:
            return tables.messages.page(found(tables, tenant, session_id).key, after, limit, newest_first)

        return await self._storage.read(work, tenant)

    async def usage(self, tenant: Tenant, session_id: SessionId, run_id: RunId) -> list[ModelUsage]:
        """Sums by model of a run, a session or, with both empty, the tenant. Raises SessionNotFound, RunNotFound."""
        return await self._storage.read(lambda tables: _usage(tables, tenant, session_id, run_id), tenant)


def found(tables: Tables, tenant: Tenant, session_id: SessionId) -> Session:
    """The session. Raises SessionNotFound."""
    session = tables.sessions.find(tenant, session_id)
    if session is None:
        raise session_not_found(session_id)
    return session


def _idle(tables: Tables, tenant: Tenant, session_id: SessionId) -> Session:
    session = found(tables, tenant, session_id)
    if session.active_run_id:
        raise session_busy(session)
    return session


def _create(tables: Tables, session: Session, request: Repeatable) -> Session:
    before = find_again(tables, session.tenant, CREATE_SESSION, request.request_id, request.digest)
    if before is not None:
        return found(tables, session.tenant, SessionId(before))
    if tables.sessions.find(session.tenant, session.id) is not None:
        raise SessionExists(f"session {session.id!r} exists; get it, or choose another id", metadata={"session_id": session.id})
    key = tables.sessions.add(session)
    _remember(tables, session.tenant, CREATE_SESSION, request, session.id, key, session.created_at)
    return replace(session, key=key)


def _remember(tables: Tables, tenant: Tenant, method: str, request: Repeatable, outcome: str, session_key: int, now: float) -> None:
    if request.request_id:
        tables.requests.add(tenant, method, request.request_id, Request(request.digest, outcome), session_key, now + REQUEST_SECONDS)


def _update(tables: Tables, tenant: Tenant, session_id: SessionId, change: SessionChange, now: float) -> Session:
    session = found(tables, tenant, session_id)
    if change.version not in (0, session.version):
        raise SessionChanged(
            f"session {session_id!r} is at version {session.version}, not {change.version}; get it and try again",
            metadata={"session_id": session_id, "version": str(session.version)},
        )
    title = session.title if change.title is None else change.title
    metadata = session.metadata if change.metadata is None else change.metadata
    changed = replace(session, title=title, metadata=metadata, version=session.version + 1, updated_at=now)
    tables.sessions.change(changed)
    return changed


def _delete(tables: Tables, tenant: Tenant, session_id: SessionId) -> None:
    delete(tables, found(tables, tenant, session_id))


def _append(
    tenant: Tenant, session_id: SessionId, messages: tuple[Message, ...], request: Repeatable, now: float
) -> Callable[[Tables], list[StoredMessage]]:
    def work(tables: Tables) -> list[StoredMessage]:
        before = find_again(tables, tenant, APPEND_MESSAGES, request.request_id, request.digest)
        if before is not None:
            first = int(before)
            return tables.messages.page(found(tables, tenant, session_id).key, first - 1, len(messages), newest_first=False)
        session = _idle(tables, tenant, session_id)
        join_session(tables, session.key, 0, messages, now)
        first = session.message_count + 1
        _remember(tables, tenant, APPEND_MESSAGES, request, str(first), session.key, now)
        return [StoredMessage(message.id, position, RunId(""), now, message.body) for position, message in enumerate(messages, first)]

    return work


def _usage(tables: Tables, tenant: Tenant, session_id: SessionId, run_id: RunId) -> list[ModelUsage]:
    session = found(tables, tenant, session_id) if session_id else None
    run = tables.runs.standing(tenant, run_id) if run_id else None
    if run_id and (run is None or (session is not None and run.session_key != session.key)):
        raise run_not_found(run_id)
    if run is not None:
        return tables.usage.sums(tenant, run.session_key, run.key)
    return tables.usage.sums(tenant, session.key if session else None, None)
