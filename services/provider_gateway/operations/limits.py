"""How long a provider may take, and who notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.faults import ProviderTimeout
from provider_gateway.domain.answers import ChatEvent, is_output
from provider_gateway.domain.pace import Pace

_SLACK = 0.125  # limits move only when so much of them has passed, so that a fast stream does not pay for its timer


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds: until the first output of a stream, between signs of life within one, and for a whole call with its retries.

    `rate` is how many characters of output there must be in a second, on average over `rate_window` seconds; 0 is no limit.
    """

    first_output: float = 120.0
    idle: float = 60.0
    call: float = 600.0
    rate: float = 0.0
    rate_window: float = 30.0


class Watch:
    """Watches one stream: moves the timeout along while the provider gives signs of life, and names what was missed."""

    def __init__(self, provider: str, timeout: asyncio.Timeout, limits: TimeLimits) -> None:
        self._provider, self._timeout, self._limits = provider, timeout, limits
        self._now = asyncio.get_running_loop().time
        self._armed = self._rested = self._now()
        self._pace = Pace(limits.rate, limits.rate_window)
        self.has_output = False

    def saw(self, batch: Sequence[ChatEvent], characters: int) -> bool:
        """The provider gave this, with so many characters of output; says whether there was output by now.

        Before the first output nothing else counts as a sign of life, afterwards everything does. Raises ProviderTimeout where it drips.
        """
        if self.has_output:
            now = self._now()
            if now - self._armed > self._limits.idle * _SLACK:
                self._arm(now)
            if characters and self._pace.too_slow(now, characters):
                raise self._dripping()
        elif any(map(is_output, batch)):
            self.has_output = True
            now = self._now()
            self._arm(now)
            self._pace.begin(now)
        return self.has_output

    def rest(self) -> None:
        """It is the reader who is slow now."""
        self._rested = self._now()
        self._timeout.reschedule(None)

    def resume(self) -> None:
        """It is the provider's turn again."""
        now = self._now()
        self._arm(now)
        self._pace.shift(now - self._rested)

    def missed(self) -> ProviderTimeout:
        """What the provider failed to do in time."""
        limit = self._limits.idle if self.has_output else self._limits.first_output
        what = "no sign of life" if self.has_output else "no output"
        name = "idle_seconds" if self.has_output else "first_output_seconds"
        text = f"{self._provider} gave {what} for {limit:g} s; retry, or raise limits.{name} of the provider"
        return ProviderTimeout(text, metadata={"provider": self._provider, "limit": name})

    def _arm(self, now: float) -> None:
        self._armed = now
        self._timeout.reschedule(now + self._limits.idle * (1 + _SLACK))

    def _dripping(self) -> ProviderTimeout:
        limits = self._limits
        text = f"{self._provider} gave less than {limits.rate:g} characters a second for {limits.rate_window:g} s"
        return ProviderTimeout(
            f"{text}; retry, or lower limits.minimum_rate of the provider", metadata={"provider": self._provider, "limit": "minimum_rate"}
        )


@asynccontextmanager
async def watched(provider: str, limits: TimeLimits) -> AsyncIterator[Watch]:
    """A watch over the stream that the body reads; raises ProviderTimeout when the provider misses a limit."""
    try:
        async with asyncio.timeout(limits.first_output) as timeout:
            watch = Watch(provider, timeout, limits)
            yield watch
    except TimeoutError:
        raise (watch.missed() if timeout.expired() else _stray(provider)) from None


@asynccontextmanager
async def whole_call(provider: str, limits: TimeLimits) -> AsyncIterator[asyncio.Timeout]:
    """Bounds a call with all its retries; raises ProviderTimeout."""
    try:
        async with asyncio.timeout(limits.call) as timeout:
            yield timeout
    except TimeoutError:
        if not timeout.expired():
            raise _stray(provider) from None
        text = f"{provider} did not finish within {limits.call:g} s; ask for less, or raise limits.call_seconds of the provider"
        raise ProviderTimeout(text, metadata={"provider": provider, "limit": "call_seconds"}) from None


def _stray(provider: str) -> ProviderTimeout:
    return ProviderTimeout(f"{provider} did not answer in time; retry", metadata={"provider": provider})
