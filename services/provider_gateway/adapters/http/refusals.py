"""What a provider's refusal means: status, error body or error event in, the right fault out.

OpenAI and Anthropic answer {"error": {"type", "code", "message"}}, Google {"error": {"code", "status", "message", "details"}} with the
HTTP status as code; the compatible servers answer variations of these, plain text or HTML.
Whatever comes, the fault says which provider, its words (shortened, keys blotted out) and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chassis.faults import (
    ModelNotFound,
    ProviderContextOverflow,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    UpstreamFault,
)
from provider_gateway.adapters.http.error_details import NO_DETAILS, ErrorDetails, error_details
from provider_gateway.adapters.http.retry_after import retry_after

MAX_WORDS = 500
_KEYS = re.compile(r"(?i)\b(?:bearer\s+\S+|(?:sk|pk|rk|gsk|xai|key|api|aiza|proj|org)[-_][\w*.-]{6,}|aiza[\w*-]{10,}|\S*\*{4,}\S*)")
_OVERFLOW = re.compile(
    r"(?i)context[ _-]?(?:length|window|size|limit)|maximum context|prompt is too long|input is too long|too many (?:input )?tokens"
    r"|exceeds? the (?:model'?s )?(?:maximum|limit|available context)|reduce the length of the messages|input token count"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A provider's own account of an error."""

    status: int = 0
    type: str = ""
    code: str = ""
    message: str = ""
    details: ErrorDetails = NO_DETAILS

    @property
    def words(self) -> str:
        """Type and code, for matching."""
        return f"{self.type} {self.code}".lower()


@dataclass(frozen=True, slots=True)
class Refused:
    """Who refused whom: what a fault needs beside the refusal. `secret` and `more` are blotted out wherever they appear."""

    provider: str
    model: str
    secret: str = ""
    more: Sequence[str] = ()


