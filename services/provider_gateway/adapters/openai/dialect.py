"""Where servers that speak Chat Completions differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server calls the token limit, and whether it understands being asked for usage in a stream."""

    max_tokens_field: str = "max_completion_tokens"
    stream_usage: bool = True
