"""The Chat Completions protocol as one value: what the HTTP provider is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chassis.faults import Fault, ProviderRequestRefused
from provider_gateway.adapters.openai.decode import OpenAiReader, OpenAiStream, completion
from provider_gateway.adapters.openai.dialect import Dialect
from provider_gateway.adapters.openai.embed import decoded_vectors, encoded_inputs
from provider_gateway.adapters.openai.encode import OpenAiEncoder
from provider_gateway.adapters.wire import Encoded, Wordless, malformed
from provider_gateway.domain.answers import ChatResult
from provider_gateway.domain.embeddings import EmbedResult
from provider_gateway.operations.ports import EmbedCall, ModelCall

PATH = "/chat/completions"


@dataclass(frozen=True, slots=True)
class OpenAiWire(Wordless):
    """Chat Completions as the provider configured under `provider` speaks it.

    State of one server means nothing to another that speaks the same protocol, so it is marked with the provider's name too.
    """

    provider: str
    dialect: Dialect = field(default_factory=Dialect)
    adapter: str = "openai"

    @property
    def origin(self) -> str:
        """Whose opaque state this is."""
        return f"{self.adapter}/{self.provider}"

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def encode(self, call: ModelCall, *, stream: bool) -> Encoded:
        """The request."""
        encoder = OpenAiEncoder(self.origin, self.dialect, [])
        body = encoder.body(call, stream)
        return Encoded(PATH, body, tuple(encoder.warnings))

    def decode(self, body: bytes) -> ChatResult:
        """The answer that was given at once."""
        chunk = completion(self.provider, body)
        reader = OpenAiReader(self.origin, self.provider)
        reader.take(chunk, body)
        if reader.answer.finish is None and not chunk.choices:
            raise malformed(self.provider, "a completion without choices", body)
        return reader.result()

    def decoder(self) -> OpenAiStream:
        """A decoder for one streamed answer."""
        return OpenAiStream(self.origin, self.provider)

    @property
    def embed_limit(self) -> int:
        """Inputs that one call may have."""
        return self.dialect.embed_inputs

    @property
    def embed_tokens(self) -> int:
        """Tokens that they may have together."""
        return self.dialect.embed_tokens

    def encode_embed(self, call: EmbedCall) -> Encoded:
        """The request for vectors."""
        return encoded_inputs(self.provider, self.dialect, call)

    def decode_embed(self, body: bytes, call: EmbedCall) -> EmbedResult:
        """The vectors."""
        return decoded_vectors(self.provider, body)

    def relaxed(self, fault: Fault) -> OpenAiWire | None:
        """The same protocol without the optional field that fault complains about."""
        if not isinstance(fault, ProviderRequestRefused):
            return None
        if self.dialect.stream_usage and ("stream_options" in fault.message or "include_usage" in fault.message):
            return replace(self, dialect=replace(self.dialect, stream_usage=False))
        if self.dialect.vectors_base64 and "encoding_format" in fault.message:
            return replace(self, dialect=replace(self.dialect, vectors_base64=False))
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[self.dialect.max_tokens_field]
        if f"'{self.dialect.max_tokens_field}'" in fault.message and f"'{other}'" in fault.message:
            return replace(self, dialect=replace(self.dialect, max_tokens_field=other))
        return None
