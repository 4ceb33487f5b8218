"""The generateContent protocol as one value: what the HTTP provider is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from chassis.faults import Fault
from provider_gateway.adapters.counting import count_in
from provider_gateway.adapters.gemini.decode import GeminiStream, response_result
from provider_gateway.adapters.gemini.embeddings import MOST_INPUTS, embed_body, embed_result
from provider_gateway.adapters.gemini.encode import GeminiEncoder
from provider_gateway.adapters.wire import Encoded, Wordless, json_bytes
from provider_gateway.domain.answers import ChatResult
from provider_gateway.domain.embeddings import EmbedResult
from provider_gateway.operations.ports import EmbedCall, ModelCall


@dataclass(frozen=True, slots=True)
class GeminiWire(Wordless):
    """generateContent as the provider configured under `provider` speaks it. Its state is good at every server that serves Gemini.

    `vertex` is the dialect of Vertex AI, which counts in other words and embeds by another protocol.
    """

    provider: str
    vertex: bool = False
    adapter: str = "gemini"

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        return {"x-goog-api-key": key} if key else {}

    def encode(self, call: ModelCall, *, stream: bool) -> Encoded:
        """The request."""
        encoder = GeminiEncoder([])
        body = encoder.body(call)
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return Encoded(_path(call.model, verb), json_bytes(body), tuple(encoder.warnings))

    def decode(self, body: bytes) -> ChatResult:
        """The answer that was given at once."""
        return response_result(self.provider, body)

    def decoder(self) -> GeminiStream:
        """A decoder for one streamed answer."""
        return GeminiStream(self.provider)

    @property
    def embed_limit(self) -> int:
        """Inputs that one call may have."""
        return 0 if self.vertex else MOST_INPUTS

    def encode_embed(self, call: EmbedCall) -> Encoded:
        """The request for vectors."""
        if self.vertex:
            return Wordless.encode_embed(self, call)
        body, warnings = embed_body(call, resource(call.model))
        return Encoded(_path(call.model, "batchEmbedContents"), json_bytes(body), warnings)

    def decode_embed(self, body: bytes, call: EmbedCall) -> EmbedResult:
        """The vectors, one for each input, in order."""
        return embed_result(self.provider, body, call)

    def encode_count(self, call: ModelCall) -> Encoded:
        """The request that counts input tokens: the whole request, so that tools and instructions are counted too."""
        encoder = GeminiEncoder([])
        body = encoder.body(call)
        if self.vertex:
            body.pop("toolConfig", None)
        else:
            body = {"generateContentRequest": {"model": resource(call.model), **body}}
        return Encoded(_path(call.model, "countTokens"), json_bytes(body), tuple(encoder.warnings))

    def decode_count(self, body: bytes) -> int:
        """The count."""
        return count_in(self.provider, body, "totalTokens")

    def relaxed(self, _: Fault) -> GeminiWire | None:
        """None: the gateway sends no field that a server could do without."""
        return None


def resource(model: str) -> str:
    """The model's name in the API: a bare one is among the vendor's models, one with a slash, such as tunedModels/mine, stands as it is."""
    return model if "/" in model else f"models/{model}"


def _path(model: str, verb: str) -> str:
    return f"/{quote(resource(model), safe='/@')}:{verb}"
