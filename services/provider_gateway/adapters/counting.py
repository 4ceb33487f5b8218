"""Counting tokens at a provider: the part of a request that its method takes, and the number in the answer."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from provider_gateway.adapters.wire import malformed

MOST = 2**40
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def counted_part(body: bytes, names: Collection[str]) -> bytes:
    """The fields of a request's body that the method takes; it refuses the rest."""
    return msgspec.json.encode({name: value for name, value in _FIELDS.decode(body).items() if name in names})


def count_in(provider: str, body: bytes, name: str) -> int:
    """The number of that name in an answer. Raises ProviderResponseInvalid for none, and for one that cannot be."""
    try:
        counted = msgspec.json.decode(_FIELDS.decode(body)[name], type=int)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "a count", body) from None
    if not 0 <= counted <= MOST:
        raise malformed(provider, "a count", body)
    return counted
