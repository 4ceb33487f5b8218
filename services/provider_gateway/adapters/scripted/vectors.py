"""Vectors without a model: each word points somewhere, a text points where its words do. Texts that share words are near. Pure."""

from __future__ import annotations

import hashlib
import math
import re

from provider_gateway.domain.embeddings import EmbedInput

DIMENSIONS = 256
_WORD = re.compile(r"\w+")


def vector_of(given: EmbedInput, dimensions: int = DIMENSIONS) -> tuple[float, ...]:
    """A vector of length 1, the same for the same words in any order and case."""
    words = (_WORD.findall(given.casefold()) or [given]) if isinstance(given, str) else [f"token {token}" for token in given]
    sums = [0.0] * dimensions
    for word in words:
        place, sign = _direction(word)
        sums[place % dimensions] += sign
    length = math.sqrt(sum(value * value for value in sums))
    if not length:  # the words cancel each other out
        sums[0] = length = 1.0
    return tuple([value / length for value in sums])


def _direction(word: str) -> tuple[int, float]:
    number = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
    return number >> 1, 1.0 if number & 1 else -1.0
