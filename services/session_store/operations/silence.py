"""Which drivers are silent, by this process's own watch: a wall clock that jumps ends no lease, and none lasts because of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from session_store.domain.session import DriverId
from session_store.operations.ports import Lease


@dataclass(frozen=True, slots=True)
class _Seen:
    """A lease as it was last seen, and until when it holds if it stays so."""

    lease: Lease
    until: float


class Silence:
    """Watches leases: one that stays as it is for its length is over. Moments are monotonic seconds.

    The end that is written in a lease, by the clock of who wrote it, counts only when this process has just begun and sees it first, and
    then shortens its life at most. After a pause of the watch itself, as when the storage was away, every driver gets its full time again:
    it may have been unable to renew.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._seen: dict[DriverId, _Seen] = {}
        self._looked: float | None = None

    def look(self, leases: Sequence[Lease], now: float, moment: float) -> list[Lease]:
        """The leases that are over, of all there are. `moment` is one before they were read, `now` the wall clock's."""
        paused = self._looked is not None and moment - self._looked > self._lease_seconds / 2
        seen = {} if paused else self._seen
        self._seen = {lease.driver_id: self._look_at(lease, seen.get(lease.driver_id), now, moment) for lease in leases}
        self._looked = moment
        return [each.lease for each in self._seen.values() if each.until <= moment]

    def _look_at(self, lease: Lease, before: _Seen | None, now: float, moment: float) -> _Seen:
        if before is not None and before.lease == lease:
            return before
        length = self._lease_seconds
        if self._looked is None:
            length = min(length, max(0.0, lease.expires_at - now))
        return _Seen(lease, moment + length)
