"""Where servers that speak Chat Completions differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server calls the token limit, whether it understands being asked for usage in a stream, and how it embeds."""

    max_tokens_field: str = "max_completion_tokens"
    stream_usage: bool = True
    embed_inputs: int = 2048
    embed_tokens: int = 0
    embeds_tokens: bool = True
    vectors_base64: bool = True
    dimensions_field: str = "dimensions"
