"""The methods a service offers, collected from generated code and wrapped once by the pipeline, whatever carries the calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import grpc.aio
from google.protobuf.message import DecodeError, Message

from chassis.faults import MethodNotFound, RequestInvalid, Violation
from chassis.rpc.call import Call

Requests = Message | AsyncIterator[Message]
UnaryHandler = Callable[[Call, Requests], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
StreamHandler = Callable[[Call, Requests, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: how its bytes are read and written, and what to call.

    Exactly one of unary and stream is set. A stream handler sends its responses and returns; it runs in a task of its own, which bounds it.
    """

    path: str
    request_streaming: bool
    parse: Callable[[bytes], Message]
    serialize: Callable[[Message], bytes]
    unary: UnaryHandler | None
    stream: StreamHandler | None

    def read(self, data: bytes) -> Message:
        """The request that some bytes are. Raises RequestInvalid for bytes that are none."""
        try:
            return self.parse(data)
        except DecodeError as error:
            text = f"the request of {self.path} cannot be read: {error}; send the message that the contract names, its strings as UTF-8"
            raise RequestInvalid(text, violations=(Violation("", str(error)),)) from None

    @property
    def response_streaming(self) -> bool:
        """Whether it answers with a stream."""
        return self.stream is not None


class Methods:
    """The methods of one service process, by path. Hand `server()` to the generated `add_…_to_server`."""

    def __init__(self, service: str, pipeline: Pipeline) -> None:
        self.service = service
        self.names: list[str] = []
        self._pipeline = pipeline
        self._methods: dict[str, Method] = {}

    def server(self) -> grpc.aio.Server:
        """What generated code takes for a server."""
        return cast(grpc.aio.Server, self)

    def find(self, path: str) -> Method:
        """The method at path; raises MethodNotFound."""
        method = self._methods.get(path)
        if method is None:
            raise MethodNotFound(f"{self.service} has no method {path}; call one that reflection lists", metadata={"method": path})
        return method

    def all(self) -> Mapping[str, Method]:
        """Every method by path."""
        return self._methods

    def add_generic_rpc_handlers(self, handlers: tuple[object, ...]) -> None:
        """Called by generated code; the registered handlers say the same."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Called by generated code with the handlers of one proto service."""
        self.names.append(service)
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._methods[path] = self._method(path, handler)

    def _method(self, path: str, handler: Any) -> Method:
        behaviour = handler.stream_stream or handler.unary_stream or handler.stream_unary or handler.unary_unary
        streams = bool(handler.response_streaming)
        return Method(
            path=path,
            request_streaming=bool(handler.request_streaming),
            parse=handler.request_deserializer,
            serialize=handler.response_serializer,
            unary=None if streams else self._pipeline.unary(self.service, path, behaviour),
            stream=self._pipeline.stream(self.service, path, behaviour) if streams else None,
        )


class Pipeline:
    """What happens around every handler: see pipeline.py. This base adds nothing."""

    def unary(self, service: str, path: str, behaviour: Callable[[Any, Any], Awaitable[Message]]) -> UnaryHandler:
        """Wraps a handler that answers once."""
        return lambda _call, request: behaviour(request, None)

    def stream(self, service: str, path: str, behaviour: Callable[[Any, Any], AsyncIterator[Message]]) -> StreamHandler:
        """Wraps a handler that answers with a stream."""

        async def handle(call: Call, requests: Requests, send: Send) -> None:
            async for response in behaviour(requests, None):
                await send(response)

        return handle
