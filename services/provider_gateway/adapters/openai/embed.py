"""Embeddings as OpenAI and its followers have them: the request, and the vectors in it order or not, as numbers or in base64."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

import msgspec

from provider_gateway.adapters.http.refusals import refusal_in
from provider_gateway.adapters.openai.dialect import Dialect
from provider_gateway.adapters.wire import Encoded, RefusedInStream, json_bytes, malformed, not_expressible
from provider_gateway.domain.answers import RequestWarning, Usage
from provider_gateway.domain.embeddings import EmbedPurpose, EmbedResult
from provider_gateway.operations.ports import EmbedCall

PATH = "/embeddings"


class VectorShape(msgspec.Struct, gc=False):
    """One vector; servers that are not asked for base64, or do not know it, send numbers."""

    embedding: str | list[float]
    index: int | None = None


class UsageShape(msgspec.Struct, gc=False):
    """What it consumed."""

    prompt_tokens: int | None = None
    total_tokens: int | None = None


class VectorsShape(msgspec.Struct, gc=False):
    """The whole answer."""

    data: list[VectorShape] | None = None
    model: str | None = None
    usage: UsageShape | None = None
    error: Any = None


VECTORS = msgspec.json.Decoder(VectorsShape)


def encoded_inputs(provider: str, dialect: Dialect, call: EmbedCall) -> Encoded:
    """The request. The inputs of one call are all text or all tokens."""
    request, warnings = call.request, list[RequestWarning]()
    body: dict[str, Any] = {"model": call.model, "input": request.inputs}
    if not dialect.embeds_tokens and not isinstance(request.inputs[0], str):
        raise not_expressible("inputs[0].tokens", provider, "send text instead")
    if dialect.vectors_base64:
        body["encoding_format"] = "base64"
    if request.dimensions is not None:
        body[dialect.dimensions_field] = request.dimensions
    if request.purpose is not EmbedPurpose.UNSPECIFIED:
        warnings.append(RequestWarning("purpose", f"left out: {provider} makes the same vectors for every purpose"))
    user_field = dialect.user_field
    kept = sorted(set(request.metadata) - ({"user_id"} if user_field else set()))
    if kept:
        warnings.append(RequestWarning("metadata", f"{', '.join(kept)} stay in behest's records and are not sent to {provider}"))
    if user_field and "user_id" in request.metadata:
        body[user_field] = request.metadata["user_id"]
    return Encoded(PATH, json_bytes(body), tuple(warnings))


def decoded_vectors(provider: str, body: bytes) -> EmbedResult:
    """The vectors in the order of the inputs. Raises RefusedInStream or ProviderResponseInvalid."""
    try:
        answer = VECTORS.decode(body)
        if answer.error:
            raise RefusedInStream(refusal_in({"error": answer.error}))
        if answer.data is None:
            raise malformed(provider, "an answer without vectors", body)
        ordered = sorted(answer.data, key=lambda vector: vector.index or 0)  # stable: servers without index keep their order
        vectors = tuple([numbers(vector.embedding) for vector in ordered])
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, struct.error):
        raise malformed(provider, "something", body) from None
    return EmbedResult(vectors, _usage(answer.usage), provider, answer.model or "")


def numbers(vector: str | list[float]) -> tuple[float, ...]:
    """A vector's numbers; base64 holds 32-bit floats, the lowest byte first."""
    if isinstance(vector, list):
        return tuple(vector)
    data = base64.b64decode(vector, validate=True)
    return struct.unpack(f"<{len(data) // 4}f", data)


def _usage(usage: UsageShape | None) -> Usage:
    tokens = (usage.prompt_tokens or usage.total_tokens or 0) if usage else 0
    return Usage(input_tokens=tokens)
