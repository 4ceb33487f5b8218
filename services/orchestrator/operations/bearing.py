"""Bears with a neighbour that is away: how often to ask again, and for how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from chassis.world import Clock
from orchestrator.operations.inbox import Signal
from orchestrator.operations.log import Log
from orchestrator.operations.ports import AWAY, Patience

Given = TypeVar("Given")


class Interruption:
    """One neighbour's absences during one effect. It is asked again ever more rarely, until it was away for as long as patience lasts.

    A conversation that stood for a while before it broke shows that the neighbour had come back: what follows is a new absence.
    """

    def __init__(self, clock: Clock, patience: Patience) -> None:
        self._clock = clock
        self._patience = patience
        self._asked_at = clock.monotonic()
        self._since: float | None = None
        self._backoff = patience.backoff

    def asking(self) -> None:
        """The neighbour is being asked."""
        self._asked_at = self._clock.monotonic()

    def heard(self) -> None:
        """The neighbour said something."""
        self._since, self._backoff = None, self._patience.backoff

    def pause(self) -> float | None:
        """It is away: seconds to wait before asking again, None when patience is at an end."""
        now = self._clock.monotonic()
        if now - self._asked_at > self._patience.longest_backoff:
            self.heard()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._patience.neighbour:
            return None
        pause, self._backoff = self._backoff, min(2 * self._backoff, self._patience.longest_backoff)
        return pause


async def bear(ask: Callable[[], Awaitable[Given]], log: Log, signal: Signal, clock: Clock, patience: Patience) -> Given | None:
    """What the neighbour gives. None when the run's log moved on, or its time ran out, while the neighbour was away: decide anew."""
    interruption, decided = Interruption(clock, patience), log.run
    while True:
        interruption.asking()
        try:
            return await ask()
        except AWAY:
            pause = interruption.pause()
            if pause is None:
                raise
        await signal.wait(pause)
        run = await log.heed(signal)
        if run is not decided or run.stopped(clock.now()):
            return None
