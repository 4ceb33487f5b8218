"""The shapes of Chat Completions that the gateway reads, typed so that decoding is one pass in C.

Tolerant where the compatible servers differ: fields that are only kept are of any type, so that an odd one does not spoil an answer.
What is not named here carries nothing that the contract has a place for.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Function(msgspec.Struct, gc=False):
    """A called function, or a piece of one."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class Call(msgspec.Struct, gc=False):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None
    extra_content: Any = None


class Content(msgspec.Struct, gc=False):
    """A message, or a delta of one."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    reasoning_details: Any = None
    tool_calls: list[Call] | None = None
    images: Any = None
    annotations: Any = None
    audio: Any = None


class Choice(msgspec.Struct, gc=False):
    """An alternative answer; behest asks for one."""

    index: int | None = 0
    message: Content | None = None
    delta: Content | None = None
    finish_reason: str | None = None
    content_filter_results: Any = None
    error: Any = None


class PromptDetails(msgspec.Struct, gc=False):
    """Where the input came from."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """What the output was."""

    reasoning_tokens: int | None = None


class UsageShape(msgspec.Struct, gc=False):
    """Tokens, in OpenAI's words and those of its followers."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    cached_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Any = None
    cost_in_usd_ticks: float | None = None


class GroqUsage(msgspec.Struct, gc=False):
    """Where Groq's streams put usage."""

    usage: UsageShape | None = None


class Completion(msgspec.Struct, gc=False):
    """A whole completion or one chunk of a stream."""

    id: str | int | None = None
    model: str | None = None
    created: Any = None
    choices: list[Choice] | None = None
    usage: UsageShape | None = None
    x_groq: GroqUsage | None = None
    error: Any = None
    citations: Any = None
    prompt_filter_results: Any = None
    search_results: Any = None


COMPLETIONS = msgspec.json.Decoder(Completion)
