"""A bounded buffer between one writer and one reader, for the messages of one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# So many messages may be under way to a reader who does not read. Enough to hide a round trip, little enough to bound memory.
WINDOW = 32


class Pipe(Generic[T]):
    """Passes items on in order, then how it ended. The writer waits while `window` items are unread; `put` does not wait."""

    __slots__ = ("_ended", "_fault", "_items", "_on_taken", "_reader", "_window", "_writer")

    def __init__(self, window: int = WINDOW, on_taken: Callable[[], None] | None = None) -> None:
        self._items: deque[T] = deque()
        self._window = window
        self._on_taken = on_taken
        self._ended = False
        self._fault: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ended(self) -> bool:
        """Whether nothing more can be put in."""
        return self._ended

    def put(self, item: T) -> None:
        """Adds an item; after the end it is dropped."""
        if not self._ended:
            self._items.append(item)
            _wake(self._reader)

    async def send(self, item: T) -> None:
        """Adds an item as soon as there is room."""
        while len(self._items) >= self._window and not self._ended:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        self.put(item)

    def end(self, fault: Exception | None = None, *, drop: bool = False) -> None:
        """Nothing more will come: the reader gets what is left, unless dropped, then the fault if there is one. The first end counts."""
        if self._ended:
            return
        if drop:
            self._items.clear()
        self._ended, self._fault = True, fault
        _wake(self._reader)
        _wake(self._writer)

    async def finish(self) -> None:
        """Ends without a fault."""
        self.end()

    def __aiter__(self) -> Pipe[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration if self._fault is None else self._fault
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self._items.popleft()
        _wake(self._writer)
        if self._on_taken is not None:
            self._on_taken()
        return item


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
