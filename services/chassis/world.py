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


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

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
