"""Pages: sizes and opaque tokens that are bound to their query."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from chassis.faults import PageTokenInvalid, RequestInvalid, Violation

MAX_PAGE = 1000
MAX_TOKEN = 1024


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of the page before: when it was created, and its id."""

    created_at: float
    id: str


def page_size(asked: int, default: int) -> int:
    """The page size to use: default for 0. Raises RequestInvalid outside of 1 to 1000."""
    if not 0 <= asked <= MAX_PAGE:
        raise RequestInvalid(
            f"page_size is {asked}; use 1 to {MAX_PAGE}, or 0 for {default}",
            violations=(Violation("page_size", f"must be 0 to {MAX_PAGE}"),),
        )
    return asked or default


def page_token(query: str, values: Sequence[str | int | float]) -> str:
    """A token that continues query after the row that values name."""
    return base64.urlsafe_b64encode(json.dumps([_digest(query), *values]).encode()).decode().rstrip("=")


def read_page_token(query: str, token: str, *types: type) -> list[str | int | float]:
    """The values of a token, of these types. Raises PageTokenInvalid when it is not one, or belongs to another query."""
    try:
        digest, *values = _decoded(token)
    except (binascii.Error, ValueError, TypeError) as error:
        raise PageTokenInvalid("page_token is not one that this service gave; start again without it") from error
    if digest != _digest(query):
        raise PageTokenInvalid("page_token belongs to another query; repeat the query that it came from, or start again without it")
    if [type(value) for value in values] != list(types):
        raise PageTokenInvalid("page_token is not one that this service gave; start again without it")
    return values


def cursor_token(query: str, cursor: Cursor) -> str:
    """A token that continues query after cursor."""
    return page_token(query, (cursor.created_at, cursor.id))


def read_cursor(query: str, token: str) -> Cursor | None:
    """The cursor of a token, None for an empty one. Raises PageTokenInvalid."""
    if not token:
        return None
    created_at, id_ = read_page_token(query, token, float, str)
    return Cursor(float(created_at), str(id_))


def _decoded(token: str) -> list[str | int | float]:
    if len(token) > MAX_TOKEN:
        raise ValueError("too long")
    padded = token + "=" * (-len(token) % 4)
    return cast(list[str | int | float], json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)))


def _digest(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:16]
