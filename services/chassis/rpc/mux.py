"""The carrier mux, calling side: many calls on one stream, in batches. How a stream works is link.py's."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from behest.mux.v1.mux_service_pb2_grpc import MuxServiceStub
from chassis.faults import DeadlineExceeded, Internal, MessageTooLarge, ServiceUnavailable
from chassis.rpc.call import Call
from chassis.rpc.link import Link, MuxIncoming
from chassis.rpc.methods import Requests
from chassis.rpc.plain import DEFAULT_TIMEOUT, MAX_MESSAGE
from chassis.rpc.stubs import Incoming, Rpc, StubChannel

CONNECT_TIMEOUT = 10.0


class MuxChannel(StubChannel):
    """Carries all its calls on one stream, or a few. Takes the grpc channel over and closes it. Connects when it is called."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        target: str,
        *,
        streams: int = 1,
        timeout: float | None = DEFAULT_TIMEOUT,
        idempotent: frozenset[str] = frozenset(),
        max_message: int = MAX_MESSAGE,
    ) -> None:
        super().__init__(timeout=timeout, idempotent=idempotent)
        self._inner, self._target = channel, target
        self._exchange = MuxServiceStub(channel).Exchange
        self._streams, self._max_message = streams, max_message
        self._links: list[Link] = []
        self._connecting: asyncio.Task[Link | str] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def unary(self, rpc: Rpc, call: Call, requests: Requests) -> Message:
        """The one response."""
        if rpc.request_streaming:
            return await self._single(rpc, self.stream(rpc, call, requests))
        payload = self.encoded(rpc, requests)
        link = self.link()
        if link is None:
            link = await self.connect(call)
        if link.outbox.full:
            await link.outbox.room()
        return await link.ask(rpc, call, payload)

    async def _single(self, rpc: Rpc, incoming: Incoming) -> Message:
        try:
            return await incoming.receive()
        except StopAsyncIteration:
            raise Internal(f"{rpc.path} ended without a response; both sides must run compatible versions") from None
        finally:
            incoming.cancel()

    def stream(self, rpc: Rpc, call: Call, requests: Requests) -> Incoming:
        """The responses."""
        return MuxIncoming(self, rpc, call, requests)

    def encoded(self, rpc: Rpc, request: Any) -> bytes:
        """The request's bytes; raises MessageTooLarge before the stream would break of them."""
        payload = rpc.serialize(request)
        if len(payload) > self._max_message:
            raise too_large(rpc.path, len(payload), self._max_message)
        return payload

    def link(self) -> Link | None:
        """The least busy connection, None when there is none yet. Opens another when there are fewer than wanted."""
        if len(self._links) < self._streams and not self._closed:
            self._start_connecting()
        if len(self._links) <= 1:
            return self._links[0] if self._links else None
        return min(self._links, key=lambda link: link.open_calls)

    async def connect(self, call: Call) -> Link:
        """A new connection, shared by all who wait for one; raises ServiceUnavailable when it cannot be had."""
        if self._closed:
            raise ServiceUnavailable(f"the channel to {self._target} is closed; open another")
        connecting = self._start_connecting()
        try:
            async with asyncio.timeout(call.remaining()):
                link = await asyncio.shield(connecting)
        except TimeoutError:
            raise DeadlineExceeded(f"no connection to {self._target} before the deadline of {call.method}; allow more time") from None
        except asyncio.CancelledError:
            if connecting.cancelled():
                raise ServiceUnavailable(f"the channel to {self._target} was closed; open another") from None
            raise
        if isinstance(link, str):
            raise ServiceUnavailable(link, metadata={"target": self._target})
        return link

    def _start_connecting(self) -> asyncio.Task[Link | str]:
        if self._connecting is None or self._connecting.done():
            self._connecting = self.spawn(self._open_link())
        return self._connecting

    async def _open_link(self) -> Link | str:
        exchange: Any = self._exchange()  # type: ignore[call-arg] # no iterator: it is written to
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await exchange.wait_for_connection()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            exchange.cancel()
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else f"no connection within {CONNECT_TIMEOUT:g} s"
            return f"{self._target} cannot be reached: {why}; is it running there?"
        link = Link(exchange, self._target, self._retire)
        self._links.append(link)
        self.spawn(self._run(link))
        return link

    async def _run(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            self._retire(link)

    def _retire(self, link: Link) -> None:
        """Sends nothing new on it."""
        if link in self._links:
            self._links.remove(link)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs work until it ends or the channel is closed, outside of the call under way."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, grace: float | None = None) -> None:
        """Cancels the calls under way and closes the connections."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._inner.close(grace)


def too_large(path: str, size: int, limit: int) -> MessageTooLarge:
    """The fault for a message over the limit."""
    text = f"a message of {path} has {size} bytes, more than the {limit} allowed; send less at once"
    return MessageTooLarge(text, metadata={"size": str(size), "limit": str(limit)})
