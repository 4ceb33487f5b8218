"""Whether a stream drips: gives pieces, but so slowly that its answer would never be whole. Pure: the caller brings the time."""

from __future__ import annotations


class Pace:
    """Judges a stream window by window, when output comes: its characters against the time that they took.

    The longest silence within a window is not counted: a model that pauses, while a tool of the provider's own runs, does not drip, and one
    that is silent for too long is idle, which is another limit. Times are seconds.
    """

    __slots__ = ("_begun", "_characters", "_last", "_longest", "_rate", "_window")

    def __init__(self, rate: float, window: float) -> None:
        self._rate, self._window = rate, window
        self._begun = self._last = self._longest = 0.0
        self._characters = 0

    def begin(self, now: float) -> None:
        """A window begins."""
        self._begun = self._last = now
        self._longest, self._characters = 0.0, 0

    def shift(self, seconds: float) -> None:
        """So long it was not the provider's turn."""
        self._begun += seconds
        self._last += seconds

    def too_slow(self, now: float, characters: int) -> bool:
        """More output came; whether that ends a window with too little of it."""
        gap = now - self._last
        if gap > self._longest:
            self._longest = gap
        self._last = now
        self._characters += characters
        taken = now - self._begun - self._longest
        if taken < self._window:
            return False
        slow = self._characters < self._rate * taken
        self.begin(now)
        return slow
