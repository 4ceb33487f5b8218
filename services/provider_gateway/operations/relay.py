"""Passes the attempts of one streamed call on to its reader, who sees one answer whatever it took."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from chassis.faults import Fault, StreamIncomplete
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
from provider_gateway.operations.seams import Seams
from provider_gateway.operations.spending import Reservation


class Relay:
    """The reader's side of one call. What comes before the first output is held back, so that an attempt without output leaves no trace.

    With `seams` an attempt may go on with what others have delivered.
    """

    def __init__(self, buffer: EventBuffer, record: Record, course: Course[Target], seams: Seams | None = None) -> None:
        self._buffer, self._record, self._course, self._seams = buffer, record, course, seams

    async def once(self, target: Target, place: Place, reservation: Reservation) -> None:
        """One attempt, to its end marker."""
        piece = _Piece(target, self._seams)
        try:
            if target.streams:
                await self._streamed(piece, place, reservation)
            else:
                events = burst(priced(await target.access.provider.complete(target.call), target.traits.price))
                characters = heard(reservation, events)
                place.claim()
                self._put(events, characters, piece)
        except Fault as fault:
            if piece.begun:
                self._broke(target, fault)
            raise

    async def _streamed(self, piece: _Piece, place: Place, reservation: Reservation) -> None:
        target, buffer, held = piece.target, self._buffer, list[ChatEvent]()
        access, price, provider, put = target.access, target.traits.price, target.access.provider, self._put
        async with watched(provider.name, access.limits) as watch, aclosing(provider.stream(piece.call)) as batches:
            async for batch in batches:
                characters = heard(reservation, batch)
                if not watch.saw(batch, characters):  # and so what is held has no characters
                    held += batch
                    continue
                if held:
                    batch, held = [*held, *batch], []
                if not piece.begun:
                    place.claim()
                    place.began_output()
                if buffer.full:
                    await _room(buffer, watch)
                if batch:
                    put(batch if price is None else priced_events(batch, price), characters, piece)
        if not buffer.finished:
            raise StreamIncomplete(f"{provider.name} ended the stream without finishing", metadata={"provider": provider.name})

    def _put(self, events: Sequence[ChatEvent], characters: int, piece: _Piece) -> None:
        piece.begun = True
        if self._seams is not None:
            events = self._seams.taken(events, piece.target, piece.joins)
        self._record.saw(events)
        self._buffer.put(events, characters)

    def _broke(self, target: Target, fault: Fault) -> None:
        """Output was delivered: whoever is asked now must be able to go on with it."""
        if self._seams is None or self._buffer.finished:
            self._course.settle(fault, _nobody)
        else:
            self._seams.broke(target, fault)
            self._course.settle(fault, self._seams.fits)


class _Piece:
    """What one attempt adds to the answer."""

    __slots__ = ("begun", "call", "joins", "target")

    def __init__(self, target: Target, seams: Seams | None) -> None:
        self.target, self.begun = target, False
        self.joins = seams is not None and seams.pending
        self.call = target.call if seams is None else seams.call(target)


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
        if kind is TextDelta or kind is ReasoningDelta or kind is RefusalDelta:
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
