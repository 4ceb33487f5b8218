"""Answering a conversation: admit, route, attempt, bound. At once or as a stream, by the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from provider_gateway.domain.admission import admit
from provider_gateway.domain.answers import ChatEvent, ChatResult
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.estimate import estimate_input
from provider_gateway.operations.attempts import Attempt, Attempts, Call
from provider_gateway.operations.buffer import EventBuffer
from provider_gateway.operations.health import Place
from provider_gateway.operations.limits import whole_call
from provider_gateway.operations.ports import ModelCall
from provider_gateway.operations.pricing import priced
from provider_gateway.operations.recording import SILENCE, Record, Recorder
from provider_gateway.operations.relay import Relay
from provider_gateway.operations.routes import Route, Routes, Target
from provider_gateway.operations.seams import Seams
from provider_gateway.operations.spending import Expense, Reservation


class Chats:
    """Answers conversations."""

    def __init__(self, routes: Routes, attempts: Attempts, recorder: Recorder = SILENCE) -> None:
        self._routes, self._attempts, self._recorder = routes, attempts, recorder

    async def complete(self, request: ChatRequest, deadline: float | None) -> ChatResult:
        """The whole answer. `deadline` is a monotonic moment; cancelling closes the upstream request."""
        admit(request)
        route = self._routes.route(request)
        with self._recorder.recording(request, route.first, streamed=False) as record:
            async with whole_call(route.first.access.provider.name, route.first.access.limits) as bound:
                course = self._attempts.course(route.targets, deadline)
                result = await self._attempts.made(Call(_WHOLE, course, record, bound, route.hedge))
                record.answered(result)
                return result

    async def stream(self, request: ChatRequest, deadline: float | None) -> AsyncGenerator[list[ChatEvent], None]:
        """The answer as it comes; ends with Finished or raises. Closing the iterator closes the upstream request."""
        admit(request)
        route = self._routes.route(request)
        buffer = EventBuffer()
        recording = self._recorder.recording(request, route.first, streamed=True)
        producer = asyncio.create_task(self._produce(route, deadline, buffer, recording))
        try:
            async for batch in buffer:
                yield batch
        finally:
            if not producer.done():  # nearly always it is: it ended the buffer
                producer.cancel()
                await asyncio.wait([producer])

    async def _produce(self, route: Route, deadline: float | None, buffer: EventBuffer, recording: AbstractContextManager[Record]) -> None:
        """Fills the buffer; its end says how the call ended."""
        try:
            with recording as record:
                async with whole_call(route.first.access.provider.name, route.first.access.limits) as bound:
                    course = self._attempts.course(route.targets, deadline)
                    seams = Seams(route.first.call.request) if route.continues else None
                    attempt = Attempt(_Streamed(seams).expense, Relay(buffer, record, course, seams).once)
                    await self._attempts.made(Call(attempt, course, record, bound, route.hedge))
        except Exception as error:  # noqa: BLE001 — the reader raises it
            buffer.end(error)
        else:
            buffer.end()


def _expense(target: Target, call: ModelCall) -> Expense:
    """What an attempt may cost at most."""
    return Expense(
        provider=target.access.provider.name,
        model=call.model,
        budget_key=call.request.budget_key,
        input_tokens=estimate_input(call.request),
        output_tokens=call.request.sampling.max_output_tokens or call.max_output_tokens or None,
        price=target.traits.price,
    )


@dataclass(frozen=True, slots=True)
class _Streamed:
    """What attempts at a stream cost, of which one may go on with what others have delivered."""

    seams: Seams | None

    def expense(self, target: Target) -> Expense:
        """What the attempt may cost at most."""
        return _expense(target, target.call if self.seams is None else self.seams.call(target))


async def _completed(target: Target, place: Place, reservation: Reservation) -> ChatResult:
    """One attempt at a whole answer."""
    result = priced(await target.access.provider.complete(target.call), target.traits.price)
    reservation.used(result.usage)
    return result


_WHOLE = Attempt(lambda target: _expense(target, target.call), _completed)
