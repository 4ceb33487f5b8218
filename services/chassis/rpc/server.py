"""The carrier grpc, serving side: the methods of an app as handlers of a real server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from chassis.faults import Fault, RequestInvalid, Violation
from chassis.rpc.call import DEFAULT_TENANT, TENANT_KEY, TRACE_KEY, Call
from chassis.rpc.methods import Method, Methods, Requests
from chassis.rpc.status import grpc_code, status_of, trailing_metadata

INTERNAL = "/behest.session.v1.JournalService/"
"""Spoken by orchestrators alone, which may be a version ahead while an upgrade rolls out: what is unknown here is theirs to miss."""

_TRANSPORT_KEYS = frozenset({"user-agent", "te", "content-type"})


def add_methods(methods: Methods, server: grpc.aio.Server) -> None:
    """Registers every method with the server."""
    by_service: dict[str, dict[str, Any]] = {}
    for path, method in methods.all().items():
        _, service, name = path.split("/")
        by_service.setdefault(service, {})[name] = _handler(method)
    for service, handlers in by_service.items():
        server.add_registered_method_handlers(service, handlers)  # type: ignore[attr-defined] # missing in the stubs
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _handler(method: Method) -> Any:
    arity = ("stream" if method.request_streaming else "unary") + ("_stream" if method.response_streaming else "_unary")
    make = getattr(grpc, f"{arity}_rpc_method_handler")
    behaviour = _streaming(method) if method.response_streaming else _single(method)
    # Requests come as bytes: what cannot be read must be refused as every other fault is, which the library would not do.
    return make(behaviour, response_serializer=method.serialize)


def _requests(method: Method, given: Any) -> Requests:
    if method.request_streaming:
        return _each_read(method, given)
    request = method.read(given)
    if not method.path.startswith(INTERNAL):
        refuse_unknown_fields(request)
    return request


async def _each_read(method: Method, given: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for data in given:
        yield method.read(data)


def refuse_unknown_fields(request: Message) -> None:
    """Raises RequestInvalid for a request with fields that this version does not know: they would be dropped without a word."""
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    if known.ByteSize() == request.ByteSize():
        return
    fields = UnknownFieldSet(request)
    numbers = ", ".join(str(fields[i].field_number) for i in range(len(fields))) or "inside a nested message"
    text = f"the request has fields that this version does not know ({numbers}); leave them out, or upgrade this service first"
    raise RequestInvalid(text, violations=(Violation(numbers, "is unknown here"),))


def _single(method: Method) -> Any:
    handle = method.unary
    assert handle is not None

    async def answer(requests: Any, context: Any) -> Any:
        try:
            return await handle(_call_of(method.path, context), _requests(method, requests))
        except Fault as fault:
            await abort(context, fault)

    return answer


def _streaming(method: Method) -> Any:
    handle = method.stream
    assert handle is not None

    async def answer(requests: Any, context: Any) -> None:
        try:
            await handle(_call_of(method.path, context), _requests(method, requests), context.write)
        except Fault as fault:
            await abort(context, fault)

    return answer


async def abort(context: Any, fault: Fault) -> None:
    """Ends a call with a fault."""
    status = status_of(fault)
    await context.abort(grpc_code(status.code), status.message, trailing_metadata(status))


def _call_of(path: str, context: Any) -> Call:
    remaining = context.time_remaining()
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    deadline = None if remaining is None else time.monotonic() + remaining
    tenant, trace = metadata.pop(TENANT_KEY, DEFAULT_TENANT), metadata.pop(TRACE_KEY, "")
    for key in _TRANSPORT_KEYS:
        metadata.pop(key, None)
    return Call(path, tenant, deadline, trace, metadata, context.peer())
