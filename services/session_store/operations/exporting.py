"""Exporting a session, page by page.

A session is exported when nothing of it is under way. What it holds then never changes, so the pages read one after another are one
snapshot: messages up to the count and batches up to the number that there were at the beginning.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

from session_store.domain.batch import Batch
from session_store.domain.session import Session, SessionId, StoredMessage, Tenant
from session_store.domain.transfer import RunPiece
from session_store.operations.appending import run_not_found
from session_store.operations.erasure import refuse_busy
from session_store.operations.opening import session_not_found
from session_store.operations.ports import Storage, Tables
from session_store.operations.sessions import found

PAGE = 256
PAGE_BYTES = 256 * 1024
MESSAGES = 32  # may be large each


@dataclass(frozen=True, slots=True)
class Extent:
    """A session as it is, and the last batch of the log."""

    session: Session
    last_number: int


Exported = Session | RunPiece | Batch | list[StoredMessage]


class Exporting:
    """Reads sessions out."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def export(self, tenant: Tenant, session_id: SessionId) -> AsyncGenerator[Exported, None]:
        """The session, then its batches by number with each run before its first one, then its messages.

        Raises SessionNotFound, also when it is deleted meanwhile, and SessionBusy.
        """
        extent = await self._storage.read(lambda tables: _extent(tables, tenant, session_id), tenant)
        yield extent.session
        async for piece in self._logs(extent):
            yield piece
        async for messages in self._messages(extent.session):
            yield messages

    async def _logs(self, extent: Extent) -> AsyncGenerator[RunPiece | Batch, None]:
        number = 0
        while number < extent.last_number:
            page = await self._storage.read(partial(_page, extent=extent, after=number), extent.session.tenant)
            if not page:
                return
            for piece in page:
                yield piece
                number = piece.number if isinstance(piece, Batch) else number

    async def _messages(self, session: Session) -> AsyncGenerator[list[StoredMessage], None]:
        for after in range(0, session.message_count, MESSAGES):
            limit = min(MESSAGES, session.message_count - after)
            yield await self._storage.read(partial(_messages, session=session, after=after, limit=limit), session.tenant)


def _extent(tables: Tables, tenant: Tenant, session_id: SessionId) -> Extent:
    session = found(tables, tenant, session_id)
    refuse_busy(tables, session)
    return Extent(session, tables.batches.last_number())


def _page(tables: Tables, extent: Extent, after: int) -> list[RunPiece | Batch]:
    session = extent.session
    _refuse_gone(tables, session)
    page: list[RunPiece | Batch] = []
    for batch in tables.batches.of_session(session.key, after + 1, PAGE, PAGE_BYTES):
        if batch.number > extent.last_number:
            break
        if batch.first == 1:
            page.append(_run(tables, session, batch))
        page.append(batch)
    return page


def _run(tables: Tables, session: Session, batch: Batch) -> RunPiece:
    run = tables.runs.find(session.tenant, batch.run_id)
    if run is None:
        raise run_not_found(batch.run_id)
    return RunPiece(run, tuple(tables.usage.sums(session.tenant, session.key, run.key)))


def _messages(tables: Tables, session: Session, after: int, limit: int) -> list[StoredMessage]:
    _refuse_gone(tables, session)
    return tables.messages.page(session.key, after, limit, newest_first=False)


def _refuse_gone(tables: Tables, session: Session) -> None:
    present = tables.sessions.find(session.tenant, session.id)
    if present is None or present.key != session.key:
        raise session_not_found(session.id)
