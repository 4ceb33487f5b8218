"""Commands that come as records: carried out once, in order, or put aside with the reason. Knows no broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from chassis.faults import CallCancelled, CommandExpired, DeadlineExceeded, Fault, Internal, RunsExhausted, UnknownFault
from chassis.waypoints import waypoint
from chassis.world import Clock
from orchestrator.operations.ports import AWAY, Patience

MOST_AGE = 23 * 3600.0
"""Seconds. The store knows a request id for 24 hours, which tells a command from its repetition; an hour is for clocks that differ."""

WAITS = (*AWAY, RunsExhausted, DeadlineExceeded, CallCancelled)
"""Faults that pass: the command is tried again until they have."""

MOST_DEFECTS = 5
"""Attempts at a command that each ended in an internal error, before it is put aside: it may be the command that brings them about."""

_logger = structlog.get_logger("orchestrator.commands")


@dataclass(frozen=True, slots=True)
class Letter:
    """A record of the topic of commands as it came. `time` is in seconds since the epoch, as the topic says it."""

    topic: str
    partition: int
    offset: int
    time: float
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    def place(self) -> dict[str, str | int]:
        """Where it stands, for logs."""
        return {"topic": self.topic, "partition": self.partition, "offset": self.offset}


class Orders(Protocol):
    """What commands ask for."""

    async def carry_out(self, letter: Letter) -> None:
        """Returns when the log has what the letter asks for; the same letter again changes nothing. Raises faults."""


class DeadLetters(Protocol):
    """Where letters go that cannot be carried out."""

    async def put(self, letter: Letter, fault: Fault) -> None:
        """Returns when the letter is kept with the reason; waits for that as long as it takes."""


class CommandDesk:
    """Settles letters, at most `room` at the same time. A letter that waits for a fault to pass takes no room meanwhile."""

    def __init__(self, orders: Orders, dead_letters: DeadLetters, clock: Clock, patience: Patience, room: int) -> None:
        self._orders = orders
        self._dead_letters = dead_letters
        self._clock = clock
        self._patience = patience
        self._room = asyncio.Semaphore(room)

    async def settle(self, letter: Letter) -> None:
        """Returns when the letter is carried out or put aside. May be cancelled and called again with the same letter."""
        fault = await self._refusal(letter)
        if fault is not None:
            await self._dead_letters.put(letter, fault)
            _logger.warning("command put aside", **letter.place(), reason=fault.reason, problem=fault.message)
        waypoint("commands.settled")

    async def _refusal(self, letter: Letter) -> Fault | None:
        """Why it cannot be carried out, once that is certain; None once it is."""
        backoff, failures, defects = self._patience.backoff, 0, 0
        while True:
            fault = await self._attempt(letter)
            defects += isinstance(fault, Internal)
            if fault is None or not _passes(fault, defects):
                return fault
            if failures == 0:
                _logger.warning("command waits", **letter.place(), reason=fault.reason, problem=fault.message)
            failures += 1
            await self._clock.sleep(max(backoff, min(fault.retry_after or 0.0, self._patience.longest_backoff)))
            backoff = min(2 * backoff, self._patience.longest_backoff)

    async def _attempt(self, letter: Letter) -> Fault | None:
        age = self._clock.now() - letter.time
        if age > MOST_AGE:
            return _expired(age)
        async with self._room:
            try:
                await self._orders.carry_out(letter)
            except Fault as fault:
                return fault
        return None


def _passes(fault: Fault, defects: int) -> bool:
    if isinstance(fault, Internal):
        return defects < MOST_DEFECTS
    return isinstance(fault, WAITS) or (isinstance(fault, UnknownFault) and fault.retryable)


def _expired(age: float) -> CommandExpired:
    text = (
        f"the command is {age / 3600:.1f} hours old; after {MOST_AGE / 3600:.0f} it cannot be told whether it was carried out before: "
        "look at its session, and send it again with a new ce_id if it was not"
    )
    return CommandExpired(text, metadata={"age_seconds": str(int(age))})
