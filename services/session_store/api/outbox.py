"""OutboxService: one call, convert out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from behest.session.v1 import outbox_service_pb2 as pb
from behest.session.v1 import outbox_service_pb2_grpc as pb_grpc
from session_store.api.convert import timestamp
from session_store.domain.outbox import Shard, published_up_to
from session_store.operations.relay import Backlog


class OutboxServicer(pb_grpc.OutboxServiceServicer):
    """How publishing stands."""

    def __init__(self, backlog: Callable[[], Awaitable[Backlog]], publishes: bool) -> None:
        self._backlog = backlog
        self._publishes = publishes

    async def GetOutbox(self, request: pb.GetOutboxRequest, context: object) -> pb.GetOutboxResponse:
        """Gets the outbox."""
        backlog = await self._backlog()
        return pb.GetOutboxResponse(
            publishes=self._publishes,
            problem=backlog.problem,
            last_number=backlog.last_number,
            published_number=published_up_to(backlog.shards),
            shards=map(_shard, backlog.shards),
        )


def _shard(shard: Shard) -> pb.OutboxShard:
    return pb.OutboxShard(index=shard.index, number=shard.number, owner=shard.owner, leased_until=timestamp(shard.expires_at))
