"""Embedding upstreams: an HTTP server that makes vectors of what it is asked for, and a provider whose failures a test writes."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from kit.provider_double import StillClock
from kit.provider_upstream import Conversation, Reply
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.breaker import CircuitPolicy
from provider_gateway.domain.catalogue import Catalogue
from provider_gateway.domain.concurrency import ConcurrencyPolicy
from provider_gateway.domain.embeddings import EmbedInput, EmbedResult
from provider_gateway.domain.models import ModelTraits
from provider_gateway.domain.naming import Names
from provider_gateway.operations.attempts import Attempts
from provider_gateway.operations.course import Manners
from provider_gateway.operations.embeddings import Embeddings
from provider_gateway.operations.health import Health
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.ports import EmbedCall
from provider_gateway.operations.recording import SILENCE, Recorder
from provider_gateway.operations.retries import RetryBudget, RetryPolicy
from provider_gateway.operations.routes import Access, Routes
from provider_gateway.operations.signals import OwnSignals
from provider_gateway.operations.spending import Spending, Unbounded


def number_of(given: EmbedInput) -> float:
    """The number that stands for an input, the first of its vector: its length."""
    return float(len(given))


def embedding_server(*, shuffled: bool = False) -> Reply:
    """Answers as OpenAI does: three numbers for each input, in base64 where it is asked for, a token for each character."""

    async def reply(conversation: Conversation) -> None:
        asked = conversation.received.document
        vectors = [[number_of(given), 0.5, -1.0] for given in asked["input"]]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        if asked.get("encoding_format") == "base64":
            for item in data:
                item["embedding"] = base64.b64encode(struct.pack("<3f", *vectors[item["index"]])).decode()  # type: ignore[call-overload]
        tokens = sum(len(given) for given in asked["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        document = {"object": "list", "data": data[::-1] if shuffled else data, "model": asked["model"], "usage": usage}
        body = json.dumps(document).encode()
        await conversation.head(200, content_type="application/json", content_length=str(len(body)))
        await conversation.send(body)

    return reply


Play = Callable[[EmbedCall], Awaitable[None]]


async def at_once(call: EmbedCall) -> None:
    """Nothing happens before the answer."""


@dataclass
class EmbedDouble:
    """A provider that runs `play` for each call and then embeds; it counts how many were under way together."""

    play: Play = at_once
    embed_limit: int = 2
    embed_tokens: int = 0
    name: str = "double"
    adapter: str = "openai"
    base_url: str = ""
    calls: list[EmbedCall] = field(default_factory=list)
    under_way: int = 0
    most: int = 0

    def problem(self) -> str:
        return ""

    async def embed(self, call: EmbedCall) -> EmbedResult:
        self.calls.append(call)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            await self.play(call)
        finally:
            self.under_way -= 1
        inputs = call.request.inputs
        return EmbedResult(tuple((number_of(given), 0.5) for given in inputs), Usage(len(inputs)), self.name, "m-1")


@dataclass
class EmbedBench:
    """The operation around one double."""

    provider: EmbedDouble
    clock: StillClock = field(default_factory=StillClock)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    traits: ModelTraits = field(default_factory=ModelTraits)
    recorder: Recorder = SILENCE
    spending: Spending = field(default_factory=Unbounded)

    def embeddings(self) -> Embeddings:
        """The operation."""
        access = Access(self.provider, TimeLimits(), RetryBudget(self.policy))  # type: ignore[arg-type] # it embeds and does nothing else
        catalogue = Catalogue({"double": {"m": self.traits}})
        health = Health(CircuitPolicy(), lambda provider: ConcurrencyPolicy(), self.clock, OwnSignals(self.clock))
        names = Names(["double"], {}, {})
        routes = Routes({"double": access}, catalogue, names, lambda adapter, model: None, health, lambda: 0.0)
        attempts = Attempts(health, Manners(self.policy, lambda: 1.0), self.clock, self.spending)
        return Embeddings(routes, attempts, self.recorder)


def lengths(inputs: Sequence[EmbedInput]) -> list[float]:
    """The first numbers of the vectors that these inputs get."""
    return [number_of(given) for given in inputs]
