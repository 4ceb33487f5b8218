"""The carrier mux, serving side: the calls of one stream, each in a task of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from behest.mux.v1.mux_service_pb2 import ExchangeRequest, ExchangeResponse, Frame
from behest.mux.v1.mux_service_pb2_grpc import MuxServiceServicer, add_MuxServiceServicer_to_server
from chassis.faults import Fault, RequestInvalid, ServiceUnavailable, ShuttingDown
from chassis.rpc.call import DEFAULT_TENANT, TENANT_KEY, TRACE_KEY, Call
from chassis.rpc.frames import Credit, Grants, Outbox, add_failure
from chassis.rpc.methods import Method, Methods
from chassis.rpc.mux import too_large
from chassis.rpc.pipe import WINDOW, Pipe
from chassis.rpc.pipeline import only_fault
from chassis.rpc.plain import MAX_MESSAGE

MAX_CALLS = 8192


class MuxServicer(MuxServiceServicer):
    """Serves the methods of one process over streams of frames."""

    def __init__(self, methods: Methods, *, max_message: int = MAX_MESSAGE, max_calls: int = MAX_CALLS) -> None:
        self.methods, self.max_message, self.max_calls = methods, max_message, max_calls
        self._sessions: set[_Session] = set()
        self._draining = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers with a server."""
        add_MuxServiceServicer_to_server(self, server)

    async def Exchange(self, request_iterator: AsyncIterator[ExchangeRequest], context: Any) -> None:  # type: ignore[override] # it writes
        """Serves one stream until its caller ends it."""
        session = _Session(self, context.peer())
        self._sessions.add(session)
        if self._draining:
            session.drain()
        try:
            await session.serve(request_iterator, context)
        finally:
            self._sessions.discard(session)

    def drain(self) -> None:
        """Tells the callers to open their next calls elsewhere and to end their streams."""
        self._draining = True
        for session in self._sessions:
            session.drain()


