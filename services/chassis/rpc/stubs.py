"""What generated stubs call: channels that add tenant, trace and deadline to a call, raise faults, and leave the rest to a carrier."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from chassis.faults import CallCancelled, DeadlineExceeded, Fault, ServiceUnavailable, ShuttingDown
from chassis.rpc.call import TENANT_KEY, TRACE_KEY, Call, current_call
from chassis.rpc.methods import Requests

FIRST_BACKOFF, MAX_BACKOFF, MAX_ATTEMPTS = 0.05, 2.0, 10

_NO_METADATA: dict[str, str] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Rpc:
    """A method as a stub sees it."""

    path: str
    request_streaming: bool
    serialize: Callable[[Message], bytes]
    parse: Callable[[bytes], Message]


class Incoming(abc.ABC):
    """The responses of one stream under way, as a carrier gives them."""

    @abc.abstractmethod
    async def receive(self) -> Message:
        """The next response; raises StopAsyncIteration at the end and Fault when the call failed."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """Gives the call up. May be called at any time, any number of times."""


class StreamCall:
    """The responses of a call: iterate, or `cancel()`. A read that is cancelled, and a call nobody holds any more, cancel the call."""

    __slots__ = ("_cancelled", "_done", "_incoming")

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._done = self._cancelled = False

    def __aiter__(self) -> StreamCall:
        return self

    async def __anext__(self) -> Message:
        if self._cancelled:
            raise CallCancelled("the call was cancelled here; call again to read on")
        try:
            return await self._incoming.receive()
        except (StopAsyncIteration, Fault):
            self._done = True
            if self._cancelled:
                raise CallCancelled("the call was cancelled here; call again to read on") from None
            raise
        except asyncio.CancelledError:
            self.cancel()
            raise

    def cancel(self) -> bool:
        """Gives the call up: its handler is cancelled, further reads raise CallCancelled. False when it had ended."""
        if self._done or self._cancelled:
            return False
        self._cancelled = True
        self._incoming.cancel()
        return True

    def cancelled(self) -> bool:
        """Whether it was given up here."""
        return self._cancelled

    async def aclose(self) -> None:
        """Gives the call up unless it has ended."""
        self.cancel()

    async def __aenter__(self) -> StreamCall:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel()

    def __del__(self) -> None:
        if not self._done and not self._cancelled:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                self._incoming.cancel()


class StubChannel(grpc.aio.Channel):
    """A channel for generated stubs. Carriers fill in `unary` and `stream`.

    `timeout` is that of unary calls which give none and run inside no deadline; `idempotent` are the paths that may be sent again when
    the service could not be reached.
    """

    def __init__(self, *, timeout: float | None = None, idempotent: frozenset[str] = frozenset()) -> None:
        self._timeout = timeout
        self._idempotent = idempotent

    @abc.abstractmethod
    async def unary(self, rpc: Rpc, call: Call, requests: Requests) -> Message:
        """The one response to the request or requests."""

    @abc.abstractmethod
    def stream(self, rpc: Rpc, call: Call, requests: Requests) -> Incoming:
        """The responses to the request or requests."""

    def unary_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Called by generated code."""
        return self._unary_method(Rpc(method, False, request_serializer, response_deserializer))

    def stream_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Called by generated code."""
        return self._unary_method(Rpc(method, True, request_serializer, response_deserializer))

    def unary_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Called by generated code."""
        return self._stream_method(Rpc(method, False, request_serializer, response_deserializer))

    def stream_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any) -> Any:
        """Called by generated code."""
        return self._stream_method(Rpc(method, True, request_serializer, response_deserializer))

    def _unary_method(self, rpc: Rpc) -> Callable[..., Awaitable[Message]]:
        send = self._resent if rpc.path in self._idempotent and not rpc.request_streaming else self.unary
        default = self._timeout

        def method(request: Any, *, timeout: float | None = None, metadata: Any = None, **_: Any) -> Awaitable[Message]:
            return send(rpc, outgoing_call(rpc.path, timeout, metadata, default), request)

        return method

    def _stream_method(self, rpc: Rpc) -> Callable[..., StreamCall]:
        def method(request: Any, *, timeout: float | None = None, metadata: Any = None, **_: Any) -> StreamCall:
            return StreamCall(self.stream(rpc, outgoing_call(rpc.path, timeout, metadata, None), request))

        return method

    async def _resent(self, rpc: Rpc, call: Call, request: Requests) -> Message:
        """The response, asking again with jittered backoff while the service cannot be reached and the deadline allows."""
        limit = FIRST_BACKOFF
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await self.unary(rpc, call, request)
            except (ServiceUnavailable, ShuttingDown) as fault:
                pause = fault.retry_after or random.uniform(limit / 2, limit)  # noqa: S311 — spreads retries, protects nothing
                if call.deadline is not None and time.monotonic() + pause >= call.deadline:
                    raise
            await asyncio.sleep(pause)
            limit = min(2 * limit, MAX_BACKOFF)
        return await self.unary(rpc, call, request)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Ready: carriers connect when they are called."""
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns at once: see get_state."""

    async def channel_ready(self) -> None:
        """Returns at once: see get_state."""

    async def close(self, grace: float | None = None) -> None:
        """Cancels the calls under way and lets go of what the channel holds."""

    async def __aenter__(self) -> StubChannel:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


def outgoing_call(path: str, timeout: float | None, metadata: Any, default: float | None) -> Call:
    """The call to make on behalf of the one under way: its tenant and trace, and the earlier of both deadlines."""
    current = current_call()
    deadline = current.deadline
    if timeout is None and deadline is None:
        timeout = default
    if timeout is not None:
        own = time.monotonic() + timeout
        deadline = own if deadline is None or own < deadline else deadline
    if not metadata:
        return Call(path, current.tenant, deadline, current.traceparent, _NO_METADATA)
    return _with_metadata(path, current, deadline, metadata)


def _with_metadata(path: str, current: Call, deadline: float | None, metadata: Iterable[tuple[str, str]]) -> Call:
    own = {key.lower(): value for key, value in metadata}
    tenant, trace = own.pop(TENANT_KEY, current.tenant), own.pop(TRACE_KEY, current.traceparent)
    return Call(path, tenant, deadline, trace, own)


def time_left(call: Call) -> float | None:
    """Seconds until the call's deadline, None without one; raises DeadlineExceeded when it has passed."""
    remaining = call.remaining()
    if remaining == 0.0:
        raise too_late(call)
    return remaining


def too_late(call: Call) -> DeadlineExceeded:
    """The fault of a call that was not answered in time."""
    return DeadlineExceeded(f"{call.method} was not answered before its deadline; allow more time", metadata={"method": call.method})
