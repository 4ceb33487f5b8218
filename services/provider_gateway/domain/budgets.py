"""Caps on what calls may consume: what they count, for how long, whose use they add up, and what a call weighs in them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from provider_gateway.domain.answers import Usage
from provider_gateway.domain.models import Price

TENANT, KEY, MODEL = "tenant", "key", "model"
CUTS = (TENANT, KEY, MODEL)


class Unit(enum.Enum):
    """What a cap counts; values are the contract's numbers."""

    REQUESTS = 1
    TOKENS = 2
    NANO_USD = 3


@dataclass(frozen=True, slots=True)
class Whose:
    """Who makes a call, for which of the tenant's own keys, of which model (`provider/model`)."""

    tenant: str
    key: str
    model: str


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """What is added up under a cap: one window of one share. `start` is in seconds since the epoch; a share that is not cut has ''."""

    name: str
    tenant: str
    key: str
    model: str
    unit: int
    window: int
    start: int

    @property
    def ends_at(self) -> int | None:
        """When its window turns, in seconds since the epoch; None for one that never does."""
        return self.start + self.window if self.window else None

    @property
    def scope(self) -> Mapping[str, str]:
        """Whose it is, without what it is not cut by."""
        cuts = {TENANT: self.tenant, KEY: self.key, MODEL: self.model}
        return {cut: value for cut, value in cuts.items() if value}

    def is_over(self, now: float) -> bool:
        """Whether its window has turned."""
        return self.ends_at is not None and now >= self.ends_at


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit` of a unit in each window of so many seconds (0: for ever), for each of what it is cut by.

    It holds for calls whose tenant, key and model fit one of the patterns each; no patterns fit everything. Windows are counted from the
    epoch, so that they are the same for everybody. `unpriced` lets models without a known price pass a cap in money.
    """

    name: str
    unit: Unit
    limit: int
    window: int
    per: frozenset[str] = frozenset({TENANT})
    tenants: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    unpriced: bool = False

    def holds_for(self, whose: Whose) -> bool:
        """Whether a call is counted."""
        return self.holds_for_tenant(whose.tenant) and self.holds_for_key(whose.key) and _fits(whose.model, self.models)

    def holds_for_tenant(self, tenant: str) -> bool:
        """Whether calls of a tenant may be counted."""
        return _fits(tenant, self.tenants)

    def holds_for_key(self, key: str) -> bool:
        """Whether calls for a budget key may be counted."""
        return _fits(key, self.keys)

    def bucket(self, whose: Whose, now: float) -> Bucket:
        """Where a call is counted that is made now."""
        return Bucket(
            self.name,
            whose.tenant if TENANT in self.per else "",
            whose.key if KEY in self.per else "",
            whose.model if MODEL in self.per else "",
            self.unit.value,
            self.window,
            int(now) // self.window * self.window if self.window else 0,
        )

    def counts(self, bucket: Bucket) -> bool:
        """Whether a bucket is one of this cap as it is now, and not of one that had its name before."""
        return (bucket.name, bucket.unit, bucket.window) == (self.name, self.unit.value, self.window)


def weight(unit: Unit, usage: Usage, price: Price | None) -> int:
    """How much of a unit usage is; money without a price is 0."""
    match unit:
        case Unit.REQUESTS:
            return 1
        case Unit.TOKENS:
            return usage.input_tokens + usage.output_tokens
        case Unit.NANO_USD if usage.cost_known and (price is None or price.listed):
            return usage.cost_nano_usd  # the provider's own word
        case Unit.NANO_USD:
            return 0 if price is None else price.of(usage)


def heaviest(unit: Unit, input_tokens: int, output_tokens: int, price: Price | None) -> int:
    """The most that a call weighs which reads and writes so many tokens: whether its prompt is kept in a cache is not known before."""
    plain = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    if price is None or price.cache_write is None:
        return weight(unit, plain, price)
    kept = replace(plain, cache_write_tokens=input_tokens, cache_hour_tokens=input_tokens)
    return max(weight(unit, plain, price), weight(unit, kept, price))


@dataclass(frozen=True, slots=True)
class Totals:
    """How a bucket stands over all replicas: granted to them, and of that spent, and held by calls under way."""

    granted: int = 0
    spent: int = 0
    held: int = 0


def _fits(value: str, patterns: Iterable[str]) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)
