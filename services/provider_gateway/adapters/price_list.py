"""Prices from the kept list of genai-prices, where it is installed."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import replace
from decimal import Decimal
from typing import Any

from provider_gateway.domain.catalogue import dollars
from provider_gateway.domain.models import Price


def known_price(base_url: str, model: str) -> Price | None:
    """The list's price of a model at its vendor's own address; None where the list is not installed or does not have it."""
    if not base_url or importlib.util.find_spec("genai_prices") is None:
        return None
    return _listed(base_url, model)


@functools.lru_cache(maxsize=512)
def _listed(base_url: str, model: str) -> Price | None:
    from genai_prices import Usage, calc_price

    thousand = 1_000  # little enough to stay below the tiers for long prompts
    try:
        found = calc_price(Usage(input_tokens=thousand, output_tokens=thousand), model_ref=model, provider_api_url=base_url)
    except LookupError:
        return None
    prices = found.model_price
    read, write = _number(getattr(prices, "cache_read_mtok", None)), _number(getattr(prices, "cache_write_mtok", None))
    return replace(dollars(float(found.input_price) * thousand, float(found.output_price) * thousand, read, write), listed=True)


def _number(value: Any) -> float | None:
    """A flat price; None for a missing or tiered one."""
    return float(value) if isinstance(value, int | float | Decimal) else None
