"""Turning texts into vectors: the request and what is wrong with it, how it is cut into calls, and what comes back."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from chassis.faults import CapabilityMissing, ProviderResponseInvalid, RequestInvalid, Violation
from provider_gateway.domain.admission import budget_key, model_name
from provider_gateway.domain.answers import RequestWarning, Usage, summed
from provider_gateway.domain.models import ModelTraits

MAX_INPUTS = 2048
MAX_DIMENSIONS = 65_536
MAX_REQUEST_ID = 128
MAX_METADATA = 16


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


def admit_embedding(request: EmbedRequest) -> None:
    """Raises RequestInvalid naming every field that is wrong."""
    violations = tuple(_violations(request))
    if violations:
        summary = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise RequestInvalid(f"the request cannot be sent: {summary}", violations=violations)


def require_embeddings(traits: ModelTraits, model: str) -> None:
    """Raises CapabilityMissing where the model is known not to embed."""
    if traits.capabilities is not None and not traits.capabilities.embeddings:
        raise CapabilityMissing(
            f"{model} lacks embeddings; choose a model that has them, or correct the model's capabilities in the configuration",
            metadata={"model": model, "missing": "embeddings"},
        )


def batches(inputs: Sequence[EmbedInput], weights: Sequence[int], most: int, most_weight: int) -> list[slice]:
    """Where to cut the inputs: in order, at most so many and of so much weight together, but at least one; text and tokens apart."""
    cuts, start, weight = list[slice](), 0, 0
    for place, one in enumerate(weights):
        full = place - start >= most or weight + one > most_weight
        if place > start and (full or isinstance(inputs[place], str) is not isinstance(inputs[start], str)):
            cuts.append(slice(start, place))
            start, weight = place, 0
        weight += one
    return [*cuts, slice(start, len(inputs))]


def check_vectors(result: EmbedResult, request: EmbedRequest) -> None:
    """Raises ProviderResponseInvalid unless there is one vector for each input, all as long as was asked for, or all alike."""
    lengths = {len(vector) for vector in result.vectors}
    wanted = request.dimensions
    if len(result.vectors) == len(request.inputs) and len(lengths) == 1 and (wanted is None or lengths == {wanted}):
        return
    asked = f"{len(request.inputs)} vectors" + (f" of {wanted} numbers" if wanted else " of one length")
    got = f"{len(result.vectors)} of {' and '.join(map(str, sorted(lengths))) or 'no'} numbers"
    raise ProviderResponseInvalid(
        f"{result.provider} was asked for {asked} and gave {got}; check that {result.model or 'the model'} embeds and has these dimensions",
        metadata={"provider": result.provider},
    )


def together(results: Sequence[EmbedResult]) -> EmbedResult:
    """The results of consecutive batches as one: usage summed, each warning once."""
    first = results[0]
    if len(results) == 1:
        return first
    usage = reduce(summed, (result.usage for result in results))
    vectors = tuple(vector for result in results for vector in result.vectors)
    warnings = tuple(dict.fromkeys(warning for result in results for warning in result.warnings))
    return EmbedResult(vectors, usage, first.provider, first.model, warnings)


def _violations(request: EmbedRequest) -> Iterator[Violation]:
    if not request.inputs:
        yield Violation("inputs", "at least one is needed")
    if len(request.inputs) > MAX_INPUTS:
        yield Violation("inputs", f"{len(request.inputs)}; at most {MAX_INPUTS}, send the rest in further calls")
    for place, given in enumerate(request.inputs):
        if not given:
            yield Violation(f"inputs[{place}]", "empty; set text or tokens")
    if request.dimensions is not None and request.dimensions < 1:
        yield Violation("dimensions", f"{request.dimensions} is not positive; leave it unset for the model's own")
    if request.dimensions is not None and request.dimensions > MAX_DIMENSIONS:
        yield Violation("dimensions", f"{request.dimensions}; at most {MAX_DIMENSIONS}")
    yield from model_name(request.model)
    yield from budget_key(request.budget_key)
    if len(request.request_id) > MAX_REQUEST_ID:
        yield Violation("request_id", f"{len(request.request_id)} characters; at most {MAX_REQUEST_ID}")
    if len(request.metadata) > MAX_METADATA:
        yield Violation("metadata", f"{len(request.metadata)} pairs; at most {MAX_METADATA}")
