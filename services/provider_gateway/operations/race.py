"""Two attempts at the same: whichever has output first goes on alone, the other is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lost(Exception):
    """Another attempt had output before this one."""


class Race(Generic[T]):
    """The attempts of one call that are under way at once. Leave it by `close`: whoever still runs is cancelled, and awaited."""

    def __init__(self) -> None:
        self._runners: set[asyncio.Task[T]] = set()
        self._decided = asyncio.get_running_loop().create_future()
        self._winner: asyncio.Task[Any] | None = None

    def enter(self, attempt: Coroutine[Any, Any, T]) -> None:
        """Starts an attempt."""
        self._runners.add(asyncio.create_task(attempt))

    def claim(self) -> None:
        """Within an attempt: its first output is here, and nobody else's counts from now on. Raises Lost when it is too late."""
        runner = asyncio.current_task()
        if self._winner is None:
            self._winner = runner
            self._decided.set_result(None)
        elif self._winner is not runner:
            raise Lost

    async def pending(self, seconds: float) -> bool:
        """Waits so long, or until there is output or an end; says whether there is neither."""
        done, _ = await asyncio.wait([*self._runners, self._decided], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return not done

    async def results(self) -> Sequence[T]:
        """What the attempts gave that ended next; empty when none is left. Raises what they raise."""
        while True:
            if self._winner is not None:
                await self._end_losers(self._winner)
            if not self._runners:
                return []
            decision = [self._decided] if self._winner is None else []
            await asyncio.wait([*self._runners, *decision], return_when=asyncio.FIRST_COMPLETED)
            ended = [runner for runner in self._runners if runner.done()]
            self._runners.difference_update(ended)
            if ended:
                return self._told(ended)

    async def _end_losers(self, winner: asyncio.Task[Any]) -> None:
        losers = {runner for runner in self._runners if runner is not winner}
        await self._end(losers)
        self._runners -= losers

    def _told(self, ended: Iterable[asyncio.Task[T]]) -> list[T]:
        """What they gave; raises what one raised, unless another one has won."""
        given = list[T]()
        for runner in ended:
            error = runner.exception()
            if error is None:
                given.append(runner.result())
            elif self._winner in (None, runner):
                raise error
        return given

    async def close(self) -> None:
        """Nobody runs any more."""
        runners, self._runners = self._runners, set()
        await self._end(runners)

    async def _end(self, runners: Iterable[asyncio.Task[T]]) -> None:
        under_way = [runner for runner in runners if not runner.done()]
        for runner in under_way:
            runner.cancel()
        if under_way:
            await asyncio.wait(under_way)
        for runner in runners:
            if not runner.cancelled():
                runner.exception()  # seen: an attempt that lost has nothing to say
