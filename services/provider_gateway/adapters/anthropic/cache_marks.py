"""How Anthropic is told what to keep of a prompt: cache_control on a block, which keeps all up to and with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from provider_gateway.domain.chat import CacheLifetime
from provider_gateway.domain.prompt_cache import CachePlan

MOST_MARKS = 4  # the API refuses a fifth
NO_PLAN = CachePlan()
NO_MARKS: Mapping[int, CacheLifetime] = {}
_UNMARKED = frozenset({"thinking", "redacted_thinking"})  # the API takes no mark on these
_CONTROLS: Mapping[CacheLifetime, Mapping[str, str]] = {
    CacheLifetime.FIVE_MINUTES: {"type": "ephemeral"},
    CacheLifetime.ONE_HOUR: {"type": "ephemeral", "ttl": "1h"},
}


def mark(blocks: Sequence[dict[str, Any]], lifetime: CacheLifetime) -> bool:
    """Marks the last block that can bear a mark; False when there is none."""
    for block in reversed(blocks):
        if block.get("type") not in _UNMARKED:
            block["cache_control"] = _CONTROLS[lifetime]
            return True
    return False
