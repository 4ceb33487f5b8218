"""Embeddings and counts between the contract's messages and the domain's values. Pure."""

from __future__ import annotations

from behest.provider.v1 import provider_pb2, provider_service_pb2
from chassis.faults import RequestInvalid, Violation
from provider_gateway.domain.embeddings import EmbedInput, EmbedPurpose, EmbedRequest, EmbedResult
from provider_gateway.operations.counts import TokenCount
from provider_gateway.wire import usage_to


def embed_request_from(message: provider_service_pb2.EmbedRequest) -> EmbedRequest:
    """The request; raises RequestInvalid for values that the contract does not have."""
    return EmbedRequest(
        inputs=tuple([_input_from(given) for given in message.inputs]),
        model=message.model,
        request_id=message.request_id,
        dimensions=message.dimensions if message.HasField("dimensions") else None,
        purpose=_purpose_from(message.purpose),
        metadata=dict(message.metadata),
        budget_key=message.budget_key,
    )


def embed_response_to(result: EmbedResult) -> provider_service_pb2.EmbedResponse:
    """The vectors."""
    return provider_service_pb2.EmbedResponse(
        embeddings=[provider_pb2.Embedding(index=index, values=vector) for index, vector in enumerate(result.vectors)],
        usage=usage_to(result.usage),
        provider=result.provider,
        model=result.model,
        warnings=[provider_pb2.Warning(field=w.field, message=w.message) for w in result.warnings],
    )


def count_to(count: TokenCount) -> provider_service_pb2.CountTokensResponse:
    """The count."""
    return provider_service_pb2.CountTokensResponse(
        input_tokens=count.input_tokens, exact=count.exact, provider=count.provider, model=count.model
    )


def _input_from(given: provider_service_pb2.EmbedInput) -> EmbedInput:
    """The input; an empty text where none is set, which admission refuses with its place."""
    return tuple(given.tokens.ids) if given.WhichOneof("input") == "tokens" else given.text


def _purpose_from(number: int) -> EmbedPurpose:
    try:
        return EmbedPurpose(number)
    except ValueError:
        text = f"purpose is {number}, which the contract does not have; set one of {', '.join(purpose.name for purpose in EmbedPurpose)}"
        raise RequestInvalid(text, violations=(Violation("purpose", f"{number} is not known"),)) from None
