"""Importing a session: stored piece by piece where nobody sees it, then shown as a whole, or swept up when it did not come to that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from chassis.faults import SessionExists
from chassis.world import World
from session_store.domain.run import Place, RunPatch
from session_store.domain.session import Message, RunId, Session, SessionId, StoredMessage, Tenant
from session_store.domain.tally import Tally
from session_store.domain.transfer import EventsPiece, Manifest, MessagesPiece, Piece, RunPiece, copied_id, damaged
from session_store.operations.erasure import sweep
from session_store.operations.opening import session_not_found
from session_store.operations.ports import Storage, Tables

PATIENCE_SECONDS = 3600.0  # between two writes of an import, before it is given up for lost
_NO_PATCH = RunPatch()


@dataclass(frozen=True, slots=True)
class _Import:
    """An import under way. `hidden` is the tenant that nobody is; `seed` makes the ids of a copy's runs, empty when they stay."""

    session: Session
    hidden: Tenant
    seed: str
    begun_at: float

    def id_of(self, run_id: RunId) -> RunId:
        """The id that a run gets here."""
        return copied_id(self.seed, self.begun_at, run_id) if self.seed else run_id


class Importing:
    """Takes one session in. Its methods are called in the order they stand in; `give_up` instead of finish."""

    def __init__(self, storage: Storage, world: World, publishes: bool) -> None:
        self._storage = storage
        self._world = world
        self._publishes = publishes
        self._manifest = Manifest()
        self._import: _Import | None = None

    @property
    def manifest(self) -> Manifest:
        """What has come so far."""
        return self._manifest

    async def begin(self, session: Session, new_id: SessionId) -> None:
        """Begins with the session as its file tells of it. Raises SessionExists."""
        now, hidden = self._world.clock.now(), Tenant(f"/{self._world.ids.new()}")
        named = replace(session, id=new_id or session.id, updated_at=now, message_count=0, active_run_id=RunId(""), key=0)
        self._import = coming = _Import(named, hidden, self._world.ids.new() if new_id else "", now)
        await self._storage.write(lambda tables: _begin(tables, coming, now))

    async def add(self, pieces: Sequence[Piece]) -> None:
        """Stores pieces. Raises ExportDamaged, SessionExists when one of its runs exists, SessionNotFound when it was given up."""
        for piece in pieces:
            self._manifest.take(piece)
        coming, now = self._coming, self._world.clock.now()
        await self._storage.write(lambda tables: _add(tables, coming, pieces, now))

    async def finish(self) -> Session:
        """Shows the session, and returns it. Raises SessionExists."""
        coming = self._coming
        session = await self._storage.write(lambda tables: _finish(tables, coming))
        self._import = None
        return session

    async def give_up(self) -> None:
        """Removes what was stored."""
        if self._import is not None:
            coming, self._import = self._import, None
            await self._storage.write(lambda tables: _give_up(tables, coming))
            await sweep(self._storage, self._world.clock.now(), self._publishes)

    @property
    def _coming(self) -> _Import:
        if self._import is None:
            raise damaged("it does not begin with its header")
        return self._import


def _begin(tables: Tables, coming: _Import, now: float) -> None:
    _refuse_taken(tables, coming)
    key = tables.sessions.add(replace(coming.session, tenant=coming.hidden))
    tables.sessions.hide(key, coming.session.tenant, now + PATIENCE_SECONDS)


def _add(tables: Tables, coming: _Import, pieces: Sequence[Piece], now: float) -> None:
    session = _hidden(tables, coming)
    keys = _known(tables, coming, pieces)
    tables.sessions.hide(session.key, coming.session.tenant, now + PATIENCE_SECONDS)
    for piece in pieces:
        match piece:
            case RunPiece():
                keys[piece.run.id] = _add_run(tables, coming, session.key, piece)
            case EventsPiece():
                tables.batches.add(coming.session.tenant, session.key, keys[piece.run_id], piece.first, piece.last, piece.data)
                tables.runs.advance(keys[piece.run_id], piece.last, _NO_PATCH, None, piece.tally)
            case MessagesPiece(messages):
                _add_messages(tables, session, messages, keys, now)


def _known(tables: Tables, coming: _Import, pieces: Sequence[Piece]) -> dict[RunId, int]:
    """The keys of runs that pieces tell of and that came before. Raises before anything is written."""
    new = [piece.run.id for piece in pieces if isinstance(piece, RunPiece)]
    for run_id in new:
        if tables.runs.standing(coming.hidden, coming.id_of(run_id)) is not None:
            raise damaged(f"run {run_id} comes twice")
        if tables.runs.standing(coming.session.tenant, coming.id_of(run_id)) is not None:
            raise _run_exists(run_id)
    keys = {}
    for run_id in set(_named(pieces)) - set(new):
        standing = tables.runs.standing(coming.hidden, coming.id_of(run_id))
        if standing is None:
            raise damaged(f"it tells of run {run_id}, which it does not hold")
        keys[run_id] = standing.key
    return keys


def _named(pieces: Sequence[Piece]) -> Iterator[RunId]:
    for piece in pieces:
        if isinstance(piece, EventsPiece):
            yield piece.run_id
        if isinstance(piece, MessagesPiece):
            yield from (message.run_id for message in piece.messages if message.run_id)


def _add_run(tables: Tables, coming: _Import, session_key: int, piece: RunPiece) -> int:
    names = {"tenant": coming.hidden, "id": coming.id_of(piece.run.id), "session_id": coming.session.id}
    history = replace(piece.run, **names, place=Place.IMPORTED, sequence=0, session_key=session_key)  # type: ignore[arg-type]  # three names
    key = tables.runs.add(history)
    tables.usage.add(coming.session.tenant, session_key, key, piece.usage)
    return key


def _add_messages(tables: Tables, session: Session, messages: Sequence[StoredMessage], keys: dict[RunId, int], now: float) -> None:
    tables.sessions.grow(session.key, len(messages), now)
    for (run_id, created_at), group in groupby(messages, key=lambda message: (message.run_id, message.created_at)):
        together = list(group)
        run_key = keys[run_id] if run_id else 0
        tables.messages.add(
            session.key, together[0].position, run_key, created_at, [Message(message.id, message.body) for message in together]
        )
        if run_key:
            tables.runs.count(run_key, Tally(messages=len(together)))


def _finish(tables: Tables, coming: _Import) -> Session:
    session = _hidden(tables, coming)
    _refuse_taken(tables, coming)
    taken = tables.runs.taken(session.key, coming.session.tenant)
    if taken is not None:
        raise _run_exists(taken)
    tables.sessions.show(session.key)
    return replace(session, tenant=coming.session.tenant)


def _give_up(tables: Tables, coming: _Import) -> None:
    session = tables.sessions.find(coming.hidden, coming.session.id)
    if session is not None:
        tables.sessions.hide(session.key, coming.session.tenant, 0.0)


def _hidden(tables: Tables, coming: _Import) -> Session:
    session = tables.sessions.find(coming.hidden, coming.session.id)
    if session is None:
        raise session_not_found(coming.session.id)
    return session


def _refuse_taken(tables: Tables, coming: _Import) -> None:
    session_id = coming.session.id
    if tables.sessions.find(coming.session.tenant, session_id) is not None:
        raise SessionExists(
            f"session {session_id!r} exists; import it under a new id, or delete the one there is", metadata={"session_id": session_id}
        )


def _run_exists(run_id: RunId) -> SessionExists:
    return SessionExists(f"run {run_id!r} of the session exists; import it under a new session id", metadata={"run_id": run_id})
