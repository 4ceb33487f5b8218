"""What happens around every handler, once, whatever carries the call: tenant, trace, deadline, faults, one log line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog
from google.protobuf.message import Message
from uuid_utils import uuid7

from chassis import telemetry
from chassis.faults import DeadlineExceeded, Fault, Internal, RequestInvalid, Violation
from chassis.rpc.call import CURRENT, DEFAULT_TENANT, TENANT_KEY, Call
from chassis.rpc.deadlines import Limit
from chassis.rpc.methods import Pipeline, Requests, Send, StreamHandler, UnaryHandler
from chassis.rpc.spans import spanned
from chassis.rpc.trace import continued, trace_id
from chassis.tenants import ALLOWED, is_tenant

Body = Callable[[Any, Any], Awaitable[Any]]


def default_pipeline(*, log_calls: bool = True) -> Pipeline:
    """The pipeline of every service. It writes a line per call when logging was set up, its level asks for it and log_calls allows it."""
    return StandardPipeline(log_calls)


class StandardPipeline(Pipeline):
    """Admits a call, bounds it by its deadline, lets only faults out, and writes one canonical line about it."""

    def __init__(self, log_calls: bool) -> None:
        self._log_calls = log_calls

    def unary(self, service: str, path: str, behaviour: Callable[[Any, Any], Awaitable[Message]]) -> UnaryHandler:
        """Wraps a handler that answers once."""
        guarded = self._guarded(service, path, lambda request, _: behaviour(request, None))
        return lambda call, request: guarded(call, request, None)

    def stream(self, service: str, path: str, behaviour: Callable[[Any, Any], AsyncIterator[Message]]) -> StreamHandler:
        """Wraps a handler that answers with a stream."""
        return self._guarded(service, path, lambda requests, send: _relay(behaviour(requests, None), send))

    def _guarded(self, service: str, path: str, body: Body) -> Callable[[Call, Requests, Send | None], Awaitable[Any]]:
        report = _reporter(service, path, self._log_calls)
        bounded = _bounded(service, path, body)

        async def handle(call: Call, requests: Requests, send: Send | None) -> Any:
            started, fault = time.perf_counter(), None
            token = CURRENT.set(call)
            try:
                call = _admitted(call)
                CURRENT.set(call)
                return await bounded(call, requests, send)
            except Fault as raised:
                fault = raised
                raise
            except asyncio.CancelledError:
                fault = _CANCELLED
                raise
            finally:
                CURRENT.reset(token)
                if report is not None:
                    report(call, started, fault)

        return spanned(path, handle)


def _bounded(service: str, path: str, body: Body) -> Callable[[Call, Requests, Send | None], Awaitable[Any]]:
    """The body within the call's deadline, raising nothing but faults."""

    async def run(call: Call, requests: Requests, send: Send | None) -> Any:
        limit = None
        try:
            if call.deadline is not None:
                limit = _limit(call, service)
            return await body(requests, send)
        except Fault as fault:
            fault.service = fault.service or service
            raise
        except asyncio.CancelledError:
            if limit is not None and limit.caused():
                raise _too_late(call, service) from None
            raise
        except Exception as error:  # noqa: BLE001 — nothing but faults may leave
            raise only_fault(error, service, path) from None
        finally:
            if limit is not None:
                limit.lift()

    return run


def _limit(call: Call, service: str) -> Limit:
    assert call.deadline is not None
    if call.deadline <= time.monotonic():
        raise _too_late(call, service)
    return Limit(call.deadline)


def _too_late(call: Call, service: str) -> DeadlineExceeded:
    text = f"{call.method} did not finish before the caller's deadline; allow more time or ask for less"
    return DeadlineExceeded(text, metadata={"method": call.method}, service=service)


async def _relay(responses: AsyncIterator[Message], send: Send) -> None:
    try:
        async for response in responses:
            await send(response)
    finally:
        close = getattr(responses, "aclose", None)
        if close is not None:
            await close()


def _admitted(call: Call) -> Call:
    """The call with a valid tenant and a trace."""
    if call.tenant != DEFAULT_TENANT and not is_tenant(call.tenant):
        raise _tenant_invalid(call)
    trace = continued(call.traceparent)
    if trace is call.traceparent:
        return call
    return Call(call.method, call.tenant, call.deadline, trace, call.metadata, call.peer)


def _tenant_invalid(call: Call) -> RequestInvalid:
    text = f"the metadata {TENANT_KEY} must be {ALLOWED}, not {call.tenant[:40]!r}; set it or leave it out"
    return RequestInvalid(text, violations=(Violation(f"metadata[{TENANT_KEY}]", ALLOWED),))


def only_fault(error: BaseException, service: str, path: str) -> Fault:
    """The fault to tell the caller: the error's own, or Internal with an id under which the error is in the log."""
    fault = single_fault(error)
    if fault is not None:
        fault.service = fault.service or service
        return fault
    error_id = str(uuid7())
    structlog.get_logger().error("handler failed", service=service, method=path, error_id=error_id, exc_info=error)
    text = f"{service} failed on {path}; its log has the details under error_id {error_id}"
    return Internal(text, metadata={"error_id": error_id}, service=service)


def single_fault(error: BaseException) -> Fault | None:
    """The fault, or the first of a group that holds nothing else."""
    if isinstance(error, BaseExceptionGroup):
        found = [single_fault(inner) for inner in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, Fault) else None


_CANCELLED = Fault("cancelled")


def _reporter(service: str, path: str, wanted: bool) -> Callable[[Call, float, Fault | None], None] | None:
    """Writes the canonical line of a call; None when nobody would see it."""
    if not wanted or not telemetry.calls_logged():
        return None
    log = structlog.get_logger().bind(service=service, method=path)

    def report(call: Call, started: float, fault: Fault | None) -> None:
        outcome = {"code": "OK"} if fault is None else _outcome(fault)
        duration = round((time.perf_counter() - started) * 1e3, 3)
        log.info("call", tenant=call.tenant, **outcome, duration_ms=duration, peer=call.peer, trace_id=trace_id(call.traceparent))

    return report


def _outcome(fault: Fault) -> dict[str, str]:
    return {"code": "CANCELLED"} if fault is _CANCELLED else {"code": fault.kind.name, "reason": fault.reason}
