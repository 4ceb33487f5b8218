"""Where servers that speak Chat Completions differ."""

from __future__ import annotations

from dataclasses import dataclass

from provider_gateway.domain.schemas import OPENAI_STRICT, Subset


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server calls the token limit, whether it tells usage in streams when asked, how it embeds, and what strict schemas may say.

    `continue_by` is how it is told to go on with an assistant message that comes last: last_message, prefix or continue_final_message.
    """

    max_tokens_field: str = "max_completion_tokens"
    stream_usage: bool = True
    embed_inputs: int = 2048
    embed_tokens: int = 0
    embeds_tokens: bool = True
    vectors_base64: bool = True
    dimensions_field: str = "dimensions"
    strict: Subset = OPENAI_STRICT
    continue_by: str = "last_message"
