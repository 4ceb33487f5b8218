"""What Google's error details add to an error: how long to wait, the reason by name, the quotas that are used up.

The shapes are those of google.rpc in JSON: https://cloud.google.com/apis/design/errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """`retry_after` is in seconds; None when nothing is said."""

    reason: str = ""
    retry_after: float | None = None
    quotas: tuple[str, ...] = ()


NO_DETAILS = ErrorDetails()


def error_details(details: Any) -> ErrorDetails:
    """The details of one error; whatever has another shape says nothing."""
    if not isinstance(details, list):
        return NO_DETAILS
    by_type = {_type(detail): detail for detail in details if isinstance(detail, dict)}
    return ErrorDetails(
        reason=_text(by_type.get("ErrorInfo", {}).get("reason")),
        retry_after=_seconds(by_type.get("RetryInfo", {}).get("retryDelay")),
        quotas=_quotas(by_type.get("QuotaFailure", {}).get("violations")),
    )


def _type(detail: dict[str, Any]) -> str:
    return _text(detail.get("@type")).rpartition(".")[2]


def _quotas(violations: Any) -> tuple[str, ...]:
    listed = [violation for violation in violations if isinstance(violation, dict)] if isinstance(violations, list) else []
    return tuple(name for name in (_text(violation.get("quotaId") or violation.get("subject")) for violation in listed) if name)


def _seconds(duration: Any) -> float | None:
    """A duration, written as 34.4s or as its seconds and nanos."""
    if isinstance(duration, dict):
        return _number(duration.get("seconds", 0)) + _number(duration.get("nanos", 0)) / 1e9
    if not isinstance(duration, str) or not duration.endswith("s"):
        return None
    try:
        seconds = float(duration[:-1])
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, number) if math.isfinite(number) else 0.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
