"""Tool call ids as the Responses API accepts them: other providers' ids may be longer than it allows."""

from __future__ import annotations

import hashlib

MAX_LENGTH = 64  # characters, for ids of calls and of items


def accepted_id(call_id: str) -> str:
    """The id itself where it is short enough, else one made from it, the same each time and different for different ids."""
    if len(call_id) <= MAX_LENGTH:
        return call_id
    return f"{call_id[:31]}_{hashlib.sha256(call_id.encode()).hexdigest()[:32]}"
