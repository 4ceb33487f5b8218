"""The Responses protocol as one value: what the HTTP provider is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chassis.faults import Fault, ProviderRequestRefused
from provider_gateway.adapters.counting import count_in
from provider_gateway.adapters.openai import Dialect as VectorDialect
from provider_gateway.adapters.openai.embed import decoded_vectors, encoded_inputs
from provider_gateway.adapters.openai_responses.decode import ResponseStream, response_result
from provider_gateway.adapters.openai_responses.dialect import Dialect
from provider_gateway.adapters.openai_responses.encode import ResponsesEncoder
from provider_gateway.adapters.wire import Encoded, Wordless
from provider_gateway.domain.answers import ChatResult
from provider_gateway.domain.embeddings import EmbedResult
from provider_gateway.operations.ports import EmbedCall, ModelCall

PATH = "/responses"
COUNT_PATH = "/responses/input_tokens"
_VECTORS = VectorDialect()
_NO_REASONING = re.compile(r"(?i)encrypted content is not supported|reasoning\.encrypted_content|reasoning input items can only")


@dataclass(frozen=True, slots=True)
class OpenAiResponsesWire(Wordless):
    """Responses as the provider configured under `provider` speaks it.

    State of one server means nothing to another that speaks the same protocol, so it is marked with the provider's name too.
    """

    provider: str
    dialect: Dialect = field(default_factory=Dialect)
    adapter: str = "openai-responses"

    @property
    def origin(self) -> str:
        """Whose opaque state this is."""
        return f"{self.adapter}/{self.provider}"

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def encode(self, call: ModelCall, *, stream: bool) -> Encoded:
        """The request."""
        encoder = ResponsesEncoder(self.origin, self.dialect, call.model)
        body = encoder.body(call.request, stream)
        return Encoded(PATH, body, tuple(encoder.warnings))

    def decode(self, body: bytes) -> ChatResult:
        """The answer that was given at once."""
        return response_result(self.origin, self.provider, body)

    def decoder(self) -> ResponseStream:
        """A decoder for one streamed answer."""
        return ResponseStream(self.origin, self.provider)

    @property
    def embed_limit(self) -> int:
        """Inputs that one call may have. Servers of this protocol have the vendor's one endpoint for vectors, beside it."""
        return _VECTORS.embed_inputs

    def encode_embed(self, call: EmbedCall) -> Encoded:
        """The request for vectors."""
        return encoded_inputs(self.provider, _VECTORS, call)

    def decode_embed(self, body: bytes, call: EmbedCall) -> EmbedResult:
        """The vectors."""
        return decoded_vectors(self.provider, body)

    def encode_count(self, call: ModelCall) -> Encoded | None:
        """The request that counts; None where the server is not known to count."""
        if not self.dialect.counts:
            return None
        encoder = ResponsesEncoder(self.origin, self.dialect, call.model)
        return Encoded(COUNT_PATH, encoder.prompt(call.request), tuple(encoder.warnings))

    def decode_count(self, body: bytes) -> int:
        """The count."""
        return count_in(self.provider, body, "input_tokens")

    def relaxed(self, fault: Fault) -> OpenAiResponsesWire | None:
        """The same protocol without reasoning for a model that said it has none: it refuses to encrypt any, and to be given any."""
        model = fault.metadata.get("model")
        if (
            not model
            or model in self.dialect.plain
            or not isinstance(fault, ProviderRequestRefused)
            or not _NO_REASONING.search(fault.message)
        ):
            return None
        return replace(self, dialect=replace(self.dialect, plain=self.dialect.plain | {model}))
