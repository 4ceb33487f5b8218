"""What the replicas' allowances are kept by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from provider_gateway.domain.allowance import Claim, Grant
from provider_gateway.domain.budgets import Bucket, Totals


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a cap is used."""

    bucket: Bucket
    totals: Totals


class Bank(Protocol):
    """Keeps what is granted of each cap. The rule by which it grants is domain/allowance.py; all of its methods may be repeated."""

    @property
    def shared(self) -> bool:
        """Whether other replicas take from the same caps."""

    async def settle(self, claims: Sequence[Claim]) -> Sequence[Grant]:
        """Keeps how the allowances stand and grants what there is, a grant for each claim in order.

        Raises StorageUnavailable, after which it may still have happened.
        """

    async def tend(self) -> None:
        """Says that this replica lives, counts the allowances of those that do not as spent, and forgets windows that are long over.

        To be called every few seconds. Raises StorageUnavailable.
        """

    async def standings(self, tenant: str) -> Sequence[Standing]:
        """The buckets of a tenant, and those that are nobody's own, whose windows are not long over. Raises StorageUnavailable."""

    def now(self) -> float:
        """Seconds since the epoch by the clock that windows go by."""
