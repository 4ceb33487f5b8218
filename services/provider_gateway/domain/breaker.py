"""A circuit breaker: when a target has failed too often of late to be asked again. Pure: the caller brings the time."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

BUCKETS = 10


@dataclass(frozen=True, slots=True)
class CircuitPolicy:
    """Opens when of at least `least_calls` within `window` seconds a share of `error_rate` failed; then a probe after a growing pause."""

    error_rate: float = 0.5
    least_calls: int = 20
    window: float = 30.0
    first_pause: float = 5.0
    longest_pause: float = 120.0


class Circuit(enum.Enum):
    """Whether calls go to a target; values are the contract's numbers."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class Admission(enum.Enum):
    """What a call may do."""

    GO = enum.auto()
    PROBE = enum.auto()
    STAY = enum.auto()


class Breaker:
    """The circuit of one target. Times are monotonic seconds.

    Closed, it counts what ends well and badly. Open, it admits nobody until the pause is over, then one call as a probe: half open.
    The probe alone decides what comes then; calls that began before the circuit opened are not heard.
    """

    __slots__ = ("_bad", "_buckets", "_good", "_pause", "_policy", "_width", "circuit", "until")

    def __init__(self, policy: CircuitPolicy) -> None:
        self._policy, self._width = policy, policy.window / BUCKETS
        self.circuit, self.until = Circuit.CLOSED, 0.0
        self._pause = policy.first_pause
        self._buckets: deque[list[int]] = deque()
        self._good = self._bad = 0

    def admits(self, now: float) -> bool:
        """Whether a call would be admitted."""
        return self.circuit is Circuit.CLOSED or (self.circuit is Circuit.OPEN and now >= self.until)

    def admit(self, now: float) -> Admission:
        """What a call may do. A probe must end in `answered`, `failed` or `abandoned`."""
        if self.circuit is Circuit.CLOSED:
            return Admission.GO
        if not self.admits(now):
            return Admission.STAY
        self.circuit = Circuit.HALF_OPEN
        return Admission.PROBE

    def answered(self, now: float, probe: bool = False) -> None:
        """A call ended well."""
        if probe:
            self._close()
        elif self.circuit is Circuit.CLOSED:
            self._bucket(now)[1] += 1
            self._good += 1

    def failed(self, now: float, probe: bool = False) -> None:
        """A call ended in a way that speaks against the target."""
        if probe:
            self._pause = min(self._policy.longest_pause, self._pause * 2)
            self._open(now)
        elif self.circuit is Circuit.CLOSED:
            self._bucket(now)[2] += 1
            self._bad += 1
            calls = self._good + self._bad
            if calls >= self._policy.least_calls and self._bad >= self._policy.error_rate * calls:
                self._open(now)

    def abandoned(self, now: float) -> None:
        """The probe ended without telling anything: the next call is one."""
        self.circuit, self.until = Circuit.OPEN, now

    def _open(self, now: float) -> None:
        self.circuit, self.until = Circuit.OPEN, now + self._pause

    def _close(self) -> None:
        self.circuit, self._pause = Circuit.CLOSED, self._policy.first_pause
        self._buckets.clear()
        self._good = self._bad = 0

    def _bucket(self, now: float) -> list[int]:
        """The counts of the present tenth of the window: its number, good and bad ones."""
        number = int(now / self._width)
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append([number, 0, 0])
            while self._buckets[0][0] <= number - BUCKETS:
                _, good, bad = self._buckets.popleft()
                self._good -= good
                self._bad -= bad
        return self._buckets[-1]
