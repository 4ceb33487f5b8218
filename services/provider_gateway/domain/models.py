"""Models and providers as they can be called: what a model can do, what it costs, who serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from provider_gateway.domain.answers import Usage
from provider_gateway.domain.breaker import Circuit


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do. False means no, zero means unknown."""

    streaming: bool = True
    tools: bool = False
    parallel_tools: bool = False
    json_schema: bool = False
    vision: bool = False
    reasoning: bool = False
    embeddings: bool = False
    prompt_caching: bool = False
    continuing: bool = False
    context_tokens: int = 0
    max_output_tokens: int = 0


HOUR_WRITE = 1.6
"""What it costs to write a prompt to a cache for an hour instead of five minutes: at Anthropic twice the input's price instead of 1.25."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price in billionths of a US dollar per token; a thousandth of that number is US dollars per million tokens.

    One that is `listed` comes from a list of many vendors' prices, and a vendor that tells a call's cost knows it better.
    `longer` are the prices of calls that read more than so many tokens, the fewest first: such a price holds for all of their tokens.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    listed: bool = field(default=False, compare=False)
    longer: tuple[tuple[int, Price], ...] = ()

    def of(self, usage: Usage) -> int:
        """What the usage of one call costs; cached tokens cost the input price where no other is known."""
        for above, price in reversed(self.longer):
            if usage.input_tokens > above:
                return price.of(usage)
        plain = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        written = usage.cache_write_tokens + usage.cache_hour_tokens * (HOUR_WRITE - 1)
        cached = usage.cache_read_tokens * read + written * write
        return round(plain * self.input + cached + usage.output_tokens * self.output)


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """What is known of a model; None is not known, and then nothing is refused on its account."""

    capabilities: Capabilities | None = None
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be called, as `provider/model`."""

    provider: str
    model: str
    traits: ModelTraits

    @property
    def name(self) -> str:
        """What to put into a request."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """A configured provider; `problem` says why it cannot be called, empty when it can."""

    name: str
    adapter: str
    base_url: str
    problem: str
    targets: Sequence[TargetStatus] = ()


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How a model of a provider has fared of late; `cooling_until` is in seconds since the epoch, None when it did not ask for it."""

    model: str
    circuit: Circuit
    in_flight: int
    concurrency_limit: int
    cooling_until: float | None
    last_failure: str
