"""Which claimants live, by what this executor has seen of their leases. Pure."""

from __future__ import annotations

from collections import OrderedDict

from tool_executor.domain.ledger import LEASE_SECONDS

MOST = 10_000


class Sightings:
    """A claimant lives until the end of its lease, and no longer than a lease after it was last seen to renew it.

    The end is written by the claimant's clock. Where that was set back since, and the claimant is dead, it lies far ahead of everybody.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def lives(self, instance: str, until: float | None, now: float) -> bool:
        """Whether a claimant lives whose lease is written to end then, None for one without a lease."""
        if until is None or until <= now:
            self._seen.pop(instance, None)
            return False
        written, since = self._seen.setdefault(instance, (until, now))
        if written != until:
            since = now
            self._seen[instance] = until, now
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)
        return now - since <= LEASE_SECONDS
