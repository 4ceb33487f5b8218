"""Tool call ids as Anthropic accepts them: other providers' ids may hold characters that it refuses."""

from __future__ import annotations

import hashlib
import re

_REFUSED = re.compile(r"[^a-zA-Z0-9_-]")


def accepted_id(call_id: str) -> str:
    """The id itself where it is acceptable, else one made from it, the same each time and different for different ids."""
    cleaned = _REFUSED.sub("_", call_id)
    if cleaned == call_id:
        return call_id
    return f"{cleaned[:48]}_{hashlib.sha256(call_id.encode()).hexdigest()[:8]}"
