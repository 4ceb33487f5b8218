"""Turning texts into vectors: the request, and what comes back."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from provider_gateway.domain.answers import RequestWarning, Usage


class EmbedPurpose(enum.Enum):
    """What vectors are for; values are the contract's numbers."""

    UNSPECIFIED = 0
    QUERY = 1
    DOCUMENT = 2


EmbedInput = str | tuple[int, ...]
"""A text, or the same as the model's own tokens."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts to embed, in order; `dimensions` is None for the model's own."""

    inputs: tuple[EmbedInput, ...]
    model: str = ""
    request_id: str = ""
    dimensions: int | None = None
    purpose: EmbedPurpose = EmbedPurpose.UNSPECIFIED
    metadata: Mapping[str, str] = field(default_factory=dict)
    budget_key: str = ""


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """One vector for each input, in the inputs' order."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage = field(default_factory=Usage)
    provider: str = ""
    model: str = ""
    warnings: tuple[RequestWarning, ...] = ()
