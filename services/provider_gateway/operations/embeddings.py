"""Turning texts into vectors: admit, route, cut into calls, attempt and attempt again, put together. All or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chassis.faults import CapabilityMissing, UpstreamFault
from chassis.world import Clock
from provider_gateway.domain.embeddings import EmbedRequest, EmbedResult, admit_embedding, batches, check_vectors, together
from provider_gateway.domain.estimate import estimate_inputs
from provider_gateway.operations.chats import SILENCE, Manners
from provider_gateway.operations.limits import whole_call
from provider_gateway.operations.ports import EmbedCall
from provider_gateway.operations.recording import Record, Recorder
from provider_gateway.operations.retries import Attempts
from provider_gateway.operations.routes import EmbedTarget, Routes
from provider_gateway.operations.spending import Expense, Spending, Unbounded

AT_ONCE = 4
"""Upstream calls of one request that are under way together: enough to hide their latency, too few to look like a flood."""

BATCH_TOKENS = 100_000
"""Estimated tokens in one upstream call: OpenAI takes 300,000, and the estimate may be low by half."""


class Embeddings:
    """Embeds texts."""

    def __init__(
        self, routes: Routes, manners: Manners, clock: Clock, recorder: Recorder = SILENCE, spending: Spending | None = None
    ) -> None:
        self._routes, self._manners, self._clock, self._recorder = routes, manners, clock, recorder
        self._spending = spending or Unbounded()

    async def embed(self, request: EmbedRequest, deadline: float | None) -> EmbedResult:
        """One vector for each input. `deadline` is a monotonic moment; the first call that fails for good ends the others."""
        admit_embedding(request)
        target = self._routes.embedding(request)
        calls = _calls(request, target)
        with self._recorder.recording(request, target, streamed=False) as record:
            work = _Work(target, record, self._manners, self._clock, self._spending, deadline)
            async with whole_call(target.access.provider.name, target.access.limits):
                result = together(await work.all(calls))
            record.embedded(result)
            return result


@dataclass(frozen=True, slots=True)
class _Work:
    """The upstream calls of one request."""

    target: EmbedTarget
    record: Record
    manners: Manners
    clock: Clock
    spending: Spending
    deadline: float | None

    async def all(self, calls: Sequence[EmbedCall]) -> list[EmbedResult]:
        """The results in the order of the calls, a few calls at once."""
        if len(calls) == 1:
            return [await self.one(calls[0])]
        room = asyncio.Semaphore(AT_ONCE)

        async def in_turn(call: EmbedCall) -> EmbedResult:
            async with room:
                return await self.one(call)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_turn(call)) for call in calls]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def one(self, call: EmbedCall) -> EmbedResult:
        """One call, repeated as the manners allow."""
        access = self.target.access
        access.budget.earn()
        attempts = Attempts(self.manners.retries, access.budget, self.clock, self.manners.jitter, self.deadline)
        while True:
            try:
                return await self._attempt(call)
            except UpstreamFault as fault:
                self.record.failed(fault)
                await attempts.pause(fault)

    async def _attempt(self, call: EmbedCall) -> EmbedResult:
        provider, price = self.target.access.provider, self.target.traits.price
        tokens = estimate_inputs(call.request.inputs)
        expense = Expense(provider.name, call.model, call.request.budget_key, tokens, 0, price)
        async with self.spending.reserve(expense) as reservation:
            result = await provider.embed(call)
            usage = result.usage
            if price is not None:
                usage = replace(usage, cost_nano_usd=price.of(usage), cost_known=True)
            reservation.used(usage)
            check_vectors(result, call.request)
        return replace(result, usage=usage)


def _calls(request: EmbedRequest, target: EmbedTarget) -> list[EmbedCall]:
    """The request cut into upstream calls. Raises CapabilityMissing where the provider embeds nothing."""
    provider = target.access.provider
    if provider.embed_limit < 1:
        raise CapabilityMissing(
            f"{provider.name} embeds nothing: its adapter, {provider.adapter}, has no words for it; choose another provider",
            metadata={"model": f"{provider.name}/{target.model}", "missing": "embeddings"},
        )
    weights = [estimate_inputs((given,)) for given in request.inputs]
    cuts = batches(request.inputs, weights, provider.embed_limit, provider.embed_tokens or BATCH_TOKENS)
    return [EmbedCall(replace(request, inputs=request.inputs[cut]), target.model) for cut in cuts]
