"""JournalService: convert in, one call, convert out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from behest.session.v1 import journal_service_pb2 as pb
from behest.session.v1 import journal_service_pb2_grpc as pb_grpc
from session_store.api import convert_log as convert
from session_store.api.sessions import tenant as caller
from session_store.domain.page import Cursor, cursor_token, page_size, read_cursor
from session_store.domain.run import RunQuery
from session_store.domain.session import RunId, SessionId, Tenant
from session_store.operations.broadcast import RunScope
from session_store.operations.fleet import Fleet
from session_store.operations.follow import Delivery
from session_store.operations.journal import JournalOperations
from session_store.operations.leasing import SignOfLife

RUNS_PAGE = 50


class JournalServicer(pb_grpc.JournalServiceServicer):
    """The logs of runs."""

    def __init__(self, journal: JournalOperations, fleet: Fleet, now: Callable[[], float]) -> None:
        self._journal = journal
        self._fleet = fleet
        self._now = now
        self._responses = Responses()

    async def OpenRun(self, request: pb.OpenRunRequest, context: object) -> pb.OpenRunResponse:
        """Opens a run."""
        opened = await self._journal.open_run(convert.order(caller(), request, self._now()))
        return pb.OpenRunResponse(run=convert.run(opened.run), epoch=opened.epoch, existed=opened.existed)

    async def Append(self, request: pb.AppendRequest, context: object) -> pb.AppendResponse:
        """Appends to a run."""
        appended = await self._journal.append(convert.append(caller(), request))
        return pb.AppendResponse(sequence=appended.sequence)

    async def RecordCommand(self, request: pb.RecordCommandRequest, context: object) -> pb.RecordCommandResponse:
        """Records a command."""
        recorded = await self._journal.record_command(convert.command(caller(), request, self._now()))
        return pb.RecordCommandResponse(sequence=recorded.sequence, run=convert.run(recorded.run))

    async def Follow(self, request: pb.FollowRequest, context: object) -> AsyncIterator[pb.FollowResponse]:
        """Replays and follows."""
        scope = convert.scope(caller(), request)
        by_sequence = isinstance(scope, RunScope)
        async with aclosing(self._journal.follow(scope, request.after, request.replay_only)) as deliveries:
            async for delivery in deliveries:
                yield self._responses.of(scope.tenant, delivery, by_sequence)

    async def GetRun(self, request: pb.GetRunRequest, context: object) -> pb.GetRunResponse:
        """Gets a run."""
        return pb.GetRunResponse(run=convert.run(await self._journal.get_run(caller(), RunId(request.run_id))))

    async def ListRuns(self, request: pb.ListRunsRequest, context: object) -> pb.ListRunsResponse:
        """Lists runs."""
        size, states = page_size(request.page_size, RUNS_PAGE), frozenset(map(convert.run_state, request.states))
        query = RunQuery(states=states, rested=request.ever_awaited_approval)
        name = f"ListRuns {caller()} {request.session_id} {sorted(states)}{' rested' if query.rested else ''}"
        cursor = read_cursor(name, request.page_token)
        found = await self._journal.list_runs(caller(), SessionId(request.session_id), query, cursor, size + 1)
        token = cursor_token(name, Cursor(found[size - 1].created_at, found[size - 1].id)) if len(found) > size else ""
        return pb.ListRunsResponse(runs=map(convert.run, found[:size]), next_page_token=token)

    async def Drive(self, request_iterator: AsyncIterator[pb.DriveRequest], context: object) -> AsyncIterator[pb.DriveResponse]:
        """Keeps a driver."""
        async with aclosing(self._fleet.drive(_signs(request_iterator))) as notices:
            async for notice in notices:
                yield convert.drive_response(notice)


async def _signs(requests: AsyncIterator[pb.DriveRequest]) -> AsyncIterator[SignOfLife]:
    async for request in requests:
        yield convert.sign_of_life(request)


class Responses:
    """Responses made once for all followers that are at the same place. Keeps a few small ones."""

    SIZE = 64
    MAX_BYTES = 16 * 1024

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[tuple[int, ...], int, bool], pb.FollowResponse] = OrderedDict()

    def of(self, tenant: Tenant, delivery: Delivery, by_sequence: bool) -> pb.FollowResponse:
        """The response of a delivery; not to be changed."""
        if sum(len(batch.data) for batch in delivery.batches) > self.MAX_BYTES:
            return convert.follow_response(tenant, delivery, by_sequence)
        key = (tuple(batch.number for batch in delivery.batches), delivery.after, by_sequence)
        response = self._kept.get(key)
        if response is None:
            response = self._kept[key] = convert.follow_response(tenant, delivery, by_sequence)
            if len(self._kept) > self.SIZE:
                self._kept.popitem(last=False)
        return response
