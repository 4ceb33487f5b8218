"""Claude behind HTTP: one answer, however often it pauses on the way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from provider_gateway.adapters.anthropic.pauses import following, joined, paused, resumed
from provider_gateway.adapters.http.provider import HttpProvider
from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished
from provider_gateway.operations.ports import ModelCall

MOST_PAUSES = 10
"""Pauses that are gone on after. An answer that pauses once more ends there, as unknown, and can be gone on with by sending it back."""


class AnthropicProvider(HttpProvider):
    """A provider that speaks Messages. What a paused answer consumed is part of what the whole did."""

    async def complete(self, call: ModelCall) -> ChatResult:
        """The whole answer, asked for without streaming."""
        result = await super().complete(call)
        pauses = 0
        while paused(result) and pauses < MOST_PAUSES:
            pauses += 1
            result = joined(result, await super().complete(resumed(call, result)))
        return result

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[ChatEvent], None]:
        """The answer as it comes."""
        first: ChatResult | None = None
        for pauses in range(MOST_PAUSES + 1):
            asked, goes_on = call if first is None else resumed(call, first), False
            async with aclosing(super().stream(asked)) as batches:
                async for batch in batches:
                    told = batch if first is None else following(first, batch)
                    last = told[-1] if told else None
                    if isinstance(last, Finished) and paused(last.result) and pauses < MOST_PAUSES:
                        first, goes_on, told = last.result, True, told[:-1]
                    yield told
            if not goes_on:
                return
