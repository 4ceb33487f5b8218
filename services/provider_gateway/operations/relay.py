"""Passes the attempts of one streamed call on to its reader, who sees one answer whatever it took."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from chassis.faults import StreamIncomplete
from provider_gateway.domain.answers import (
    ChatEvent,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    burst,
)
from provider_gateway.operations.buffer import EventBuffer
from provider_gateway.operations.course import Course
from provider_gateway.operations.health import Place
from provider_gateway.operations.limits import Watch, watched
from provider_gateway.operations.pricing import priced, priced_events
from provider_gateway.operations.recording import Record
from provider_gateway.operations.routes import Target
from provider_gateway.operations.spending import Reservation


class Relay:
    """The reader's side of one call. What comes before the first output is held back, so that an attempt without output leaves no trace."""

    def __init__(self, buffer: EventBuffer, record: Record, course: Course[Target]) -> None:
        self._buffer, self._record, self._course = buffer, record, course

    async def once(self, target: Target, place: Place, reservation: Reservation) -> None:
        """One attempt, to its end marker."""
        if target.streams:
            await self._streamed(target, place, reservation)
        else:
            events = burst(priced(await target.access.provider.complete(target.call), target.traits.price))
            heard(reservation, events)
            self._put(events)

    async def _streamed(self, target: Target, place: Place, reservation: Reservation) -> None:
        access, held, price = target.access, list[ChatEvent](), target.traits.price
        provider, buffer, put = access.provider, self._buffer, self._put
        async with watched(provider.name, access.limits) as watch, aclosing(provider.stream(target.call)) as batches:
            async for batch in batches:
                heard(reservation, batch)
                if not watch.saw(batch):
                    held += batch
                    continue
                if held:
                    batch, held = [*held, *batch], []
                if batch:
                    if not buffer.begun:
                        place.began_output()
                    if buffer.full:
                        await _room(buffer, watch)
                    put(batch if price is None else priced_events(batch, price))
        if not buffer.finished:
            raise StreamIncomplete(f"{provider.name} ended the stream without finishing", metadata={"provider": provider.name})

    def _put(self, events: Sequence[ChatEvent]) -> None:
        if not self._buffer.begun:
            self._course.restrict(_nobody)
        self._record.saw(events)
        self._buffer.put(events)


async def _room(buffer: EventBuffer, watch: Watch) -> None:
    watch.rest()
    await buffer.room()
    watch.resume()


def _nobody(_: Target) -> bool:
    return False


def heard(reservation: Reservation, batch: Sequence[ChatEvent]) -> int:
    """Tells the reservation what a batch says of consumption; gives the characters of output in it."""
    characters = 0
    for event in batch:
        kind = type(event)
        if kind in _TEXTS:
            characters += len(event.text)  # type: ignore[union-attr] # by the line above, which is done for every token
        elif kind is ToolCallDelta:
            characters += len(event.arguments)  # type: ignore[union-attr]
        elif kind is UsageReport:
            reservation.used(event.usage)  # type: ignore[union-attr]
        elif kind is Finished:
            reservation.used(event.result.usage)  # type: ignore[union-attr]
    if characters:
        reservation.produced(characters)
    return characters


_TEXTS = (TextDelta, ReasoningDelta, RefusalDelta)
