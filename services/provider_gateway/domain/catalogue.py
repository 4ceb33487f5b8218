"""What is known of models: a small built-in table, extended and overridden by configuration.

The table is keyed by adapter and by the beginning of the model's name; the longest match wins, so dated versions need no line of
their own. Prices are US dollars per million tokens as the vendors published them; configuration comes before them, and where installed
a kept price list knows the models that are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from provider_gateway.domain.models import Capabilities, ModelTraits, Price

NANO_PER_MILLION = 1000.0  # one dollar per million tokens is a thousand billionths of a dollar per token


def dollars(input_price: float, output_price: float, cache_read: float | None = None, cache_write: float | None = None) -> Price:
    """A price from US dollars per million tokens."""
    read, write = (None if value is None else value * NANO_PER_MILLION for value in (cache_read, cache_write))
    return Price(input_price * NANO_PER_MILLION, output_price * NANO_PER_MILLION, read, write)


def _model(
    context: int, output: int, price: Price | None, *, reasoning: bool = False, continuing: bool = False, json_schema: bool = True
) -> ModelTraits:
    capabilities = Capabilities(
        tools=True,
        parallel_tools=True,
        json_schema=json_schema,
        vision=True,
        reasoning=reasoning,
        prompt_caching=True,
        continuing=continuing,
        context_tokens=context,
        max_output_tokens=output,
    )
    return ModelTraits(capabilities, price)


def _gemini(price: Price | None = None) -> ModelTraits:
    """A Gemini model that thinks; without a price where the vendor has set one for a season only, which the kept list follows."""
    return _model(1_048_576, 65_536, price, reasoning=True)


def _embedding(price: float, context: int = 8192) -> ModelTraits:
    return ModelTraits(Capabilities(streaming=False, embeddings=True, context_tokens=context), dollars(price, 0))


_SCRIPTED = ModelTraits(
    Capabilities(
        tools=True,
        parallel_tools=True,
        json_schema=True,
        vision=True,
        reasoning=True,
        embeddings=True,
        prompt_caching=True,
        continuing=True,
    ),
    Price(0, 0),
)

BUILT_IN: Mapping[str, Mapping[str, ModelTraits]] = {
    "openai": {
        "gpt-4o": _model(128_000, 16_384, dollars(2.5, 10, 1.25)),
        "gpt-4o-mini": _model(128_000, 16_384, dollars(0.15, 0.6, 0.075)),
        "gpt-4.1": _model(1_047_576, 32_768, dollars(2, 8, 0.5)),
        "gpt-4.1-mini": _model(1_047_576, 32_768, dollars(0.4, 1.6, 0.1)),
        "gpt-4.1-nano": _model(1_047_576, 32_768, dollars(0.1, 0.4, 0.025)),
        "gpt-5": _model(400_000, 128_000, dollars(1.25, 10, 0.125), reasoning=True),
        "gpt-5-mini": _model(400_000, 128_000, dollars(0.25, 2, 0.025), reasoning=True),
        "gpt-5-nano": _model(400_000, 128_000, dollars(0.05, 0.4, 0.005), reasoning=True),
        "text-embedding-3-small": _embedding(0.02),
        "text-embedding-3-large": _embedding(0.13),
        "text-embedding-ada-002": _embedding(0.1),
        "o3": _model(200_000, 100_000, dollars(2, 8, 0.5), reasoning=True),
        "o4-mini": _model(200_000, 100_000, dollars(1.1, 4.4, 0.275), reasoning=True),
    },
    "anthropic": {
        "claude-3-haiku": _model(200_000, 4_096, dollars(0.25, 1.25, 0.03, 0.3), continuing=True, json_schema=False),
        "claude-3-5-haiku": _model(200_000, 8_192, dollars(0.8, 4, 0.08, 1), continuing=True, json_schema=False),
        "claude-haiku-4-5": _model(200_000, 64_000, dollars(1, 5, 0.1, 1.25), reasoning=True, continuing=True),
        "claude-sonnet-4": _model(200_000, 64_000, dollars(3, 15, 0.3, 3.75), reasoning=True, json_schema=False),
        "claude-sonnet-4-5": _model(200_000, 64_000, dollars(3, 15, 0.3, 3.75), reasoning=True, continuing=True),
        "claude-sonnet-4-6": _model(200_000, 64_000, dollars(3, 15, 0.3, 3.75), reasoning=True),
        "claude-opus-4": _model(200_000, 32_000, dollars(15, 75, 1.5, 18.75), reasoning=True, json_schema=False),
        "claude-opus-4-5": _model(200_000, 64_000, dollars(5, 25, 0.5, 6.25), reasoning=True, continuing=True),
        "claude-opus-4-6": _model(200_000, 128_000, dollars(5, 25, 0.5, 6.25), reasoning=True),
    },
    "gemini": {  # prices of prompts up to 200,000 tokens; some models cost more beyond
        "gemini-2.0-flash": _model(1_048_576, 8_192, dollars(0.1, 0.4, 0.025)),
        "gemini-2.5-flash": _gemini(dollars(0.3, 2.5, 0.03)),
        "gemini-2.5-flash-lite": _gemini(dollars(0.1, 0.4, 0.01)),
        "gemini-2.5-pro": _gemini(dollars(1.25, 10, 0.125)),
        "gemini-3-flash-preview": _gemini(dollars(0.5, 3, 0.05)),
        "gemini-3.1-flash-lite": _gemini(dollars(0.25, 1.5, 0.025)),
        "gemini-3.1-pro-preview": _gemini(dollars(2, 12, 0.2)),
        "gemini-3.5-flash": _gemini(dollars(1.5, 9, 0.15)),
        "gemini-3.5-flash-lite": _gemini(dollars(0.3, 2.5, 0.03)),
        "gemini-3.6-flash": _gemini(),
        "gemini-3.7-flash": _gemini(),
        "gemini-3.8-flash": _gemini(),
        "gemini-4-argon": _gemini(),
        "gemini-embedding-001": _embedding(0.15, 2_048),
        "gemini-embedding-2": _embedding(0.2),
    },
    "scripted": {"": _SCRIPTED, "echo": _SCRIPTED},
}

_VENDORS: Mapping[str, str] = {"openai-responses": "openai"}  # of adapters that are not called like the vendor


def vendor_of(adapter: str) -> str:
    """Whose models an adapter's own service has."""
    return _VENDORS.get(adapter, adapter)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Looks models up: by what was configured for the provider first, then in the built-in table of its adapter.

    The table holds for `own_service`, the providers that are the vendors themselves: a local server's gpt-4o is another model.
    """

    configured: Mapping[str, Mapping[str, ModelTraits]] = field(default_factory=dict)
    own_service: frozenset[str] = frozenset()

    def traits(self, provider: str, adapter: str, model: str) -> ModelTraits:
        """What is known of a model; a configured half is completed from the table."""
        configured = self.configured.get(provider, {}).get(model, ModelTraits())
        known = self._built_in(provider, adapter, model)
        return ModelTraits(configured.capabilities or known.capabilities, configured.price or known.price)

    def names(self, provider: str, adapter: str) -> list[str]:
        """The models worth listing for a provider, sorted."""
        built_in = BUILT_IN.get(vendor_of(adapter), {}) if provider in self.own_service else {}
        return sorted({*self.configured.get(provider, {}), *(name for name in built_in if name)})

    def _built_in(self, provider: str, adapter: str, model: str) -> ModelTraits:
        if provider not in self.own_service:
            return ModelTraits()
        table = BUILT_IN.get(vendor_of(adapter), {})
        matches = [name for name in table if model.startswith(name)]
        return table[max(matches, key=len)] if matches else ModelTraits()
