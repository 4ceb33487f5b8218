"""How many calls a target takes at once, learnt from how it answers: one more for each round that goes well, a third less when it groans.

Pure: the caller brings the time. There is no limit until a target first shows that it has one.
"""

from __future__ import annotations

from dataclasses import dataclass

CUT = 0.7
_RECENT, _RISE, _FALL = 0.2, 0.01, 0.1  # how much of a new latency goes into the recent one, and into the usual one
SLOW_SECONDS = 1.0  # below that no latency is a sign of overload


@dataclass(frozen=True, slots=True)
class ConcurrencyPolicy:
    """`most` calls at once, 0 for as many as it takes; never fewer than `least`.

    A latency of `slow_factor` times the usual one is too much. `queue` calls may wait for room, each for `queue_seconds`.
    """

    most: int = 0
    least: int = 1
    slow_factor: float = 4.0
    queue: int = 100
    queue_seconds: float = 10.0


class Concurrency:
    """The calls under way at one target. Times are monotonic seconds."""

    __slots__ = ("_ceiling", "_cut_at", "_limit", "_policy", "_recent", "_usual", "in_flight")

    def __init__(self, policy: ConcurrencyPolicy) -> None:
        self._policy = policy
        self.in_flight = 0
        self._limit = float(policy.most)
        self._ceiling = 0.0
        self._cut_at = float("-inf")
        self._recent = self._usual = 0.0

    @property
    def limit(self) -> int:
        """Calls at once; 0 when there is no limit."""
        return int(self._limit)

    @property
    def has_room(self) -> bool:
        """Whether one more may begin."""
        return not self._limit or self.in_flight < int(self._limit)

    def answered(self) -> None:
        """A call ended well, and is still counted as under way."""
        if self._ceiling and self.in_flight * 2 >= self._limit:
            self._limit += 1 / self._limit
            self._lift()

    def overloaded(self, now: float, began: float) -> None:
        """A call that began at `began` was turned away for overload. Those that were under way at the last cut do not cut again."""
        if began < self._cut_at:
            return
        self._cut_at = now
        self._ceiling = 2.0 * self.in_flight
        self._limit = max(float(self._policy.least), float(int(self.in_flight * CUT)))
        self._lift()

    def began_output(self, now: float, began: float) -> None:
        """An answer had its first output."""
        latency = now - began
        if not self._usual:
            self._recent = self._usual = latency
            return
        self._recent += _RECENT * (latency - self._recent)
        self._usual += (_RISE if latency > self._usual else _FALL) * (latency - self._usual)
        slow = self._policy.slow_factor
        if slow and self._recent > SLOW_SECONDS and self._recent > slow * self._usual and self.in_flight > self._policy.least:
            self.overloaded(now, began)

    def _lift(self) -> None:
        """Forgets a limit that has grown to twice of what was under way when it was set, and keeps below the most."""
        if self._limit >= self._ceiling:
            self._limit, self._ceiling = 0.0, 0.0
        if self._policy.most and (not self._limit or self._limit > self._policy.most):
            self._limit = float(self._policy.most)
