"""From what a function did to what the model reads."""

from __future__ import annotations

import asyncio
import json

import structlog

from tool_executor.domain import execution as results
from tool_executor.domain.arguments import Problem
from tool_executor.domain.cutting import Bounds
from tool_executor.domain.execution import Result, Status
from tool_executor.operations.flight import Flight, Order, Outcome
from tool_executor.operations.ports import Check, FunctionFailed, Output
from tool_executor.operations.registry import Entry

LARGE_TEXT = 1024 * 1024

_log = structlog.get_logger("tool_executor")


async def result_of(flight: Flight, entry: Entry, work: asyncio.Future[Outcome], timeout: float, bounds: Bounds) -> Result:
    """The result of work that ended, or that was told to stop and is not waited for any longer."""
    if flight.stopped_for is not None:
        return _stopped(flight, entry, timeout)
    if work.cancelled():
        return results.failed(f"{entry.tool.name} cancelled itself")
    outcome = work.result()
    if isinstance(outcome, Output):
        return await _returned(entry, outcome, bounds)
    return _raised(flight.order, outcome)


def _stopped(flight: Flight, entry: Entry, timeout: float) -> Result:
    """Whatever it returned after it was told to stop does not count."""
    name, repeatable = entry.tool.name, entry.tool.traits.repeatable
    if flight.abandoned:
        _log.warning("tool does not stop when told", tool=name, key=flight.order.key)
    if flight.stopped_for is Status.TIMED_OUT:
        return results.timed_out(name, timeout, repeatable)
    return results.cancelled(name, repeatable)


async def _returned(entry: Entry, output: Output, bounds: Bounds) -> Result:
    if len(output.text) > LARGE_TEXT:
        return await asyncio.to_thread(_read, entry, output, bounds)
    return _read(entry, output, bounds)


def _read(entry: Entry, output: Output, bounds: Bounds) -> Result:
    problems = _problems(entry.result, output) if entry.result is not None else ()
    if problems:
        first = problems[0]
        message = f"{entry.tool.name} returned what its result schema forbids, at {first.path or 'the top'}: {first.reason}"
        return results.failure(Status.FAILED, "result_invalid", message)
    return results.success(output.text, bounds)


def _problems(check: Check, output: Output) -> tuple[Problem, ...]:
    return check.problems(json.loads(output.text) if output.is_json else output.text)


def _raised(order: Order, failure: BaseException) -> Result:
    if isinstance(failure, FunctionFailed):
        return results.failed(str(failure))
    _log.warning("tool raised", tool=order.call.name, key=order.key, exc_info=failure)
    return results.failed(f"{type(failure).__name__}: {_message(failure)}")


def _message(failure: BaseException) -> str:
    """What the exception says; an exception whose own text fails must not take the executor with it."""
    try:
        return str(failure)
    except Exception:  # noqa: BLE001 - it is the tool's code
        return "(its message cannot be read)"
