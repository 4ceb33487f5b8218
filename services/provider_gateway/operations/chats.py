"""Answering a conversation: admit, route, attempt and attempt again, bound, price. At once or as a stream, by the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace

from chassis.faults import StreamIncomplete, UpstreamFault
from chassis.world import Clock
from provider_gateway.domain.admission import admit
from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, Usage, UsageReport, burst
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.models import Price
from provider_gateway.operations.buffer import EventBuffer
from provider_gateway.operations.limits import Watch, watched, whole_call
from provider_gateway.operations.recording import Record, Recorder, Silence
from provider_gateway.operations.retries import Attempts, RetryPolicy
from provider_gateway.operations.routes import Routes, Target

SILENCE = Silence()


@dataclass(frozen=True, slots=True)
class Manners:
    """How calls are made: when to retry, and the chance behind the jitter."""

    retries: RetryPolicy
    jitter: Callable[[], float]


class Chats:
    """Answers conversations."""

    def __init__(self, routes: Routes, manners: Manners, clock: Clock, recorder: Recorder = SILENCE) -> None:
        self._routes, self._manners, self._clock, self._recorder = routes, manners, clock, recorder

    async def complete(self, request: ChatRequest, deadline: float | None) -> ChatResult:
        """The whole answer. `deadline` is a monotonic moment; cancelling closes the upstream request."""
        target, attempts = self._begin(request, deadline)
        provider = target.access.provider
        with self._recorder.recording(request, target, streamed=False) as record:
            async with whole_call(provider.name, target.access.limits):
                while True:
                    try:
                        result = priced(await provider.complete(target.call), target.traits.price)
                        record.answered(result)
                        return result
                    except UpstreamFault as fault:
                        record.failed(fault)
                        await attempts.pause(fault)

    async def stream(self, request: ChatRequest, deadline: float | None) -> AsyncGenerator[list[ChatEvent], None]:
        """The answer as it comes; ends with Finished or raises. Closing the iterator closes the upstream request."""
        target, attempts = self._begin(request, deadline)
        buffer = EventBuffer()
        recording = self._recorder.recording(request, target, streamed=True)
        producer = asyncio.create_task(_produce(target, attempts, buffer, recording))
        try:
            async for batch in buffer:
                yield batch
        finally:
            if not producer.done():  # nearly always it is: it ended the buffer
                producer.cancel()
                await asyncio.wait([producer])

    def _begin(self, request: ChatRequest, deadline: float | None) -> tuple[Target, Attempts]:
        admit(request)
        target = self._routes.target(request)
        target.access.budget.earn()
        return target, Attempts(self._manners.retries, target.access.budget, self._clock, self._manners.jitter, deadline)


async def _produce(target: Target, attempts: Attempts, buffer: EventBuffer, recording: AbstractContextManager[Record]) -> None:
    """Fills the buffer; its end says how the call ended."""
    try:
        with recording as record:
            async with whole_call(target.access.provider.name, target.access.limits):
                while not await _attempted(target, attempts, buffer, record):
                    pass
    except Exception as error:  # noqa: BLE001 — the reader raises it
        buffer.end(error)
    else:
        buffer.end()


async def _attempted(target: Target, attempts: Attempts, buffer: EventBuffer, record: Record) -> bool:
    """Makes one attempt; False when another one is to be made. After output was delivered there is no other attempt."""
    try:
        if target.streams:
            await _relay(target, buffer, record)
        else:
            events = burst(priced(await target.access.provider.complete(target.call), target.traits.price))
            record.saw(events)
            buffer.put(events)
    except UpstreamFault as fault:
        record.failed(fault)
        if buffer.begun:
            raise
        await attempts.pause(fault)
        return False
    return True


async def _relay(target: Target, buffer: EventBuffer, record: Record) -> None:
    """Passes one stream on. What comes before the first output is held back, so that an attempt without output leaves no trace."""
    access, held = target.access, list[ChatEvent]()
    async with watched(access.provider.name, access.limits) as watch, aclosing(access.provider.stream(target.call)) as batches:
        async for batch in batches:
            watch.saw(batch)
            held += batch
            if held and watch.has_output:
                await _make_room(buffer, watch)
                events = _priced_events(held, target.traits.price)
                record.saw(events)
                buffer.put(events)
                held.clear()
    if not buffer.finished:
        raise StreamIncomplete(f"{access.provider.name} ended the stream without finishing", metadata={"provider": access.provider.name})


async def _make_room(buffer: EventBuffer, watch: Watch) -> None:
    if buffer.full:
        watch.rest()
        await buffer.room()
        watch.resume()


def priced(result: ChatResult, price: Price | None) -> ChatResult:
    """The result with what it cost."""
    return result if price is None else replace(result, usage=_priced_usage(result.usage, price))


def _priced_usage(usage: Usage, price: Price) -> Usage:
    return replace(usage, cost_nano_usd=price.of(usage), cost_known=True)


def _priced_events(events: list[ChatEvent], price: Price | None) -> list[ChatEvent]:
    return events.copy() if price is None else [_priced_event(event, price) for event in events]


def _priced_event(event: ChatEvent, price: Price) -> ChatEvent:
    match event:
        case UsageReport(usage):
            return UsageReport(_priced_usage(usage, price))
        case Finished(result):
            return Finished(priced(result, price))
    return event
