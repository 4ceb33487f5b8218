"""Turning texts into vectors: admit, route, cut into calls, attempt and attempt again, put together. All or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chassis.faults import CapabilityMissing
from provider_gateway.domain.embeddings import EmbedRequest, EmbedResult, admit_embedding, batches, check_vectors, together
from provider_gateway.domain.estimate import estimate_inputs
from provider_gateway.operations.attempts import Attempt, Attempts, Call
from provider_gateway.operations.health import Place
from provider_gateway.operations.limits import whole_call
from provider_gateway.operations.ports import EmbedCall
from provider_gateway.operations.pricing import priced_usage
from provider_gateway.operations.recording import SILENCE, Record, Recorder
from provider_gateway.operations.routes import EmbedTarget, Routes
from provider_gateway.operations.spending import Expense, Reservation

AT_ONCE = 4
"""Upstream calls of one request that are under way together: enough to hide their latency, too few to look like a flood."""

BATCH_TOKENS = 100_000
"""Estimated tokens in one upstream call: OpenAI takes 300,000, and the estimate may be low by half."""


class Embeddings:
    """Embeds texts."""

    def __init__(self, routes: Routes, attempts: Attempts, recorder: Recorder = SILENCE) -> None:
        self._routes, self._attempts, self._recorder = routes, attempts, recorder

    async def embed(self, request: EmbedRequest, deadline: float | None) -> EmbedResult:
        """One vector for each input. `deadline` is a monotonic moment; the first call that fails for good ends the others."""
        admit_embedding(request)
        target = self._routes.embedding(request)
        calls = _calls(request, target)
        with self._recorder.recording(request, target, streamed=False) as record:
            async with whole_call(target.access.provider.name, target.access.limits) as bound:
                work = _Work(target, record, self._attempts, bound, deadline)
                result = together(await work.all(calls))
            record.embedded(result)
            return result


@dataclass(frozen=True, slots=True)
class _Work:
    """The upstream calls of one request."""

    target: EmbedTarget
    record: Record
    attempts: Attempts
    bound: asyncio.Timeout
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

        async def embedded(target: EmbedTarget, place: Place, reservation: Reservation) -> EmbedResult:
            return await _embedded(target, call, reservation)

        course = self.attempts.course((self.target,), self.deadline)
        attempt = Attempt(lambda target: _expense(target, call), embedded)
        return await self.attempts.made(Call(attempt, course, self.record, self.bound))


def _expense(target: EmbedTarget, call: EmbedCall) -> Expense:
    tokens = estimate_inputs(call.request.inputs)
    return Expense(target.access.provider.name, call.model, call.request.budget_key, tokens, 0, target.traits.price)


async def _embedded(target: EmbedTarget, call: EmbedCall, reservation: Reservation) -> EmbedResult:
    """One attempt at one upstream call."""
    result, price = await target.access.provider.embed(call), target.traits.price
    usage = result.usage if price is None else priced_usage(result.usage, price)
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
