"""Looking at budgets: the caps that hold for a tenant and how much of each is used."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chassis.faults import PageTokenInvalid, RequestInvalid, Violation
from provider_gateway.domain.budgets import KEY, MODEL, TENANT, Bucket, Cap, Totals, Whose
from provider_gateway.operations.bank import Standing
from provider_gateway.operations.budgets import Budgets

PAGE, MOST = 100, 1000
Place = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A cap, and how one share of it stands in its present window."""

    cap: Cap
    bucket: Bucket
    totals: Totals


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """Some budgets in order, and where the next page begins; empty at the end."""

    budgets: Sequence[BudgetStatus]
    next_page_token: str


class BudgetList:
    """Lists budgets; None for a gateway that has none."""

    def __init__(self, budgets: Budgets | None) -> None:
        self._budgets = budgets

    async def page(self, tenant: str, key: str, size: int, token: str) -> BudgetPage:
        """One page of a tenant's budgets, of one key or of all. Raises RequestInvalid, PageTokenInvalid, StorageUnavailable."""
        if not 0 <= size <= MOST:
            text = f"page_size is {size}; use 1 to {MOST}, or 0 for {PAGE}"
            raise RequestInvalid(text, violations=(Violation("page_size", f"must be 0 to {MOST}"),))
        after, size = _place_of(token) if token else None, size or PAGE
        found = [] if self._budgets is None else await self._found(self._budgets, tenant, key)
        rest = [status for status in found if after is None or _place(status.bucket) > after]
        following = _token(rest[size - 1].bucket) if len(rest) > size else ""
        return BudgetPage(rest[:size], following)

    async def _found(self, budgets: Budgets, tenant: str, key: str) -> list[BudgetStatus]:
        standings, now = await budgets.standings(tenant), budgets.now()
        found = [status for cap in budgets.caps for status in _of_cap(cap, Whose(tenant, key, ""), standings, now)]
        return sorted(found, key=lambda status: _place(status.bucket))


def _of_cap(cap: Cap, whose: Whose, standings: Iterable[Standing], now: float) -> Iterable[BudgetStatus]:
    """The shares of a cap that were used in its present window, and the one that is the tenant's or the key's anyway.

    Of keys that tenants share only the one that was asked for: the others are other tenants' affair.
    """
    if not cap.holds_for_tenant(whose.tenant) or (whose.key and not cap.holds_for_key(whose.key)):
        return []
    own = cap.bucket(whose, now)
    used = {
        standing.bucket: standing.totals
        for standing in standings
        if cap.counts(standing.bucket)
        and (standing.bucket.tenant, standing.bucket.start) == (own.tenant, own.start)
        and (KEY not in cap.per or standing.bucket.key == whose.key or (not whose.key and TENANT in cap.per))
    }
    if MODEL not in cap.per and (whose.key or KEY not in cap.per):
        used.setdefault(own, Totals())
    return [BudgetStatus(cap, bucket, totals) for bucket, totals in used.items()]


def _place(bucket: Bucket) -> Place:
    return bucket.name, bucket.key, bucket.model


def _token(bucket: Bucket) -> str:
    return base64.urlsafe_b64encode(json.dumps(_place(bucket)).encode()).decode()


def _place_of(token: str) -> Place:
    try:
        name, key, model = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise PageTokenInvalid("page_token is not one that this service gave; start again without it") from None
    return str(name), str(key), str(model)
