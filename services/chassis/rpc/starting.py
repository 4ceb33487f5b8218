"""Starting while something that a service needs is away: what passes by itself is waited for, everything else ends the start.

A fault passes by itself when it is UNAVAILABLE and says when to try again. A wrong password or an old schema does not: whoever starts the
service should see its remedy at once, and not a process that waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import structlog

from chassis.faults import Fault, Kind
from chassis.rpc.pipeline import single_fault
from chassis.rpc.repeating import Repeating

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
Told = Callable[[Fault], Awaitable[None]]


class Stopped(Exception):
    """The process was told to end before it had started."""


async def _to_nobody(_: Fault) -> None:
    """Nobody asks meanwhile."""


async def enter_when_possible(
    stack: AsyncExitStack, open_it: Callable[[], AbstractAsyncContextManager[T]], service: str, told: Told = _to_nobody
) -> T:
    """Enters what `open_it` makes, as often as it takes; the log and `told` hear what is waited for. Raises what waiting does not mend."""
    said, pause = Repeating(), FIRST_PAUSE
    while True:
        try:
            return await stack.enter_async_context(open_it())
        except Exception as error:
            fault = _passing(error)
            if fault is None:
                raise
        await told(fault)
        if said.is_due(fault.message):
            structlog.get_logger().warning("waiting to start", service=service, reason=fault.reason, problem=fault.message)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _passing(error: Exception) -> Fault | None:
    """The fault that may pass without anybody doing anything to this service; None for any other error."""
    fault = single_fault(error)
    return fault if fault is not None and fault.kind is Kind.UNAVAILABLE and fault.retry_after is not None else None


@asynccontextmanager
async def unless(stop: asyncio.Event) -> AsyncIterator[None]:
    """Breaks the body off, in this task, as soon as `stop` is set, and then raises Stopped."""
    limit = asyncio.timeout(None)

    async def watch() -> None:
        await stop.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    watching = None
    try:
        async with limit:
            watching = asyncio.create_task(watch(), name="start-watch")
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Stopped from None
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
