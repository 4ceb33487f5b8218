"""How long a provider may take, and who notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.faults import ProviderTimeout
from provider_gateway.domain.answers import ChatEvent, is_output

_SLACK = 0.125  # limits move only when so much of them has passed, so that a fast stream does not pay for its timer


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds: until the first output of a stream, between signs of life within one, and for a whole call with its retries."""

    first_output: float = 120.0
    idle: float = 60.0
    call: float = 600.0


class Watch:
    """Watches one stream: moves the timeout along while the provider gives signs of life, and names what was missed."""

    def __init__(self, timeout: asyncio.Timeout, limits: TimeLimits) -> None:
        self._timeout, self._limits = timeout, limits
        self._loop = asyncio.get_running_loop()
        self._armed = self._loop.time()
        self.has_output = False

    def saw(self, batch: Sequence[ChatEvent]) -> bool:
        """The provider gave this; before the first output nothing else counts, afterwards everything does. Whether there was output."""
        if not self.has_output:
            self.has_output = any(map(is_output, batch))
            if self.has_output:
                self.resume()
        elif self._loop.time() - self._armed > self._limits.idle * _SLACK:
            self.resume()
        return self.has_output

    def rest(self) -> None:
        """It is the reader who is slow now."""
        self._timeout.reschedule(None)

    def resume(self) -> None:
        """It is the provider's turn again."""
        self._armed = self._loop.time()
        self._timeout.reschedule(self._armed + self._limits.idle * (1 + _SLACK))

    def missed(self, provider: str) -> ProviderTimeout:
        """What the provider failed to do in time."""
        limit = self._limits.idle if self.has_output else self._limits.first_output
        what = "no sign of life" if self.has_output else "no output"
        name = "idle_seconds" if self.has_output else "first_output_seconds"
        text = f"{provider} gave {what} for {limit:g} s; retry, or raise limits.{name} of the provider"
        return ProviderTimeout(text, metadata={"provider": provider, "limit": name})


@asynccontextmanager
async def watched(provider: str, limits: TimeLimits) -> AsyncIterator[Watch]:
    """A watch over the stream that the body reads; raises ProviderTimeout when the provider misses a limit."""
    try:
        async with asyncio.timeout(limits.first_output) as timeout:
            watch = Watch(timeout, limits)
            yield watch
    except TimeoutError:
        raise (watch.missed(provider) if timeout.expired() else _stray(provider)) from None


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
