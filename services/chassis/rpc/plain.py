"""The carrier grpc, calling side: one call, one HTTP/2 stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from chassis.faults import CallCancelled, ServiceUnavailable
from chassis.rpc.call import TENANT_KEY, TRACE_KEY, Call
from chassis.rpc.feed import Feed
from chassis.rpc.methods import Requests
from chassis.rpc.status import fault_of_rpc
from chassis.rpc.stubs import Incoming, Rpc, StubChannel, time_left

DEFAULT_TIMEOUT = 30.0
MAX_MESSAGE = 64 * 2**20

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined] # missing in the stubs


def pings(every: int, patience: int) -> Sequence[tuple[str, Any]]:
    """Options for pinging a silent peer, with and without calls: how often, and how long it may take to answer, in milliseconds.

    Transports ping and answer by themselves, however busy the process is: a stopped process or a cut network is noticed, and a slow
    process is left alone.
    """
    return (
        ("grpc.keepalive_time_ms", every),
        ("grpc.keepalive_timeout_ms", patience),
        ("grpc.http2.ping_timeout_ms", patience),  # the one that counts since gRPC 1.60: without it a peer has a minute to answer
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )


def channel_options(max_message: int = MAX_MESSAGE) -> Sequence[tuple[str, Any]]:
    """Options of every channel: spread over all addresses, notice a frozen or parted peer within 2.5 s, reconnect within one.

    The minimal backoff is what grpc calls the time that an attempt to connect may take.
    """
    return (
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", max_message),
        *pings(1_000, 1_500),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    )


class PlainChannel(StubChannel):
    """Calls a service over plain gRPC. Takes the grpc channel over and closes it."""

    def __init__(
        self, channel: grpc.aio.Channel, *, timeout: float | None = DEFAULT_TIMEOUT, idempotent: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(timeout=timeout, idempotent=idempotent)
        self._channel = channel
        self._methods: dict[tuple[str, bool], Any] = {}

    async def unary(self, rpc: Rpc, call: Call, requests: Requests) -> Message:
        """The one response."""
        time_left(call)
        if rpc.request_streaming:
            incoming = _PlainIncoming(self._start(rpc, call, None, "stream_unary"), rpc, requests)
            return await incoming.single()
        under_way = self._start(rpc, call, requests, "unary_unary")
        try:
            return await under_way  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            raise fault_of_rpc(error, rpc.path) from None
        except asyncio.CancelledError:
            if _cancelled_by_itself(under_way):
                raise _cancelled(rpc.path) from None
            raise

    def stream(self, rpc: Rpc, call: Call, requests: Requests) -> Incoming:
        """The responses."""
        if rpc.request_streaming:
            return _PlainIncoming(self._start(rpc, call, None, "stream_stream"), rpc, requests)
        return _PlainIncoming(self._start(rpc, call, requests, "unary_stream"), rpc)

    def _start(self, rpc: Rpc, call: Call, request: Any, arity: str) -> Any:
        method = self._methods.get((rpc.path, rpc.request_streaming))
        if method is None:
            method = getattr(self._channel, arity)(rpc.path, rpc.serialize, rpc.parse)
            self._methods[rpc.path, rpc.request_streaming] = method
        try:
            return method(request, timeout=call.remaining(), metadata=metadata_of(call))
        except (grpc.aio.UsageError, grpc.aio.InternalError) as error:
            raise ServiceUnavailable(f"{rpc.path} cannot be called: {error}; open another channel") from None

    async def close(self, grace: float | None = None) -> None:
        """Cancels the calls under way and closes the connections."""
        await self._channel.close(grace)


def metadata_of(call: Call) -> tuple[tuple[str, str], ...]:
    """The metadata that tells the other side of the call's tenant and trace."""
    own = ((TENANT_KEY, call.tenant), (TRACE_KEY, call.traceparent)) if call.traceparent else ((TENANT_KEY, call.tenant),)
    return (*own, *call.metadata.items()) if call.metadata else own


class _PlainIncoming(Incoming):
    """One grpc call; its requests, when they are a stream, are read by a feed."""

    def __init__(self, call: Any, rpc: Rpc, requests: Any = None) -> None:
        self._call = call
        self._path = rpc.path
        self._feed = None if requests is None else Feed(requests, _writing(call, rpc), _ending(call), call.cancel)

    async def receive(self) -> Message:
        message = await self._outcome(self._call.read())
        if message is EOF:
            self._stop_feed()
            raise StopAsyncIteration
        return message  # type: ignore[no-any-return]

    async def single(self) -> Message:
        """The one response."""
        try:
            return await self._outcome(self._call)  # type: ignore[no-any-return]
        finally:
            self._stop_feed()

    async def _outcome(self, awaitable: Any) -> Any:
        try:
            return await awaitable
        except grpc.aio.AioRpcError as error:
            self._stop_feed()
            raise fault_of_rpc(error, self._path) from None
        except asyncio.CancelledError:
            if self._feed is not None and self._feed.error is not None:
                raise self._feed.error from None
            if _cancelled_by_itself(self._call):
                raise _cancelled(self._path) from None
            raise

    def cancel(self) -> None:
        self._stop_feed()
        self._call.cancel()

    def _stop_feed(self) -> None:
        if self._feed is not None:
            self._feed.stop()


def _writing(call: Any, rpc: Rpc) -> Callable[[Message], Awaitable[None]]:
    # When the other side has ended the call, grpc.aio's own write makes INTERNAL of whatever its status was, and drops the responses that
    # were not read yet. What it calls does not.
    inner: Any = getattr(call, "_cython_call", None)

    async def write(request: Message) -> None:
        await call.wait_for_connection()
        await inner.send_serialized_message(rpc.serialize(request))

    if hasattr(inner, "send_serialized_message"):
        return lambda request: _unless_over(write(request))
    return lambda request: _unless_over(call.write(request))


def _ending(call: Any) -> Callable[[], Awaitable[None]]:
    return lambda: _unless_over(call.done_writing())


async def _unless_over(writing: Awaitable[None]) -> None:
    try:
        await writing
    except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
        # The call is over, and how is for the reader of its responses. Nobody wants more requests.
        raise asyncio.CancelledError from None


def _cancelled_by_itself(call: Any) -> bool:
    """Whether the call was given up, by its channel or its reader, and not because the waiting task was."""
    task = asyncio.current_task()
    return bool(call.cancelled()) and task is not None and task.cancelling() == 0


def _cancelled(path: str) -> CallCancelled:
    return CallCancelled(f"{path} was cancelled here; call again")
