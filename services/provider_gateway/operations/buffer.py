"""Between a provider that streams and a reader: what the reader has not fetched yet is gathered, bounded, and joined where it is alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby

from provider_gateway.domain.answers import ChatEvent, Finished, ReasoningDelta, TextDelta, ToolCallDelta, UsageReport

FULL = 512  # so many steps may wait for a reader who does not read
HEAVY = 1024 * 1024  # or so many characters


class EventBuffer:
    """A bounded buffer for one writer and one reader; iterate it to read. A reader gets all there is, at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: list[ChatEvent] = []
        self._weight = 0
        self._ended = False
        self._fault: BaseException | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.begun = False
        self.finished = False

    @property
    def full(self) -> bool:
        """Whether the writer shall wait."""
        return len(self._events) >= FULL or self._weight >= HEAVY

    async def room(self) -> None:
        """Waits until the reader has read."""
        while self.full:
            self._room = self._loop.create_future()
            await self._room

    def put(self, events: Sequence[ChatEvent], characters: int = 0) -> None:
        """Adds steps, which have so many characters of output; from now on the call has begun for the reader."""
        if events:
            self.begun = True
            self.finished = isinstance(events[-1], Finished)
            self._events.extend(events)
            self._weight += characters
            _wake(self._arrival)

    def end(self, fault: BaseException | None = None) -> None:
        """Nothing more will come; the reader gets what is left, then the fault."""
        self._ended, self._fault = True, fault
        _wake(self._arrival)

    def __aiter__(self) -> EventBuffer:
        return self

    async def __anext__(self) -> list[ChatEvent]:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration if self._fault is None else self._fault
            self._arrival = self._loop.create_future()
            await self._arrival
        events, self._events, self._weight = self._events, [], 0
        _wake(self._room)
        return merged(events)


def merged(events: list[ChatEvent]) -> list[ChatEvent]:
    """The same steps with neighbours joined that say the same thing in pieces; of several usage reports in a row the last counts."""
    if len(events) < 2:
        return events
    return [_joined(list(run)) for _, run in groupby(events, _kind)]


_ALIKE = (TextDelta, ReasoningDelta, UsageReport)


def _kind(event: ChatEvent) -> object:
    kind = type(event)
    if kind in _ALIKE:
        return kind
    return event.index if isinstance(event, ToolCallDelta) else id(event)


def _joined(run: list[ChatEvent]) -> ChatEvent:
    if len(run) == 1:
        return run[0]
    match run[-1]:
        case TextDelta():
            return TextDelta("".join(event.text for event in run if isinstance(event, TextDelta)))
        case ReasoningDelta():
            return ReasoningDelta("".join(event.text for event in run if isinstance(event, ReasoningDelta)))
        case ToolCallDelta(index):
            return ToolCallDelta(index, "".join(event.arguments for event in run if isinstance(event, ToolCallDelta)))
        case last:
            return last


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
