"""What replicas tell each other of targets that asked to be left alone."""

from __future__ import annotations

from typing import Protocol

from chassis.world import Clock


class Signals(Protocol):
    """Which targets cool off, and until when. Asking never waits: what other replicas know comes in behind the calls' back."""

    def cooling(self, target: str) -> float:
        """Seconds until the target may be called again; 0 when it may."""

    def cool(self, target: str, seconds: float) -> None:
        """The target asked to be left alone so long; a longer wish stands."""


class OwnSignals:
    """What this process alone knows. Bounded by the targets that are configured or were called: the oldest go first."""

    MOST = 4096

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def cooling(self, target: str) -> float:
        """Seconds until the target may be called again."""
        until = self._until.get(target)
        if until is None:
            return 0.0
        left = until - self._clock.monotonic()
        if left <= 0:
            del self._until[target]
        return max(0.0, left)

    def cool(self, target: str, seconds: float) -> None:
        """The target asked to be left alone so long."""
        until = self._clock.monotonic() + seconds
        if until > self._until.get(target, 0.0):
            self._until.pop(target, None)
            self._until[target] = until
            while len(self._until) > self.MOST:
                self._until.pop(next(iter(self._until)))
