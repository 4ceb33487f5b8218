"""Which of a provider's API keys a call takes: they take turns, and one that the provider turned away rests while the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chassis.faults import Fault, ProviderCredentialsRefused, ProviderPermissionDenied, ProviderRateLimited, SettingsInvalid
from chassis.world import Clock

REFUSED_SECONDS = 300.0
"""How long a key rests that the provider does not take. One that was changed meanwhile is another key, and takes its turn at once."""

LIMITED_SECONDS = 10.0
"""How long a key rests that is over its rate limit, where the provider does not say."""

LONGEST_SECONDS = 3600.0
_TURNED_AWAY = (ProviderCredentialsRefused, ProviderPermissionDenied, ProviderRateLimited)


@dataclass(slots=True)
class Keys:
    """A provider's keys. Reading one raises SettingsInvalid when it is not there; no keys are one that is empty."""

    reads: Sequence[Callable[[], str]]
    clock: Clock
    _turn: int = 0
    _rests: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raises SettingsInvalid when one of them cannot be read."""
        for read in self.reads:
            read()

    def take(self, tried: Sequence[str] = ()) -> str:
        """The next key that does not rest; where all do, the one whose rest ends first. Not one of those that were tried.

        Raises SettingsInvalid when none can be read.
        """
        if len(self.reads) < 2:
            return self.reads[0]() if self.reads else ""
        present = self._present()
        self._turn += 1
        left = [key for key in present if key not in tried] or present
        now = self.clock.monotonic()
        return min(left, key=lambda key: max(0.0, self._rests.get(key, 0.0) - now))  # the first of those that do not rest

    def turned_away(self, key: str, fault: Fault, tried: Sequence[str] = ()) -> bool:
        """Hears how a call with a key failed; True when another one may be tried at once."""
        if len(self.reads) < 2 or not isinstance(fault, _TURNED_AWAY):
            return False
        now = self.clock.monotonic()
        seconds = LIMITED_SECONDS if isinstance(fault, ProviderRateLimited) else REFUSED_SECONDS
        rest = seconds if fault.retry_after is None else min(LONGEST_SECONDS, fault.retry_after)
        self._rests = {resting: until for resting, until in self._rests.items() if until > now}
        self._rests[key] = now + rest
        return any(other not in tried and other not in self._rests for other in self._present())

    def patience(self, fault: Fault) -> float | None:
        """Seconds to wait after a call that failed so with its last key: until the first of several limited ones is free again."""
        if len(self.reads) < 2 or not isinstance(fault, ProviderRateLimited) or fault.retry_after is None:
            return fault.retry_after
        now = self.clock.monotonic()
        return min((max(0.0, until - now) for until in self._rests.values()), default=fault.retry_after)

    def _present(self) -> list[str]:
        """The keys that can be read, beginning with the one whose turn it is."""
        found, lacking = list[str](), list[SettingsInvalid]()
        for place in range(len(self.reads)):
            try:
                found.append(self.reads[(self._turn + place) % len(self.reads)]())
            except SettingsInvalid as fault:
                lacking.append(fault)
        if not found:
            raise lacking[0]
        return found
