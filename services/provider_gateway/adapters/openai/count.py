"""Counting tokens at vLLM, which renders the conversation by the model's own template and counts: /tokenize, beside /v1."""

from __future__ import annotations

import msgspec

from provider_gateway.adapters.wire import malformed

PATH = "/tokenize"
COUNTED = frozenset({"model", "messages", "tools", "chat_template_kwargs"})
"""What the method takes of a chat."""


class CountShape(msgspec.Struct, gc=False):
    """The answer; the tokens themselves are of no interest."""

    count: int


_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COUNT = msgspec.json.Decoder(CountShape)


def counted_part(body: bytes) -> bytes:
    """The part of a chat's body that counts."""
    return msgspec.json.encode({name: value for name, value in _BODY.decode(body).items() if name in COUNTED})


def count_in(provider: str, body: bytes) -> int:
    """The count from the answer's bytes."""
    try:
        return _COUNT.decode(body).count
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", body) from None
