"""The Chat Completions protocol as one value: what the HTTP provider is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from chassis.faults import Fault, ProviderRequestRefused
from provider_gateway.adapters.counting import count_in, counted_part
from provider_gateway.adapters.openai.decode import OpenAiReader, OpenAiStream, completion
from provider_gateway.adapters.openai.dialect import Dialect
from provider_gateway.adapters.openai.embed import decoded_vectors, encoded_inputs
from provider_gateway.adapters.openai.encode import OpenAiEncoder
from provider_gateway.adapters.wire import Encoded, Wordless, malformed
from provider_gateway.domain.answers import ChatResult
from provider_gateway.domain.embeddings import EmbedResult
from provider_gateway.operations.ports import EmbedCall, ModelCall

PATH = "/chat/completions"
COUNT_PATH = "/tokenize"  # beside /v1
COUNTED = frozenset({"model", "messages", "tools", "chat_template_kwargs"})
"""What vLLM takes of a chat, which it renders by the model's own template, and counts."""


@dataclass(frozen=True, slots=True)
class OpenAiWire(Wordless):
    """Chat Completions as the provider configured under `provider` speaks it.

    State of one server means nothing to another that speaks the same protocol, so it is marked with the provider's name too.
    """

    provider: str
    dialect: Dialect = field(default_factory=Dialect)
    adapter: str = "openai"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Whose opaque state this is."""
        return f"{self.adapter}/{self.provider}"

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        if not key:
            return {}
        name = self.dialect.key_header
        return {name: f"Bearer {key}" if name == "authorization" else key}

    def encode(self, call: ModelCall, *, stream: bool) -> Encoded:
        """The request."""
        encoder = OpenAiEncoder(self.origin, self.dialect, [], self.extra)
        body = encoder.body(call, stream)
        return Encoded(self._path(call.model, PATH), body, tuple(encoder.warnings))

    def decode(self, body: bytes) -> ChatResult:
        """The answer that was given at once."""
        chunk = completion(self.provider, body)
        reader = OpenAiReader(self.origin, self.provider, self.dialect.think_tags)
        reader.take(chunk, body)
        if reader.answer.finish is None and not chunk.choices:
            raise malformed(self.provider, "a completion without choices", body)
        return reader.result()

    def decoder(self) -> OpenAiStream:
        """A decoder for one streamed answer."""
        return OpenAiStream(self.origin, self.provider, self.dialect.done_suffices, self.dialect.think_tags)

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
        encoded = encoded_inputs(self.provider, self.dialect, call)
        return replace(encoded, path=self._path(call.model, encoded.path))

    def decode_embed(self, body: bytes, call: EmbedCall) -> EmbedResult:
        """The vectors."""
        return decoded_vectors(self.provider, body)

    def encode_count(self, call: ModelCall) -> Encoded | None:
        """The request that counts input tokens; None for servers that do not."""
        if not self.dialect.counts:
            return None
        return Encoded(COUNT_PATH, counted_part(self.encode(call, stream=False).body, COUNTED), beside_v1=True)

    def decode_count(self, body: bytes) -> int:
        """The count."""
        return count_in(self.provider, body, "count")

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

    def _path(self, model: str, path: str) -> str:
        dialect = self.dialect
        version = f"?api-version={quote(dialect.api_version)}" if dialect.api_version else ""
        return f"/deployments/{quote(model, safe='')}{path}{version}" if dialect.deployments else f"{path}{version}"
