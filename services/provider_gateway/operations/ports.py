"""What the gateway's operations need of the outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from provider_gateway.domain.answers import ChatEvent, ChatResult
from provider_gateway.domain.calls import EndedCall
from provider_gateway.domain.chat import CachingMode, ChatRequest, PromptCaching
from provider_gateway.domain.embeddings import EmbedRequest, EmbedResult

EXPLICIT = PromptCaching(CachingMode.EXPLICIT)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One attempt at one model: the request, and the model in the provider's words.

    `max_output_tokens` is what the model can write at most, for providers that want a number; 0 when unknown.
    `caching` is how the prompt is cached, as the request wishes, the gateway is configured and the model is able to.
    """

    request: ChatRequest
    model: str
    max_output_tokens: int = 0
    caching: PromptCaching = EXPLICIT


class Provider(Protocol):
    """One configured provider. A new protocol is one folder below adapters/ with one of these.

    Calls raise UpstreamFaults, and FieldNotExpressible before anything is sent. Cancelling them closes what they opened.
    """

    @property
    def name(self) -> str:
        """The name it is configured under."""

    @property
    def adapter(self) -> str:
        """The adapter that speaks to it."""

    @property
    def base_url(self) -> str:
        """Where it is reached; empty without network."""

    def problem(self) -> str:
        """Why it cannot be called and what to do; empty when it can."""

    async def complete(self, call: ModelCall) -> ChatResult:
        """The whole answer."""

    def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[ChatEvent], None]:
        """The answer as it comes: batches in order, the last one ends with Finished. An empty batch says that the provider is alive."""

    @property
    def embed_limit(self) -> int:
        """Inputs that one upstream call may have; 0 when the provider embeds nothing."""

    @property
    def embed_tokens(self) -> int:
        """Tokens that the inputs of one upstream call may have together; 0 where nothing tighter than the gateway's own bound is known."""

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """One vector for each input. Raises CapabilityMissing where the provider embeds nothing."""

    async def count(self, call: ModelCall) -> int | None:
        """Input tokens as the provider counts them; None where it offers no such thing."""


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """One attempt at one embedding model: inputs that fit into one upstream call, and the model in the provider's words."""

    request: EmbedRequest
    model: str


class Calls(Protocol):
    """Hears of every model call that has ended."""

    def ended(self, call: EndedCall) -> None:
        """Takes note. Never waits and never fails, for the call's answer waits for it."""
