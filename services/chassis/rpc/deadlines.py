"""Many deadlines at the price of few timers. Nearly all are taken back unused, so adding and removing one costs a set operation."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable

# A deadline may be noticed this much late, in seconds.
TICK = 1 / 128
# Empty ticks nearer than this many seconds are kept, since a service's next calls fall into the same ones.
KEEP = 60.0

Expire = Callable[[], None]


class Deadlines:
    """Calls back when deadlines pass. All deadlines of a tick share a timer, which is kept a while for others when they are taken back."""

    def __init__(self) -> None:
        self._ticks: dict[int, tuple[set[Expire], asyncio.TimerHandle]] = {}

    @property
    def waiting(self) -> int:
        """How many timers there are."""
        return len(self._ticks)

    def add(self, deadline: float, expire: Expire) -> int:
        """Calls expire soon after the `time.monotonic()` moment; returns what `remove` takes."""
        tick = int(deadline / TICK) + 1
        found = self._ticks.get(tick)
        if found is None:
            delay = max(0.0, tick * TICK - time.monotonic())
            found = self._ticks[tick] = (set(), asyncio.get_running_loop().call_later(delay, self._fire, tick))
        found[0].add(expire)
        return tick

    def remove(self, tick: int, expire: Expire) -> None:
        """Takes a deadline back; nothing happens when it has passed."""
        found = self._ticks.get(tick)
        if found is None:
            return
        found[0].discard(expire)
        if not found[0] and tick * TICK - time.monotonic() > KEEP:
            del self._ticks[tick]
            found[1].cancel()

    def _fire(self, tick: int) -> None:
        for expire in self._ticks.pop(tick)[0]:
            expire()


_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Deadlines] = weakref.WeakKeyDictionary()


def deadlines() -> Deadlines:
    """The deadlines of the running loop."""
    loop = asyncio.get_running_loop()
    found = _of_loop.get(loop)
    if found is None:
        found = _of_loop[loop] = Deadlines()
    return found


class Limit:
    """Cancels the current task when a deadline passes, and can tell that from other cancellations. For one use."""

    __slots__ = ("_before", "_deadlines", "_expired", "_task", "_tick")

    def __init__(self, deadline: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._before, self._expired = task, task.cancelling(), False
        self._deadlines = deadlines()
        self._tick = self._deadlines.add(deadline, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def caused(self) -> bool:
        """Whether a cancellation that was caught is this limit's alone. Undoes the request for it."""
        if not self._expired:
            return False
        self._expired = False
        return self._task.uncancel() <= self._before

    def lift(self) -> None:
        """The deadline does not matter any more."""
        self._deadlines.remove(self._tick, self._expire)
        if self._expired:  # what it cancelled finished all the same
            self._task.uncancel()
