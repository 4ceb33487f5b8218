"""The shapes of Anthropic Messages that the gateway reads: the hot ones typed, the rest as they are, because they are kept whole."""

from __future__ import annotations

from typing import Any

import msgspec


class OutputDetails(msgspec.Struct, gc=False):
    """What the output was."""

    thinking_tokens: int | None = None


class CacheCreation(msgspec.Struct, gc=False):
    """What was written to the cache, by how long it is kept."""

    ephemeral_1h_input_tokens: int | None = None


class UsageShape(msgspec.Struct, gc=False):
    """Tokens; input_tokens counts only what was neither read from the cache nor written to it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None


class MessageShape(msgspec.Struct, gc=False):
    """A whole message, or the beginning of a streamed one."""

    id: str | None = None
    type: str | None = None
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_details: Any = None
    usage: UsageShape | None = None
    container: Any = None
    error: Any = None


class Delta(msgspec.Struct, gc=False):
    """What changes, of a block or of the message."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: Any = None
    stop_reason: str | None = None
    stop_details: Any = None
    container: Any = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str
    index: int = 0
    message: MessageShape | None = None
    content_block: dict[str, Any] | None = None
    delta: Delta | None = None
    usage: UsageShape | None = None
    error: Any = None


class RawDelta(msgspec.Struct, gc=False):
    """A delta of a kind that is not known, whole."""

    delta: dict[str, Any]


EVENTS = msgspec.json.Decoder(Event)
MESSAGES = msgspec.json.Decoder(MessageShape)
RAW_DELTAS = msgspec.json.Decoder(RawDelta)
