"""Follows logs through the session-store, and goes on by itself when the store was away."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from behest.session.v1 import journal_service_pb2 as journal_pb2
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from chassis.faults import CallCancelled, ShuttingDown
from chassis.rpc import StubChannel
from chassis.world import Clock
from orchestrator.domain.values import Body
from orchestrator.operations.bearing import Interruption
from orchestrator.operations.ports import AWAY, Patience, Place, RunPage, RunQuery, Scope

FOLLOW_PAUSE = 0.25
"""Seconds at most between two tries to follow: followers wait for what drivers do, so they are back no later."""


class Cancellable(Protocol):
    """A stream under way."""

    def cancel(self) -> bool:
        """Ends it."""


class RpcFollows:
    """Reads for callers over the store's stubs: what they get is what the store gave, unread."""

    def __init__(self, channel: StubChannel, clock: Clock, patience: Patience) -> None:
        self._journal = JournalServiceStub(channel)
        self._clock = clock
        self._patience = patience
        self._streams: set[Cancellable] = set()
        self._closed = False

    def close(self) -> None:
        """Ends every stream with ShuttingDown, so that followers go on at another replica instead of being waited for."""
        self._closed = True
        for stream in list(self._streams):
            stream.cancel()

    async def follow(self, place: Place) -> AsyncGenerator[Sequence[Body], None]:
        """Events in order, without gap or duplicate, over any number of interruptions shorter than the neighbour patience."""
        request, interruption = _request(place), Interruption(self._clock, self._patience)
        while True:
            interruption.asking()
            try:
                async for response in self._read(request):
                    interruption.heard()
                    if response.events:
                        last = response.events[-1]
                        request.after = last.sequence if place.scope is Scope.RUN else last.position
                        yield response.events
                return
            except AWAY:
                pause = interruption.pause()
                if self._closed or pause is None:
                    raise
            await self._clock.sleep(min(pause, FOLLOW_PAUSE))

    async def _read(self, request: journal_pb2.FollowRequest) -> AsyncGenerator[journal_pb2.FollowResponse, None]:
        stream = self._journal.Follow(request)
        self._streams.add(stream)
        try:
            async for response in stream:
                yield response
        except CallCancelled:
            if not self._closed:
                raise
            raise ShuttingDown("the orchestrator is shutting down; watch again after the last event you have") from None
        finally:
            self._streams.discard(stream)
            stream.cancel()

    async def list_runs(self, query: RunQuery) -> RunPage:
        """A page of rows, newest first."""
        request = journal_pb2.ListRunsRequest(
            session_id=query.session_id,
            page_size=query.page_size,
            page_token=query.page_token,
            ever_awaited_approval=query.ever_awaited_approval,
        )
        request.states.extend(query.states)  # type: ignore[arg-type]  # the contract's numbers
        response = await self._journal.ListRuns(request)
        return RunPage(tuple(response.runs), response.next_page_token)


def _request(place: Place) -> journal_pb2.FollowRequest:
    request = journal_pb2.FollowRequest(after=place.after, replay_only=place.replay_only)
    match place.scope:
        case Scope.RUN:
            request.run_id = place.id
        case Scope.SESSION:
            request.session_id = place.id
        case Scope.TENANT:
            request.tenant = True
    return request
