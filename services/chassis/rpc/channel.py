"""Opening a channel to a neighbour by configuration."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Literal

import grpc.aio

from chassis.rpc.addresses import read_target
from chassis.rpc.frames import FRAME_ROOM
from chassis.rpc.links import Dial
from chassis.rpc.mux import Affinity, MuxChannel, no_affinity
from chassis.rpc.plain import MAX_MESSAGE, PlainChannel, channel_options
from chassis.rpc.stubs import StubChannel

Carrier = Literal["grpc", "mux"]


@contextlib.asynccontextmanager
async def open_channel(
    target: str,
    carrier: Carrier,
    idempotent: frozenset[str] = frozenset(),
    *,
    streams: int = 1,
    max_message: int = MAX_MESSAGE,
    affinity: Affinity = no_affinity,
) -> AsyncIterator[StubChannel]:
    """A channel to target: 127.0.0.1:50054, dns:///session-store:50054 for every address of a name, or ipv4:10.0.0.1:1,10.0.0.2:1.

    Connects on the first call and again after each loss; calls are spread over the replicas that can be reached.
    `idempotent` are the full paths of unary methods that may be sent again when the service could not be reached.
    With carrier mux, `affinity` gives the key of a request (empty: none), and calls of one key go to one replica while it lives; at
    least one stream is kept to each address, and `streams` in all: more than one serves a single address that balances connections.
    """
    channel: StubChannel
    if carrier == "grpc":
        channel = PlainChannel(grpc.aio.insecure_channel(target, options=channel_options(max_message)), idempotent=idempotent)
    else:
        dial = _dialling(target, max_message + FRAME_ROOM)
        channel = MuxChannel(target, dial, streams=streams, idempotent=idempotent, max_message=max_message, affinity=affinity)
    async with channel:
        yield channel


def _dialling(target: str, max_message: int) -> Dial:
    """Opens a connection of its own for each stream, under the name that the target has."""
    read = read_target(target)
    name = (("grpc.default_authority", f"{read.host}:{read.port}"),) if read.host else ()
    options = (*channel_options(max_message), *name, ("grpc.use_local_subchannel_pool", 1))
    return lambda address: grpc.aio.insecure_channel(address, options=options)
