"""Calls on a suite as bytes: what a follower was sent is kept as it came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio
from google.protobuf.message import Message

OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
)
DEFECTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNIMPLEMENTED)
"""Codes that no fault excuses."""
_BROKEN_OFF = "Internal error from Core"
"""What grpc's client says of a stream that is gone when it wants to write to it."""
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""Codes after which nobody knows what became of the call."""


def is_defect(error: grpc.aio.AioRpcError) -> bool:
    """Whether an answer is one that no fault excuses."""
    return error.code() in DEFECTS and error.details() != _BROKEN_OFF


def dial(address: str) -> grpc.aio.Channel:
    """A channel that sends nothing twice by itself."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def submessages(data: bytes, number: int) -> Iterator[bytes]:
    """The values of a repeated message field, as they are on the wire. Only fields of variable length may be in the data."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        assert tag & 7 == 2, "a field that is not of variable length"
        length, place = _varint(data, place)
        if tag >> 3 == number:
            yield data[place : place + length]
        place += length


async def responses(channel: grpc.aio.Channel, path: str, request: Message, timeout: float) -> AsyncIterator[bytes]:
    """The responses of a streaming call as bytes; leaving the loop cancels it."""
    call: Any = channel.unary_stream(path, request_serializer=type(request).SerializeToString)(request, timeout=timeout)
    try:
        async for data in call:
            yield data
    finally:
        call.cancel()


async def response(channel: grpc.aio.Channel, path: str, request: Message, timeout: float) -> bytes:
    """The response of a call as bytes."""
    call: Any = channel.unary_unary(path, request_serializer=type(request).SerializeToString)
    answer: bytes = await call(request, timeout=timeout)
    return answer


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
