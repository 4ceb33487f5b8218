"""Reads a stream beside the loop that uses it, so that the loop alone decides when to stop and what to write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Generic, Self, TypeVar

from chassis.faults import Fault

Item = TypeVar("Item")

MOST_WAITING = 1024
"""Items read ahead of the loop; the stream waits beyond that, so back-pressure reaches its source."""


class Signal:
    """Wakes one run's loop: something arrived, or a command was recorded."""

    def __init__(self) -> None:
        self._stirred = asyncio.Event()
        self.commanded = False

    def stir(self) -> None:
        """Something arrived."""
        self._stirred.set()

    def command(self) -> None:
        """A command was recorded in the run's log."""
        self.commanded = True
        self._stirred.set()

    async def wait(self, timeout: float | None) -> None:
        """Returns at the next stir, or after timeout seconds."""
        if not self._stirred.is_set():
            await _event_within(self._stirred, timeout)
        self._stirred.clear()

    async def rest(self, seconds: float) -> None:
        """Returns after so many seconds, or when a command is recorded; whatever else arrives does not shorten it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.commanded:
                    self._stirred.clear()
                    await self._stirred.wait()


async def _event_within(event: asyncio.Event, timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return


class Inbox(Generic[Item]):
    """The items of a stream as they arrive. Use as a context manager; leaving closes the stream."""

    def __init__(self, stream: AsyncGenerator[Sequence[Item], None], signal: Signal) -> None:
        self._stream = stream
        self._signal = signal
        self._items: list[Item] = []
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.fault: Fault | None = None
        self.ended = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and exc == (None, None, None):
            self._task.result()

    def take(self) -> list[Item]:
        """What arrived since the last time. Raises whatever broke the stream unless it was a Fault: that is in `fault`."""
        items, self._items = self._items, []
        self._taken.set()
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
        return items

    async def _read(self) -> None:
        try:
            async with aclosing(self._stream) as stream:
                async for items in stream:
                    await self._put(items)
        except Fault as fault:
            self.fault = fault
        finally:
            self.ended = True
            self._signal.stir()

    async def _put(self, items: Sequence[Item]) -> None:
        self._items.extend(items)
        self._signal.stir()
        while len(self._items) >= MOST_WAITING:
            self._taken.clear()
            await self._taken.wait()
