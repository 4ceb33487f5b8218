"""Writes and reads batchEmbedContents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from provider_gateway.adapters.gemini.contents import PROVIDER
from provider_gateway.adapters.gemini.decode import usage_of
from provider_gateway.adapters.gemini.shapes import EMBEDDINGS
from provider_gateway.adapters.wire import malformed, not_expressible
from provider_gateway.domain.answers import RequestWarning, Usage
from provider_gateway.domain.embeddings import EmbedInput, EmbedPurpose, EmbedResult
from provider_gateway.operations.ports import EmbedCall

Body = dict[str, Any]

MOST_INPUTS = 100  # of one batch: the API refuses more
_TASKS: Mapping[EmbedPurpose, str] = {EmbedPurpose.QUERY: "RETRIEVAL_QUERY", EmbedPurpose.DOCUMENT: "RETRIEVAL_DOCUMENT"}
_TASK_WORDS: Mapping[EmbedPurpose, str] = {
    EmbedPurpose.QUERY: "task: search result | query: ",
    EmbedPurpose.DOCUMENT: "title: none | text: ",
}
_TAKE_WORDS = ("gemini-embedding-2",)
"""Models that are told the purpose within the text, in these words: https://ai.google.dev/gemini-api/docs/embeddings"""


def embed_body(call: EmbedCall, resource: str) -> tuple[Body, tuple[RequestWarning, ...]]:
    """The request, and what was left out of it; `resource` is the model's name in the API."""
    purpose, dimensions = call.request.purpose, call.request.dimensions
    by_words = resource.rpartition("/")[2].startswith(_TAKE_WORDS)
    words = _TASK_WORDS.get(purpose, "") if by_words else ""
    settings: Body = {"taskType": _TASKS[purpose]} if purpose in _TASKS and not by_words else {}
    if dimensions is not None:
        settings["outputDimensionality"] = dimensions
    texts = [words + _text(f"inputs[{place}].tokens", given) for place, given in enumerate(call.request.inputs)]
    requests = [{"model": resource, "content": {"parts": [{"text": text}]}, **settings} for text in texts]
    return {"requests": requests}, _left_out(call.request.metadata)


def embed_result(provider: str, body: bytes, call: EmbedCall) -> EmbedResult:
    """The vectors, one for each input, in order."""
    try:
        answer = EMBEDDINGS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", body) from None
    usage = usage_of(answer.usage_metadata) if answer.usage_metadata else Usage()
    return EmbedResult(tuple(embedding.values for embedding in answer.embeddings), usage, provider, call.model)


def _left_out(metadata: Mapping[str, str]) -> tuple[RequestWarning, ...]:
    if not metadata:
        return ()
    return (RequestWarning("metadata", f"{', '.join(sorted(metadata))} stay in behest's records; {PROVIDER} takes none"),)


def _text(path: str, given: EmbedInput) -> str:
    if isinstance(given, str):
        return given
    raise not_expressible(path, PROVIDER, "it takes texts, not tokens; send the text")
