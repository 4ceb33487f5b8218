"""The Messages protocol as one value: what the HTTP provider is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chassis.faults import Fault
from provider_gateway.adapters.anthropic.decode import AnthropicStream, message_result
from provider_gateway.adapters.anthropic.encode import AnthropicEncoder
from provider_gateway.adapters.counting import count_in, counted_part
from provider_gateway.adapters.wire import Encoded, Wordless
from provider_gateway.domain.answers import ChatResult
from provider_gateway.operations.ports import ModelCall

PATH = "/v1/messages"
VERSION = "2023-06-01"
COUNT_PATH = "/v1/messages/count_tokens"
COUNTED = frozenset({"model", "system", "messages", "tools", "tool_choice", "thinking", "output_config"})
"""What the method takes of a request; the rest it refuses."""


@dataclass(frozen=True, slots=True)
class AnthropicWire(Wordless):
    """Messages as the provider configured under `provider` speaks it. Its state is good at every server that serves Claude."""

    provider: str
    adapter: str = "anthropic"

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key and the version."""
        version = {"anthropic-version": VERSION}
        return version | {"x-api-key": key} if key else version

    def encode(self, call: ModelCall, *, stream: bool) -> Encoded:
        """The request."""
        encoder = AnthropicEncoder([])
        body = encoder.body(call, stream)
        return Encoded(PATH, body, tuple(encoder.warnings))

    def decode(self, body: bytes) -> ChatResult:
        """The answer that was given at once."""
        return message_result(self.provider, body)

    def decoder(self) -> AnthropicStream:
        """A decoder for one streamed answer."""
        return AnthropicStream(self.provider)

    def encode_count(self, call: ModelCall) -> Encoded:
        """The request that counts input tokens."""
        return Encoded(COUNT_PATH, counted_part(self.encode(call, stream=False).body, COUNTED))

    def decode_count(self, body: bytes) -> int:
        """The count."""
        return count_in(self.provider, body, "input_tokens")

    def relaxed(self, _: Fault) -> AnthropicWire | None:
        """None: the gateway sends no field that a server could do without."""
        return None
