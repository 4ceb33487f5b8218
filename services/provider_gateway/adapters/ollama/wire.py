"""Ollama's protocol as one value: what the HTTP provider is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chassis.faults import Fault
from provider_gateway.adapters.http.ndjson import NdjsonParser
from provider_gateway.adapters.ollama.decode import OllamaReader, OllamaStream, answer_in, vectors_in
from provider_gateway.adapters.ollama.encode import OllamaEncoder
from provider_gateway.adapters.wire import Encoded, Wordless
from provider_gateway.domain.answers import ChatResult
from provider_gateway.domain.embeddings import EmbedResult
from provider_gateway.operations.ports import EmbedCall, ModelCall

CHAT, EMBED = "/api/chat", "/api/embed"
EMBED_INPUTS = 512


@dataclass(frozen=True, slots=True)
class OllamaWire(Wordless):
    """/api/chat and /api/embed as the provider configured under `provider` speaks them.

    `options` go with every request, such as num_ctx; `keep_alive` says how long the model stays loaded, as 10m.
    """

    provider: str
    options: Mapping[str, Any] = field(default_factory=dict)
    keep_alive: str = ""
    adapter: str = "ollama"

    @property
    def origin(self) -> str:
        """Whose opaque state this is."""
        return f"{self.adapter}/{self.provider}"

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key, which only Ollama's cloud wants."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def encode(self, call: ModelCall, *, stream: bool) -> Encoded:
        """The request."""
        encoder = self._encoder()
        return Encoded(CHAT, encoder.chat(call, stream), tuple(encoder.warnings))

    def decode(self, body: bytes) -> ChatResult:
        """The answer that was given at once."""
        reader = OllamaReader(self.origin, self.provider)
        reader.take(answer_in(self.provider, body), body)
        return reader.answer.result()

    def decoder(self) -> OllamaStream:
        """A decoder for one streamed answer."""
        return OllamaStream(self.origin, self.provider)

    def parser(self, max_event_bytes: int) -> NdjsonParser:
        """Streams are lines of JSON."""
        return NdjsonParser(max_event_bytes)

    @property
    def embed_limit(self) -> int:
        """So many that long vectors, written as decimal numbers, fit into one answer."""
        return EMBED_INPUTS

    def encode_embed(self, call: EmbedCall) -> Encoded:
        """The request for vectors."""
        encoder = self._encoder()
        return Encoded(EMBED, encoder.embed(call), tuple(encoder.warnings))

    def decode_embed(self, body: bytes, call: EmbedCall) -> EmbedResult:
        """The vectors."""
        return vectors_in(self.provider, body)

    def relaxed(self, _: Fault) -> OllamaWire | None:
        """None: servers leave aside what they do not know."""
        return None

    def _encoder(self) -> OllamaEncoder:
        return OllamaEncoder(self.origin, self.options, self.keep_alive, [])
