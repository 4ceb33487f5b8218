"""One mux stream as the calling side holds it, and the calls on it."""

from __future__ import annotations

import abc
import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf.message import DecodeError, Message

from behest.mux.v1.mux_service_pb2 import ExchangeRequest, Frame
from chassis.faults import CallCancelled, Fault, Internal, ServiceUnavailable
from chassis.rpc.call import DEFAULT_TENANT, TENANT_KEY, TRACE_KEY, Call
from chassis.rpc.deadlines import deadlines
from chassis.rpc.feed import Feed
from chassis.rpc.frames import Credit, Grants, Outbox, outcome
from chassis.rpc.methods import Requests
from chassis.rpc.pipe import WINDOW, Pipe
from chassis.rpc.plain import EOF
from chassis.rpc.stubs import Incoming, Rpc, time_left, too_late

if TYPE_CHECKING:
    from chassis.rpc.mux import MuxChannel

MAX_CALLS = 8192


class OpenCall(abc.ABC):
    """A call that waits for frames."""

    @abc.abstractmethod
    def deliver(self, frame: Frame) -> None:
        """Takes a frame of its own."""

    @abc.abstractmethod
    def broken(self, fault: Fault) -> None:
        """Takes note that no more frames will come."""


class Link:
    """A connected stream. Its reader never waits for a call and its writer sends whatever is there."""

    def __init__(self, exchange: Any, target: str, on_draining: Callable[[Link], None]) -> None:
        self.outbox = Outbox(ExchangeRequest)
        self._exchange = exchange
        self._target = target
        self._on_draining = on_draining
        self._calls: dict[int, OpenCall] = {}
        self._last = 0
        self._draining = self._over = False
        self._deadlines = deadlines()

    @property
    def open_calls(self) -> int:
        """How many calls are under way on it."""
        return len(self._calls)

    def add(self, call: OpenCall) -> int:
        """A number for a new call."""
        if self._over:
            raise ServiceUnavailable(f"the connection to {self._target} was lost; try again", metadata={"target": self._target})
        if len(self._calls) >= MAX_CALLS:
            raise ServiceUnavailable(f"{MAX_CALLS} calls to {self._target} are under way; wait for some to end", retry_after=0.1)
        self._last += 1
        self._calls[self._last] = call
        return self._last

    def drop(self, number: int) -> None:
        """Gives a call up and tells the other side, unless it has ended."""
        if self._calls.pop(number, None) is not None and not self._over:
            self.outbox.add(number, cancel=True)
            self._maybe_finish()

    async def ask(self, rpc: Rpc, call: Call, payload: bytes) -> Message:
        """Makes a call with one request and one response."""
        fields = opening(call)
        reply = _Reply(asyncio.get_running_loop().create_future(), call)
        number = self.add(reply)
        tick = None
        try:
            if call.deadline is not None:
                tick = self._deadlines.add(call.deadline, reply.expire)
            self.outbox.add(number, len(payload), has_payload=True, payload=payload, end=True, **fields)
            frame = await reply.future
        finally:
            if tick is not None:
                self._deadlines.remove(tick, reply.expire)
            self.drop(number)
        fault = outcome(frame, rpc.path)
        if fault is not None:
            raise fault
        return decoded(rpc, reply.payload)

    async def run(self) -> None:
        """Reads and writes until the stream ends, then fails the calls that are left."""
        fault: Fault = ServiceUnavailable(f"the connection to {self._target} was closed; try again", metadata={"target": self._target})
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                await self._read()
                self.outbox.close()
        except* grpc.aio.AioRpcError as errors:
            why = _first(errors).details()
            fault = ServiceUnavailable(f"the connection to {self._target} was lost: {why}; try again", metadata={"target": self._target})
        except* asyncio.InvalidStateError:
            pass  # written to after it ended; the reader knows why
        except* asyncio.CancelledError:
            fault = CallCancelled(f"the channel to {self._target} was closed")
        finally:
            self._finish(fault)

    def _finish(self, fault: Fault) -> None:
        self._over = True
        self._exchange.cancel()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.broken(fault)
        self.outbox.close()

    async def _write(self) -> None:
        while (batch := await self.outbox.next()) is not None:
            await self._exchange.write(batch)
        await self._exchange.done_writing()

    async def _read(self) -> None:
        while (batch := await self._exchange.read()) is not EOF:
            for frame in batch.frames:
                call = self._calls.get(frame.call)
                if call is not None:
                    if frame.end:
                        del self._calls[frame.call]
                    call.deliver(frame)
            if batch.draining or self._draining:
                self._drain()

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._on_draining(self)
        self._maybe_finish()

    def _maybe_finish(self) -> None:
        if self._draining and not self._calls:
            self.outbox.close()


def _first(group: BaseExceptionGroup[Any]) -> Any:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Reply(OpenCall):
    """Waits for one response and its end."""

    __slots__ = ("_call", "future", "payload")

    def __init__(self, future: asyncio.Future[Frame], call: Call) -> None:
        self.future = future
        self.payload = b""
        self._call = call

    def deliver(self, frame: Frame) -> None:
        if frame.has_payload:
            self.payload = frame.payload
        if frame.end and not self.future.done():
            self.future.set_result(frame)

    def broken(self, fault: Fault) -> None:
        if not self.future.done():
            self.future.set_exception(fault)

    def expire(self) -> None:
        """The deadline has passed."""
        self.broken(too_late(self._call))


