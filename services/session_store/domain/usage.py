"""What model calls consumed, and how it adds up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce


@dataclass(frozen=True, slots=True)
class Usage:
    """A sum of model calls. The price of a sum is known only when the price of every part is."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano_usd: int = 0
    cost_known: bool = True
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cost_nano_usd + other.cost_nano_usd,
            self.cost_known and other.cost_known,
            self.calls + other.calls,
        )


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """The sum of one model of one provider."""

    provider: str
    model: str
    usage: Usage


def total(rows: Iterable[ModelUsage]) -> Usage:
    """The sum of all rows."""
    return reduce(Usage.__add__, (row.usage for row in rows), Usage())
