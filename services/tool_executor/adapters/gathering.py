"""Answers many at once: whatever is asked while the last answer was under way goes into the next one, for the way there is what costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

GROUP = 256


class Gathering(Generic[Asked, Answered]):
    """Asks a storage for many. `answer` gives one answer for each that is asked, in order; what it raises, all of them get."""

    def __init__(self, answer: Callable[[Sequence[Asked]], Awaitable[Sequence[Answered]]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Asked, asyncio.Future[Answered]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answered:
        """The answer, as of a moment after this was called."""
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            outcome = await self._outcome([asked for asked, _ in group])
            for index, (_, future) in enumerate(group):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome[index])
        self._task = None

    async def _outcome(self, asked: list[Asked]) -> Sequence[Answered] | Exception:
        try:
            return await self._answer(asked)
        except Exception as failure:  # noqa: BLE001 - each of those who asked gets it
            return failure