class MuxIncoming(Incoming):
    """The caller's end of a call with streams. What the link holds is _Streaming, so that a forgotten call is noticed."""

    def __init__(self, channel: MuxChannel, rpc: Rpc, call: Call, requests: Requests) -> None:
        self._rpc = rpc
        self._streaming = _Streaming(channel, rpc, call)
        self._streaming.start(requests)

    async def receive(self) -> Message:
        """The next response."""
        data = await self._streaming.responses.__anext__()
        try:
            return decoded(self._rpc, data)
        except Fault:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Gives the call up."""
        self._streaming.give_up(CallCancelled(f"{self._rpc.path} was cancelled"))


class _Streaming(OpenCall):
    """A call with a stream of requests, of responses, or both."""

    def __init__(self, channel: MuxChannel, rpc: Rpc, call: Call) -> None:
        self.responses: Pipe[bytes] = Pipe(on_taken=self._taken)
        self._channel, self._rpc, self._call = channel, rpc, call
        self._credit = Credit(0)  # nothing may be sent before the call is open
        self._requests_ended = not rpc.request_streaming
        self._link: Link | None = None
        self._number = 0
        self._feed: Feed | None = None
        self._tick: int | None = None
        self._deadlines = deadlines()
        self._grants: Grants | None = None

    def start(self, requests: Any) -> None:
        """Opens the call, at once when there is a connection."""
        if self._call.deadline is not None:
            self._tick = self._deadlines.add(self._call.deadline, self._expire)
        try:
            request = None if self._rpc.request_streaming else self._channel.encoded(self._rpc, requests)
            key = "" if self._rpc.request_streaming else self._channel.affinity(requests)
            link = self._channel.links.pick(key)
            if link is not None:
                self._open(link, request)
            else:
                self._channel.links.spawn(self._open_later(request, key))
        except Fault as fault:
            self.broken(fault)
        if self._rpc.request_streaming:
            self._feed = Feed(requests, self._send, self._end, self._feed_failed)

    async def _open_later(self, request: bytes | None, key: str) -> None:
        try:
            self._open(await self._channel.links.connect(self._call, key), request)
        except Fault as fault:
            self.broken(fault)
        except asyncio.CancelledError:
            self.broken(CallCancelled("the channel was closed"))
            raise

    def _open(self, link: Link, request: bytes | None) -> None:
        if self.responses.ended:
            return
        fields = opening(self._call)
        self._number, self._link = link.add(self), link
        self._grants = Grants(link.outbox, self._number)
        if request is not None:
            fields.update(has_payload=True, payload=request)
        link.outbox.add(self._number, len(request or b""), end=self._requests_ended, **fields)
        self._credit.grant(WINDOW)

    async def _send(self, request: Message) -> None:
        payload = self._channel.encoded(self._rpc, request)
        await self._credit.take()
        assert self._link is not None
        self._link.outbox.add(self._number, len(payload), has_payload=True, payload=payload)

    async def _end(self) -> None:
        self._requests_ended = True
        if self._link is not None:
            self._link.outbox.add(self._number, end=True)

    def _feed_failed(self) -> None:
        if self._feed is not None and self._feed.error is not None:
            self.give_up(self._feed.error)

    def _taken(self) -> None:
        if self._grants is not None and not self.responses.ended:
            self._grants.taken()

    def deliver(self, frame: Frame) -> None:
        """Takes a frame of its own."""
        if frame.credit:
            self._credit.grant(frame.credit)
        if frame.has_payload:
            if len(self.responses) >= WINDOW:
                return self.give_up(Internal(f"{self._rpc.path} sent more than it was allowed; both sides must run compatible versions"))
            self.responses.put(frame.payload)
        if frame.end:
            self._close(outcome(frame, self._rpc.path))
        return None

    def broken(self, fault: Fault) -> None:
        """Takes note that no more frames will come."""
        self._close(fault)

    def give_up(self, error: Exception) -> None:
        """Ends the call from this side; its reader gets the error at once."""
        self._close(error, drop=True)
        if self._link is not None:
            self._link.drop(self._number)

    def _expire(self) -> None:
        self.give_up(too_late(self._call))

    def _close(self, error: Exception | None, *, drop: bool = False) -> None:
        self.responses.end(error, drop=drop)
        if self._tick is not None:
            self._deadlines.remove(self._tick, self._expire)
        if self._feed is not None:
            self._feed.stop()


def opening(call: Call) -> dict[str, Any]:
    """The fields of a call's first frame."""
    fields: dict[str, Any] = {"method": call.method}
    remaining = time_left(call)
    if remaining is not None:
        fields["timeout_ms"] = math.ceil(remaining * 1000)
    metadata = dict(call.metadata) if call.metadata else {}
    if call.tenant != DEFAULT_TENANT:
        metadata[TENANT_KEY] = call.tenant
    if call.traceparent:
        metadata[TRACE_KEY] = call.traceparent
    if metadata:
        fields["metadata"] = metadata
    return fields


def decoded(rpc: Rpc, payload: bytes) -> Message:
    """The response."""
    try:
        return rpc.parse(payload)
    except DecodeError:
        raise Internal(f"{rpc.path} answered with bytes that are not its message; both sides must run compatible versions") from None
