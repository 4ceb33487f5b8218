"""Time and ids as ports, so that a test can own them. Nothing else of the operating system belongs here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from uuid_utils import uuid7


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> float:
        """Seconds since the epoch, for records that people read and for expiry that outlives a process."""

    def monotonic(self) -> float:
        """Seconds since some moment, never going back, for durations."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""


class Ids(Protocol):
    """Makes ids."""

    def new(self) -> str:
        """A UUIDv7: unique, and sorted by time of creation."""


SLEW = 0.01
"""How much faster or slower than time `now` goes while it makes up for a wall clock that was set: a minute in two hours."""


class SystemClock:
    """The machine's clock, without its jumps: a wall clock that is set moves no deadline, and its new time is come to by and by."""

    def __init__(self) -> None:
        self._now, self._moment = time.time(), time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch; never goes back."""
        moment = time.monotonic()
        passed = moment - self._moment
        behind = time.time() - self._now - passed
        self._now += passed + max(-SLEW * passed, min(SLEW * passed, behind))
        self._moment = moment
        return self._now

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


class RandomIds:
    """Ids from the machine's randomness."""

    def new(self) -> str:
        """A UUIDv7."""
        return str(uuid7())


@dataclass(frozen=True, slots=True)
class World:
    """What a service needs of the world besides its neighbours."""

    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=RandomIds)
