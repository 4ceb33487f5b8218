"""SessionService: convert in, one call, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from behest.session.v1 import session_service_pb2 as pb
from behest.session.v1 import session_service_pb2_grpc as pb_grpc
from behest.session.v1.export_pb2 import ExportHeader
from chassis.faults import PageTokenInvalid
from chassis.rpc import current_call
from session_store.api import convert
from session_store.api.convert_export import Reader, Writer, export_counts, header_session
from session_store.api.convert_statistics import statistics_query, statistics_response
from session_store.domain.bounds import check_id
from session_store.domain.page import Cursor, cursor_token, page_size, page_token, read_cursor, read_page_token
from session_store.domain.session import RunId, SessionId, Tenant
from session_store.domain.transfer import Piece
from session_store.operations.counting import Counting
from session_store.operations.exporting import Exporting
from session_store.operations.importing import Importing
from session_store.operations.sessions import SessionOperations

SESSIONS_PAGE = 50
MESSAGES_PAGE = 100
CHUNK = 64 * 1024  # of an exported file


@dataclass(frozen=True, slots=True)
class Transfers:
    """What exports and imports are made with."""

    exporting: Exporting
    importing: Callable[[], Importing]
    writer: Callable[[], Writer]


class SessionServicer(pb_grpc.SessionServiceServicer):
    """Sessions and their messages."""

    def __init__(self, sessions: SessionOperations, counting: Counting, transfers: Transfers) -> None:
        self._sessions = sessions
        self._counting = counting
        self._transfers = transfers

    async def CreateSession(self, request: pb.CreateSessionRequest, context: object) -> pb.CreateSessionResponse:
        """Creates a session."""
        session = await self._sessions.create(convert.new_session(tenant(), request), convert.repeatable(request.request_id, request))
        return pb.CreateSessionResponse(session=convert.session(session))

    async def GetSession(self, request: pb.GetSessionRequest, context: object) -> pb.GetSessionResponse:
        """Gets a session."""
        return pb.GetSessionResponse(session=convert.session(await self._sessions.get(tenant(), SessionId(request.session_id))))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: object) -> pb.ListSessionsResponse:
        """Lists sessions."""
        size, query = page_size(request.page_size, SESSIONS_PAGE), convert.session_query(request)
        name = f"ListSessions {tenant()} {query.created_after} {query.created_before} {sorted(query.metadata.items())}"
        found = await self._sessions.page(tenant(), query, read_cursor(name, request.page_token), size + 1)
        token = cursor_token(name, Cursor(found[size - 1].created_at, found[size - 1].id)) if len(found) > size else ""
        return pb.ListSessionsResponse(sessions=map(convert.session, found[:size]), next_page_token=token)

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: object) -> pb.UpdateSessionResponse:
        """Changes a session."""
        session = await self._sessions.update(tenant(), SessionId(request.session.id), convert.session_change(request))
        return pb.UpdateSessionResponse(session=convert.session(session))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: object) -> pb.DeleteSessionResponse:
        """Deletes a session."""
        await self._sessions.delete(tenant(), SessionId(request.session_id))
        return pb.DeleteSessionResponse()

    async def AppendMessages(self, request: pb.AppendMessagesRequest, context: object) -> pb.AppendMessagesResponse:
        """Adds messages."""
        repeatable = convert.repeatable(request.request_id, request)
        bodies = convert.bodies(request.messages)
        stored = await self._sessions.append_messages(tenant(), SessionId(request.session_id), bodies, repeatable)
        return pb.AppendMessagesResponse(messages=map(convert.stored_message, stored))

    async def ListMessages(self, request: pb.ListMessagesRequest, context: object) -> pb.ListMessagesResponse:
        """Lists messages."""
        size = page_size(request.page_size, MESSAGES_PAGE)
        name = f"ListMessages {tenant()} {request.session_id} {request.newest_first}"
        after = _position(name, request.page_token)
        session_id = SessionId(request.session_id)
        found = await self._sessions.list_messages(tenant(), session_id, after, size + 1, request.newest_first)
        token = page_token(name, [found[size - 1].position]) if len(found) > size else ""
        return pb.ListMessagesResponse(messages=map(convert.stored_message, found[:size]), next_page_token=token)

    async def GetUsage(self, request: pb.GetUsageRequest, context: object) -> pb.GetUsageResponse:
        """Sums usage."""
        rows = await self._sessions.usage(tenant(), SessionId(request.session_id), RunId(request.run_id))
        return convert.usage_response(rows)

    async def GetStatistics(self, request: pb.GetStatisticsRequest, context: object) -> pb.GetStatisticsResponse:
        """Counts runs."""
        return statistics_response(await self._counting.count(statistics_query(tenant(), request)), request.by_day)

    async def ExportSession(self, request: pb.ExportSessionRequest, context: object) -> AsyncIterator[pb.ExportSessionResponse]:
        """Writes a session."""
        writer, pending = self._transfers.writer(), bytearray()
        async with aclosing(self._transfers.exporting.export(tenant(), SessionId(request.session_id))) as pieces:
            async for piece in pieces:
                pending += writer.write(piece)
                while len(pending) >= CHUNK:
                    yield pb.ExportSessionResponse(data=bytes(pending[:CHUNK]))
                    del pending[:CHUNK]
        yield pb.ExportSessionResponse(data=bytes(pending + writer.close()))

    async def ImportSession(self, request_iterator: AsyncIterator[pb.ImportSessionRequest], context: object) -> pb.ImportSessionResponse:
        """Reads a session."""
        importing = self._transfers.importing()
        try:
            await receive(request_iterator, tenant(), importing)
            session = await importing.finish()
        except BaseException:
            await asyncio.shield(importing.give_up())
            raise
        return pb.ImportSessionResponse(session=convert.session(session), counts=export_counts(importing.manifest.counts))


async def receive(requests: AsyncIterator[pb.ImportSessionRequest], owner: Tenant, importing: Importing) -> None:
    """Stores what comes, a little at a time, until the file has come whole. Raises ExportDamaged, ExportTooNew."""
    reader, new_id = Reader(), SessionId("")
    async for request in requests:
        if request.session_id:
            check_id("session_id", request.session_id)
            new_id = SessionId(request.session_id)
        for start in range(0, len(request.data), CHUNK):
            pieces: list[Piece] = []
            for read in reader.feed(request.data[start : start + CHUNK]):
                if isinstance(read, ExportHeader):
                    await importing.begin(header_session(owner, read), new_id)
                else:
                    pieces.append(read)
            if pieces:
                await importing.add(pieces)
    reader.close(importing.manifest)


def tenant() -> Tenant:
    """Who asks."""
    return Tenant(current_call().tenant)


def _position(name: str, token: str) -> int:
    if not token:
        return 0
    (position,) = read_page_token(name, token, int)
    if not 0 < int(position) < 1 << 62:
        raise PageTokenInvalid("page_token is not one that this service gave; start again without it")
    return int(position)
