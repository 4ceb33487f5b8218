"""Prices from the kept list of genai-prices, where it is installed."""

from __future__ import annotations

import functools
import importlib.util
from decimal import Decimal
from typing import Any

from provider_gateway.domain.catalogue import dollars, vendor_of
from provider_gateway.domain.models import Price

VENDORS = {"gemini": "google"}
"""What the list calls the vendors whose adapter is called otherwise."""


def known_price(adapter: str, model: str) -> Price | None:
    """The list's price of a vendor's model; None where the list is not installed or does not have it."""
    if adapter == "scripted" or importlib.util.find_spec("genai_prices") is None:
        return None
    return _listed(adapter, model)


@functools.lru_cache(maxsize=512)
def _listed(adapter: str, model: str) -> Price | None:
    from genai_prices import Usage, calc_price

    vendor = vendor_of(adapter)
    thousand = 1_000  # little enough to stay below the tiers for long prompts
    try:
        found = calc_price(Usage(input_tokens=thousand, output_tokens=thousand), model_ref=model, provider_id=VENDORS.get(vendor, vendor))
    except LookupError:
        return None
    prices = found.model_price
    read, write = _number(getattr(prices, "cache_read_mtok", None)), _number(getattr(prices, "cache_write_mtok", None))
    return dollars(float(found.input_price) * thousand, float(found.output_price) * thousand, read, write)


def _number(value: Any) -> float | None:
    """A flat price; None for a missing or tiered one."""
    return float(value) if isinstance(value, int | float | Decimal) else None
