"""Ids of tool calls as a server accepts them: those of another vendor may be too long, or hold what it refuses."""

from __future__ import annotations

import hashlib

from provider_gateway.adapters.openai.dialect import Dialect


def accepted_id(call_id: str, dialect: Dialect) -> str:
    """The id itself where it is acceptable, else one made from it, the same each time and different for different ids."""
    exactly, longest = dialect.call_id_exactly, dialect.call_id_longest
    if exactly:
        fits = len(call_id) == exactly and call_id.isascii() and call_id.isalnum()
        return call_id if fits else _digest(call_id)[:exactly]
    return call_id if not longest or len(call_id) <= longest else f"call_{_digest(call_id)}"[:longest]


def _digest(call_id: str) -> str:
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()
