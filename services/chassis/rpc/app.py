"""What a service is to whoever runs it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass

from chassis.rpc.methods import Methods


async def _nothing() -> None:
    """Is ready at once and has nothing to hand over."""


@dataclass(frozen=True, slots=True)
class App:
    """A service, built and not yet listening.

    `ready` raises a Fault that names what is missing; it is asked each second. `drain` stops taking work and hands over what is under way;
    it is called once, after the health check said so.
    """

    name: str
    methods: Methods
    ready: Callable[[], Awaitable[None]] = _nothing
    drain: Callable[[], Awaitable[None]] = _nothing


@contextlib.asynccontextmanager
async def running(**works: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Works that go on for ever, by name, beside the body; at its end they are cancelled and waited for."""
    tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
