"""Time by the database's clock, so that replicas agree on leases and a jump of a machine's wall clock does no harm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from chassis.faults import Fault
from chassis.world import SLEW

EVERY_SECONDS = 5.0
UNCERTAIN_SECONDS = 0.5  # an answer that took longer says too little


class DatabaseClock:
    """The database's clock as last asked, carried on by this machine's monotonic clock. `keep` must run beside its users."""

    def __init__(self, ask: Callable[[], Awaitable[float]]) -> None:
        self._ask = ask
        self._offset = time.time() - time.monotonic()
        self._set_at: float | None = None

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.monotonic() + self._offset

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    async def set(self) -> None:
        """Asks the database. A clock that was set there is followed as slowly as one here: a jump moves no deadline."""
        before = time.monotonic()
        answer = await self._ask()
        after = time.monotonic()
        if after - before <= UNCERTAIN_SECONDS:
            off = answer - (before + after) / 2 - self._offset
            most = SLEW * (after - self._set_at) if self._set_at is not None else abs(off)
            self._offset += max(-most, min(most, off))
            self._set_at = after

    async def keep(self) -> None:
        """Asks again every few seconds, for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.set()
            except Fault as fault:
                structlog.get_logger().debug("the database's clock could not be read", problem=fault.message)
