"""By how much the machine's wall clock was set while the harness ran: times of different processes agree no better than that."""

from __future__ import annotations

import asyncio
import time

EVERY_SECONDS = 0.25


class ClockWatch:
    """Compares the wall clock with the monotonic one. `keep` must run for as long as times are told."""

    def __init__(self) -> None:
        self._least = self._most = time.time() - time.monotonic()

    @property
    def error(self) -> float:
        """Seconds between the wall clock's earliest and latest idea of when the machine was started."""
        return self._most - self._least

    async def keep(self) -> None:
        """Looks again and again, for ever."""
        while True:
            ahead = time.time() - time.monotonic()
            self._least, self._most = min(self._least, ahead), max(self._most, ahead)
            await asyncio.sleep(EVERY_SECONDS)
