"""Saying what is in the way: when it changes, and again now and then while it lasts. A log line each second would hide the others."""

from __future__ import annotations

import time
from collections.abc import Callable

REPEAT_SECONDS = 30.0


class Repeating:
    """Decides whether something is worth saying again. For one thing at a time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._said: str | None = None
        self._at = 0.0

    def is_due(self, text: str) -> bool:
        """Whether to say the text now: it is another than before, or was said half a minute ago."""
        now = self._monotonic()
        if text == self._said and now - self._at < REPEAT_SECONDS:
            return False
        self._said, self._at = text, now
        return True

    def forget(self) -> None:
        """The next text is new, whatever it is."""
        self._said = None
