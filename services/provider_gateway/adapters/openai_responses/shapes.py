"""The shapes of Responses that the gateway reads: events and envelopes typed, items as they are, because they are kept whole.

An event is decoded in one pass. Only one that does not fit is looked at again, for its type: types that do not exist yet may give
the same fields other shapes, and say nothing about the parts of an answer that are known here.
"""

from __future__ import annotations

from typing import Any

import msgspec

Item = dict[str, Any]
NOTHING = msgspec.Raw(b"")


class InputDetails(msgspec.Struct, gc=False):
    """Where the input came from."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class OutputDetails(msgspec.Struct, gc=False):
    """What the output was."""

    reasoning_tokens: int | None = None


class UsageShape(msgspec.Struct, gc=False):
    """Tokens; the details are parts of the sums."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class Incomplete(msgspec.Struct, gc=False):
    """Why an answer is not whole."""

    reason: str | None = None


class ResponseShape(msgspec.Struct, gc=False):
    """A whole response, or what is known of one within a stream."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    error: Any = None
    incomplete_details: Incomplete | None = None
    output: list[msgspec.Raw] | None = None
    usage: UsageShape | None = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream. `message` and `code` belong to an error."""

    type: str = ""
    delta: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    item: msgspec.Raw = NOTHING
    part: msgspec.Raw = NOTHING
    response: ResponseShape | None = None
    error: Any = None
    message: Any = None
    code: Any = None


class Kind(msgspec.Struct, gc=False):
    """What an event or item is, whatever else it has."""

    type: str


EVENTS = msgspec.json.Decoder(Event)
RESPONSES = msgspec.json.Decoder(ResponseShape)
KINDS = msgspec.json.Decoder(Kind)
ITEMS = msgspec.json.Decoder(Item)
