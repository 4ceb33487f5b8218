"""The carrier inside one process: a call is a call. Messages go over by reference; nobody changes one after sending or receiving it."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.message import Message

from chassis.faults import CallCancelled, ServiceUnavailable
from chassis.rpc.call import Call
from chassis.rpc.feed import Feed
from chassis.rpc.methods import Method, Methods, Requests
from chassis.rpc.pipe import Pipe
from chassis.rpc.stubs import Incoming, Rpc, StubChannel


class LocalChannel(StubChannel):
    """Calls a service of this process. A unary handler runs in the caller's task, one with a stream in a task of its own."""

    def __init__(self, methods: Methods) -> None:
        super().__init__()
        self._methods = methods
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def unary(self, rpc: Rpc, call: Call, requests: Requests) -> Message:
        """The one response, from the handler itself."""
        method = self.find(rpc)
        if rpc.request_streaming:
            return await self._one(self.stream(rpc, call, requests))
        assert method.unary is not None
        return await method.unary(call, requests)

    async def _one(self, incoming: Incoming) -> Message:
        try:
            return await incoming.receive()
        finally:
            incoming.cancel()

    def stream(self, rpc: Rpc, call: Call, requests: Requests) -> Incoming:
        """The responses, through a bounded buffer."""
        return _Conversation(self, rpc, call, requests, self._tasks)

    def find(self, rpc: Rpc) -> Method:
        """The method to call."""
        if self._closed:
            raise ServiceUnavailable(f"the channel to {self._methods.service} is closed; open another")
        return self._methods.find(rpc.path)

    async def close(self, grace: float | None = None) -> None:
        """Cancels the streams under way and waits for their handlers."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Conversation(Incoming):
    """A handler in its own task, its requests and responses in bounded buffers. The task does not hold this object."""

    def __init__(self, channel: LocalChannel, rpc: Rpc, call: Call, requests: Requests, tasks: set[asyncio.Task[None]]) -> None:
        self._responses: Pipe[Message] = Pipe()
        self._task = asyncio.get_running_loop().create_task(_answer(channel, rpc, call, requests, self._responses))
        tasks.add(self._task)
        self._task.add_done_callback(tasks.discard)

    def receive(self) -> Any:
        return self._responses.__anext__()

    def cancel(self) -> None:
        self._task.cancel()


async def _answer(channel: LocalChannel, rpc: Rpc, call: Call, requests: Any, responses: Pipe[Message]) -> None:
    feed = None
    if rpc.request_streaming:
        given, requests = requests, Pipe[Message]()
        feed = Feed(given, requests.send, requests.finish, _cancel_this())
    try:
        await _handle(channel.find(rpc), call, requests, responses)
        responses.end()
    except Exception as error:  # noqa: BLE001 — the reader raises it
        responses.end(error)
    finally:
        responses.end(feed.error if feed and feed.error else CallCancelled(f"{rpc.path} was cancelled"))
        if feed is not None:
            feed.stop()


def _cancel_this() -> Any:
    task = asyncio.current_task()
    assert task is not None
    return task.cancel


async def _handle(method: Method, call: Call, requests: Any, responses: Pipe[Message]) -> None:
    if method.stream is not None:
        await method.stream(call, requests, responses.send)
    elif method.unary is not None:
        responses.put(await method.unary(call, requests))
