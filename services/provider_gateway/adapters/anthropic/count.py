"""Counting tokens at Anthropic: the request that would be sent, without what does not count."""

from __future__ import annotations

import msgspec

from provider_gateway.adapters.wire import malformed

PATH = "/v1/messages/count_tokens"
COUNTED = frozenset({"model", "system", "messages", "tools", "tool_choice", "thinking", "output_config"})
"""What the method takes of a request; the rest it refuses."""


class CountShape(msgspec.Struct, gc=False):
    """The answer."""

    input_tokens: int


_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COUNT = msgspec.json.Decoder(CountShape)


def counted_part(body: bytes) -> bytes:
    """The part of a request's body that counts."""
    return msgspec.json.encode({name: value for name, value in _BODY.decode(body).items() if name in COUNTED})


def count_in(provider: str, body: bytes) -> int:
    """The count from the answer's bytes."""
    try:
        return _COUNT.decode(body).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", body) from None