class _Session:
    """One stream and the calls on it. The reader never waits for a call, only for a writer that fell far behind."""

    def __init__(self, servicer: MuxServicer, peer: str) -> None:
        self.outbox = Outbox(ExchangeResponse)
        self.peer = peer
        self.servicer = servicer
        self._calls: dict[int, _Serving] = {}
        self._group: asyncio.TaskGroup

    async def serve(self, batches: AsyncIterator[ExchangeRequest], context: Any) -> None:
        try:
            async with asyncio.TaskGroup() as self._group:
                writer = self._group.create_task(self._write(context))
                async for batch in batches:
                    for frame in batch.frames:
                        self._receive(frame)
                    if self.outbox.full:
                        await self.outbox.room()
                await self._finish(writer)
        except* (grpc.aio.BaseError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the caller went away in mid-write; its calls were cancelled with the group

    async def _finish(self, writer: asyncio.Task[None]) -> None:
        """The caller sends no more: what still runs was given up."""
        for serving in tuple(self._calls.values()):
            serving.give_up()
        self.outbox.close()
        await writer

    async def _write(self, context: Any) -> None:
        while (batch := await self.outbox.next()) is not None:
            await context.write(batch)

    def drain(self) -> None:
        self.outbox.announce_draining()

    def _receive(self, frame: Frame) -> None:
        serving = self._calls.get(frame.call)
        if serving is not None:
            serving.receive(frame)
        elif frame.method:
            self._open(frame)

    def _open(self, frame: Frame) -> None:
        try:
            if len(self._calls) >= self.servicer.max_calls:
                raise _too_many(self.servicer.max_calls)
            method = self.servicer.methods.find(frame.method)
        except Fault as fault:
            add_failure(self.outbox, frame.call, fault)
            return
        serving = _Serving(self, method, frame)
        self._calls[frame.call] = serving
        serving.task = self._group.create_task(serving.run())

    def closed(self, number: int) -> None:
        """The call is over."""
        self._calls.pop(number, None)


def _too_many(limit: int) -> ServiceUnavailable:
    return ServiceUnavailable(f"{limit} calls are under way on this stream; wait for some to end", retry_after=0.1)


class _Serving:
    """One call being served."""

    __slots__ = ("_call", "_credit", "_given_up", "_method", "_number", "_request", "_requests", "_session", "task")

    def __init__(self, session: _Session, method: Method, frame: Frame) -> None:
        self.task: asyncio.Task[None]
        self._session, self._method, self._number = session, method, frame.call
        self._call = _call_of(frame, session.peer)
        self._credit = Credit() if method.response_streaming else None
        self._request: bytes | None = None
        self._requests: Pipe[bytes] | None = None
        self._given_up = False
        if frame.has_payload and not method.request_streaming:
            self._request = frame.payload
        else:
            self._requests = Pipe(on_taken=Grants(session.outbox, frame.call).taken)
            self._take(self._requests, frame)

    def receive(self, frame: Frame) -> None:
        """Takes a later frame of the call."""
        if frame.cancel:
            self.give_up()
        if frame.credit and self._credit is not None:
            self._credit.grant(frame.credit)
        if self._requests is not None:
            self._take(self._requests, frame)

    def _take(self, requests: Pipe[bytes], frame: Frame) -> None:
        if frame.has_payload:
            if len(requests) >= WINDOW:
                return self._refuse(RequestInvalid(f"{self._method.path} was sent more than it allowed; wait for credit"))
            requests.put(frame.payload)
        if frame.end:
            requests.end()
        return None

    def _refuse(self, fault: Fault) -> None:
        add_failure(self._session.outbox, self._number, fault)
        self.give_up()

    def give_up(self) -> None:
        """Nobody waits for the outcome any more. The task may be cancelled before its first step, so it is not relied upon."""
        self._given_up = True
        self._session.closed(self._number)
        self.task.cancel()

    async def run(self) -> None:
        """Handles the call and sends what comes of it."""
        outbox, number = self._session.outbox, self._number
        try:
            await self._handle(outbox, number)
        except asyncio.CancelledError:
            if not self._given_up:
                add_failure(outbox, number, ShuttingDown(f"{self._method.path} was stopped; try again"))
            raise
        except Exception as error:  # noqa: BLE001 — one call's failure is not the stream's
            if not self._given_up:
                add_failure(outbox, number, only_fault(error, self._session.servicer.methods.service, self._method.path))
        finally:
            self._session.closed(number)

    async def _handle(self, outbox: Outbox, number: int) -> None:
        if self._method.unary is not None:
            payload = self._encoded(await self._method.unary(self._call, await self._given()))
            outbox.add(number, len(payload), has_payload=True, payload=payload, end=True)
        elif self._method.stream is not None:
            await self._method.stream(self._call, await self._given(), self._send)
            outbox.add(number, end=True)

    async def _given(self) -> Any:
        """The request, or the iterator of requests."""
        if self._request is not None:
            return self._method.read(self._request)
        assert self._requests is not None
        requests = _Requests(self._method, self._requests)
        return requests if self._method.request_streaming else await requests.single()

    async def _send(self, response: Message) -> None:
        payload = self._encoded(response)
        assert self._credit is not None
        await self._credit.take()
        self._session.outbox.add(self._number, len(payload), has_payload=True, payload=payload)

    def _encoded(self, response: Message) -> bytes:
        payload = self._method.serialize(response)
        if len(payload) > self._session.servicer.max_message:
            raise too_large(self._method.path, len(payload), self._session.servicer.max_message)
        return payload


class _Requests:
    """The requests of a call, parsed as they are read."""

    def __init__(self, method: Method, payloads: Pipe[bytes]) -> None:
        self._method, self._payloads = method, payloads

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Message:
        return self._method.read(await self._payloads.__anext__())

    async def single(self) -> Message:
        """The only request."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise RequestInvalid(f"{self._method.path} was called without a request; send one") from None


def _call_of(frame: Frame, peer: str) -> Call:
    metadata = dict(frame.metadata)
    deadline = time.monotonic() + frame.timeout_ms / 1000 if frame.timeout_ms > 0 else None
    tenant, trace = metadata.pop(TENANT_KEY, DEFAULT_TENANT), metadata.pop(TRACE_KEY, "")
    return Call(frame.method, tenant, deadline, trace, metadata, peer)