def refusal_of(status: int, body: bytes) -> Refusal:
    """Reads an error body of any shape."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(status, message=_plain(body))
    return refusal_in(document, status)


def refusal_in(document: Any, status: int = 0) -> Refusal:
    """Reads an error document, such as the data of an error event."""
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return Refusal(status, message=str(document))
    error = document.get("error", document)
    if not isinstance(error, dict):
        error = {**document, "message": str(error)}
    details = error_details(error.get("details"))
    message = error.get("message") or error.get("detail") or error.get("msg") or document.get("detail") or document.get("message") or ""
    return Refusal(
        status=status or _status(error.get("code")) or _status(error.get("status")),
        type=_text(error.get("type")) or _word(error.get("status")),
        code=details.reason or ("" if _status(error.get("code")) else _text(error.get("code"))),
        message=message if isinstance(message, str) else msgspec.json.encode(message).decode(),
        details=details,
    )


def fault_of(
    refusal: Refusal, refused: Refused, headers: Mapping[str, str] | None = None, now: float = 0.0
) -> UpstreamFault | ModelNotFound:
    """The fault that a refusal means."""
    cls, remedy = _meaning(refusal)
    said = _blotted(refusal.message, refused)
    status = f" with HTTP {refusal.status}" if refusal.status else ""
    words = f": {said}" if said else ""
    return cls(
        f"{refused.provider} refused {refused.model}{status}{words}; {remedy}",
        metadata=_metadata(refusal, refused, headers or {}),
        retry_after=_wait(refusal, headers or {}, now),
    )


LONGEST_WAIT = 86_400.0
"""Seconds: no quota turns less often than once a day, and what says more would leave a target alone for ever."""

Meaning = tuple[type[UpstreamFault] | type[ModelNotFound], str]

_CREDENTIALS: Meaning = (ProviderCredentialsRefused, "check the provider's api_key")
_PERMISSION: Meaning = (ProviderPermissionDenied, "check what the account may use, and its billing")
_RATE: Meaning = (ProviderRateLimited, "retry later, or raise the limit with the provider")
_BUSY: Meaning = (ProviderUnavailable, "retry later")
_SLOW: Meaning = (ProviderTimeout, "retry later")
_MODEL: Meaning = (ModelNotFound, "choose a model that the provider offers")
_OVERLONG: Meaning = (ProviderContextOverflow, "shorten the conversation")
_REQUEST: Meaning = (ProviderRequestRefused, "correct the request")
_ADDRESS: Meaning = (ProviderRequestRefused, "check the provider's base_url")
_REDIRECT: Meaning = (ProviderResponseInvalid, "redirects are not followed; check the provider's base_url")

_BY_STATUS: Mapping[int, Meaning] = {
    401: _CREDENTIALS,
    402: _PERMISSION,
    403: _PERMISSION,
    404: _ADDRESS,
    408: _SLOW,
    409: _BUSY,
    425: _BUSY,
    429: _RATE,
    501: _REQUEST,  # what a server cannot do at all, it cannot do later either
    504: _SLOW,
}
_BY_WORD: tuple[tuple[str, Meaning], ...] = (
    ("context_length_exceeded", _OVERLONG),
    ("exceed_context_size", _OVERLONG),
    ("model_not_found", _MODEL),
    ("authentication", _CREDENTIALS),
    ("invalid_api_key", _CREDENTIALS),
    ("api_key_invalid", _CREDENTIALS),
    ("unauthenticated", _CREDENTIALS),
    ("permission", _PERMISSION),
    ("billing", _PERMISSION),
    ("image", _REQUEST),
    ("invalid_prompt", _REQUEST),
    ("policy", _REQUEST),
    ("data_residency", _PERMISSION),
    ("rate_limit", _RATE),
    ("insufficient_quota", _RATE),
    ("resource_exhausted", _RATE),
    ("too_many_requests", _RATE),
    ("overloaded", _BUSY),
    ("server_error", _BUSY),
    ("api_error", _BUSY),
    ("unavailable", _BUSY),
    ("timeout", _SLOW),
    ("deadline_exceeded", _SLOW),
    ("not_found", _MODEL),
    ("invalid_request", _REQUEST),
    ("request_too_large", _REQUEST),
)


def _meaning(refusal: Refusal) -> Meaning:
    status = refusal.status
    if status in (0, 400, 413, 422, 500) and _OVERFLOW.search(f"{refusal.words} {refusal.message}"):
        return _OVERLONG
    if status == 404 and ("model" in refusal.words or "model" in refusal.message.lower() or "not_found" in refusal.type):
        return _MODEL
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status in (0, 400):
        return next((meaning for word, meaning in _BY_WORD if word in refusal.words), _REQUEST if status else _BUSY)
    return _REDIRECT if status < 400 else _REQUEST if status < 500 else _BUSY


def _wait(refusal: Refusal, headers: Mapping[str, str], now: float) -> float | None:
    told = retry_after(headers, now)
    wait = refusal.details.retry_after if told is None else told
    return None if wait is None else min(wait, LONGEST_WAIT)


def _metadata(refusal: Refusal, refused: Refused, headers: Mapping[str, str]) -> dict[str, str]:
    upstream_id = headers.get("x-request-id") or headers.get("request-id") or ""
    found = {
        "provider": refused.provider,
        "model": refused.model,
        "status": str(refusal.status or ""),
        "code": _blotted(refusal.code or refusal.type, refused)[:100],
        "quota": ",".join(refusal.details.quotas)[:200],
        "upstream_request_id": upstream_id[:100],
    }
    return {key: value for key, value in found.items() if value}


def _blotted(text: str, refused: Refused) -> str:
    for secret in filter(None, (refused.secret, *refused.more)):
        text = text.replace(secret, "[key]")
    text = " ".join(_KEYS.sub("[key]", text[: 4 * MAX_WORDS]).split())
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}…"


def _plain(body: bytes) -> str:
    text = body[: 8 * MAX_WORDS].decode("utf-8", "replace")
    return re.sub(r"<[^>]*>", " ", text) if "<" in text else text


def _status(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 300 <= value < 600 else 0


def _word(value: object) -> str:
    """A status by name; numbers are told by their own field."""
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    return "" if value is None else str(value)
