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
    if not base_url.startswith("https://") or not _installed():  # no vendor does without TLS: for other servers the list stays unread
        return None
    return _listed(base_url, model)


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("genai_prices") is not None


@functools.lru_cache(maxsize=512)
def _listed(base_url: str, model: str) -> Price | None:
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(input_tokens=1), model_ref=model, provider_api_url=base_url)
    except LookupError:
        return None
    prices = found.model_price
    starts = sorted({tier.start for name in _NAMES for tier in getattr(getattr(prices, name, None), "tiers", ())})
    return replace(_above(prices, 0), longer=tuple((start, _above(prices, start)) for start in starts))


_NAMES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")


def _above(prices: Any, start: int) -> Price:
    """The price of calls that read more than so many tokens."""
    read, written, cache_read, cache_write = (_dollars(getattr(prices, name, None), start) for name in _NAMES)
    return replace(dollars(read or 0.0, written or 0.0, cache_read, cache_write), listed=True)


def _dollars(value: Any, start: int) -> float | None:
    """US dollars per million tokens; None where there is no such price. Beyond the start of a tier its price holds for all tokens."""
    if value is None or isinstance(value, int | float | Decimal):
        return None if value is None else float(value)
    reached = [tier.price for tier in value.tiers if tier.start <= start]
    return float(reached[-1] if reached else value.base)
