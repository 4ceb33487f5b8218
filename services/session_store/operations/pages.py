"""Reading a page once for all who want the same one at the same moment. Keeps nothing beyond the reads under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReads(Generic[T]):
    """Reads under way, each shared by all who ask for its key meanwhile. One that nobody waits for any more still ends by itself."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[T]] = {}

    @property
    def under_way(self) -> int:
        """How many reads there are now."""
        return len(self._under_way)

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What read returns, or what the same read that is under way does; raises what it raises."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(_awaited(read()))
            task.add_done_callback(lambda done: self._over(key, done))
        return await asyncio.shield(task)

    def _over(self, key: Hashable, done: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # looked at, so that one that nobody waits for is not reported as lost


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
