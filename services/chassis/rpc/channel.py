"""Opening a channel to a neighbour by configuration."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Literal

import grpc.aio

from chassis.rpc.frames import FRAME_ROOM
from chassis.rpc.mux import MuxChannel
from chassis.rpc.plain import MAX_MESSAGE, PlainChannel, channel_options
from chassis.rpc.stubs import StubChannel

Carrier = Literal["grpc", "mux"]


@contextlib.asynccontextmanager
async def open_channel(
    target: str, carrier: Carrier, idempotent: frozenset[str] = frozenset(), *, streams: int = 1, max_message: int = MAX_MESSAGE
) -> AsyncIterator[StubChannel]:
    """A channel to target, such as 127.0.0.1:50054 or dns:///session-store:50054. Connects on the first call and again after each loss.

    `idempotent` are the full paths of unary methods that may be sent again when the service could not be reached. With carrier mux,
    `streams` are kept open, spread over the target's addresses; set it to the number of replicas.
    """
    inner = grpc.aio.insecure_channel(target, options=channel_options(max_message + FRAME_ROOM if carrier == "mux" else max_message))
    channel: StubChannel
    if carrier == "grpc":
        channel = PlainChannel(inner, idempotent=idempotent)
    else:
        channel = MuxChannel(inner, target, streams=streams, idempotent=idempotent, max_message=max_message)
    async with channel:
        yield channel
