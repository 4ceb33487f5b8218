"""How long a provider asks to wait, from whichever header it says so with."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

_EXHAUSTED = re.compile(r"(?P<vendor>x|anthropic)-ratelimit-(?:remaining-(?P<what>[a-z-]+)|(?P<whose>[a-z-]+)-remaining)")
_DURATION = re.compile(r"(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m(?!s))?(?:(?P<s>[\d.]+)s)?(?:(?P<ms>[\d.]+)ms)?")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait from now (seconds since the epoch), None when the provider does not say. Header names are in lower case.

    `retry-after-ms` comes first because it is the finer one; `retry-after` holds seconds or an HTTP date (RFC 9110, 10.2.3). Without them
    it is when the last of those limits is lifted of which nothing remains: OpenAI's and its likes' tell a duration such as 6m0s in
    `x-ratelimit-reset-tokens`, Anthropic's a moment in `anthropic-ratelimit-tokens-reset`.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is None:
        seconds = _until(value, now)
    return max(_resets(headers, now), default=None) if seconds is None else seconds


def _resets(headers: Mapping[str, str], now: float) -> Iterator[float]:
    """Seconds until each of the exhausted limits is lifted."""
    for name, remaining in headers.items():
        found = _EXHAUSTED.fullmatch(name) if remaining.strip() == "0" else None
        if found is None:
            continue
        reset = f"x-ratelimit-reset-{found['what']}" if found["what"] else f"{found['vendor']}-ratelimit-{found['whose']}-reset"
        value = headers.get(reset, "").strip()
        seconds = _number(value)
        seconds = _duration(value) if seconds is None else seconds
        seconds = _moment(value, now) if seconds is None else seconds
        if seconds is not None:
            yield seconds


def _duration(text: str) -> float | None:
    """Seconds of a duration such as 1h2m3.5s or 20ms."""
    found = _DURATION.fullmatch(text) if text else None
    numbers = {unit: _number(number) for unit, number in found.groupdict().items() if number} if found else {}
    return sum(_SECONDS[unit] * (number or 0.0) for unit, number in numbers.items()) if numbers else None


def _moment(text: str, now: float) -> float | None:
    """Seconds until a moment in RFC 3339."""
    try:
        return max(0.0, datetime.fromisoformat(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _until(date: str, now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
