"""Who is silent, by this process's own watch: a wall clock that jumps ends no lease, and none lasts because of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Written(Protocol):
    """A lease as the tables have it: it is equal to itself until it is renewed."""

    @property
    def expires_at(self) -> float:
        """Its end, by the clock of who wrote it."""


L = TypeVar("L", bound=Written)


@dataclass(frozen=True, slots=True)
class _Seen(Generic[L]):
    """A lease as it was last seen, and until when it holds if it stays so."""

    lease: L
    until: float


class Silence(Generic[L]):
    """Watches leases: one that stays as it is for its length is over. Moments are monotonic seconds.

    The end that is written in a lease, by the clock of who wrote it, counts only when this process has just begun and sees it first, and
    then shortens its life at most. After a pause of the watch itself, as when the storage was away, everybody gets the full time again, for
    nobody may have been able to renew.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._seen: dict[Hashable, _Seen[L]] = {}
        self._looked: float | None = None

    def look(self, leases: Mapping[Hashable, L], now: float, moment: float) -> list[L]:
        """The leases that are over, of all there are by whose they are. `moment` is one before they were read, `now` the wall clock's."""
        paused = self._looked is not None and moment - self._looked > self._lease_seconds / 2
        seen = {} if paused else self._seen
        self._seen = {whose: self._look_at(lease, seen.get(whose), now, moment) for whose, lease in leases.items()}
        self._looked = moment
        return [each.lease for each in self._seen.values() if each.until <= moment]

    def _look_at(self, lease: L, before: _Seen[L] | None, now: float, moment: float) -> _Seen[L]:
        if before is not None and before.lease == lease:
            return before
        length = self._lease_seconds
        if self._looked is None:
            length = min(length, max(0.0, lease.expires_at - now))
        return _Seen(lease, moment + length)
