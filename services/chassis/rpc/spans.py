"""A span around every handler, when traces are made. Nothing here is imported or paid for otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from chassis import telemetry
from chassis.faults import Fault
from chassis.rpc.call import TRACE_KEY, Call
from chassis.rpc.methods import Requests, Send

Handle = Callable[[Call, Requests, Send | None], Awaitable[Any]]


def spanned(path: str, handle: Handle) -> Handle:
    """The handler inside a span that continues the caller's trace; the handler itself when no spans are made."""
    tracer = telemetry.tracer()
    if tracer is None:
        return handle
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    _, service, name = path.split("/")
    about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}

    async def in_span(call: Call, requests: Requests, send: Send | None) -> Any:
        parent = propagator.extract({TRACE_KEY: call.traceparent})
        with tracer.start_as_current_span(
            path[1:], context=parent, kind=SpanKind.SERVER, attributes=about, record_exception=False, set_status_on_exception=False
        ) as span:
            carrier: dict[str, str] = {}
            propagator.inject(carrier)
            continued = Call(call.method, call.tenant, call.deadline, carrier.get(TRACE_KEY, ""), call.metadata, call.peer)
            try:
                return await handle(continued, requests, send)
            except Fault as fault:
                span.set_status(StatusCode.ERROR, fault.reason)
                span.set_attribute("rpc.grpc.status_code", fault.kind.value)
                raise

    return in_span
