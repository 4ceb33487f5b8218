"""The carrier grpc, serving side: the methods of an app as handlers of a real server."""

from __future__ import annotations

import time
from typing import Any

import grpc.aio

from chassis.faults import Fault
from chassis.rpc.call import DEFAULT_TENANT, TENANT_KEY, TRACE_KEY, Call
from chassis.rpc.methods import Method, Methods
from chassis.rpc.status import grpc_code, status_of, trailing_metadata

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
    return make(behaviour, request_deserializer=method.parse, response_serializer=method.serialize)


def _single(method: Method) -> Any:
    handle = method.unary
    assert handle is not None

    async def answer(requests: Any, context: Any) -> Any:
        try:
            return await handle(_call_of(method.path, context), requests)
        except Fault as fault:
            await _abort(context, fault)

    return answer


def _streaming(method: Method) -> Any:
    handle = method.stream
    assert handle is not None

    async def answer(requests: Any, context: Any) -> None:
        try:
            await handle(_call_of(method.path, context), requests, context.write)
        except Fault as fault:
            await _abort(context, fault)

    return answer


async def _abort(context: Any, fault: Fault) -> None:
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
