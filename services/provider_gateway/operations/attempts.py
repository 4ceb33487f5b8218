"""Attempts at the targets of one call, one after the other, each with a place at its target and within its caps."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from chassis.faults import Fault, ProviderTimeout, UpstreamFault
from chassis.world import Clock
from provider_gateway.domain.routing import Hedge, Standing
from provider_gateway.operations.course import Course, Manners
from provider_gateway.operations.health import Health, Place
from provider_gateway.operations.race import Race
from provider_gateway.operations.recording import Record
from provider_gateway.operations.routes import Askable
from provider_gateway.operations.spending import Expense, Reservation, Spending, Unbounded

A = TypeVar("A", bound=Askable)
T = TypeVar("T")
UNBOUNDED = Unbounded()
KNOWN_LATENCIES = 20


class _Nothing(enum.Enum):
    FAILED = enum.auto()


FAILED: Final = _Nothing.FAILED
"""What an attempt gives that came to nothing: its fault is noted, and others may follow."""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[A, T]):
    """How something is asked of a target: what it may cost, and the asking.

    The asking tells the place of its first output, and the reservation of what it consumes.
    """

    expense: Callable[[A], Expense]
    ask: Callable[[A, Place, Reservation], Awaitable[T]]


@dataclass(slots=True)
class Call(Generic[A, T]):
    """One call under way: what is asked, its way over the targets, what is noted of it, and the bound on it all."""

    attempt: Attempt[A, T]
    course: Course[A]
    record: Record
    bound: asyncio.Timeout
    hedge: Hedge | None = None


class Attempts:
    """Makes attempts until one succeeds or the course is at its end."""

    def __init__(self, health: Health, manners: Manners, clock: Clock, spending: Spending = UNBOUNDED) -> None:
        self._health, self._manners, self._clock, self._spending = health, manners, clock, spending
        self._counted = not isinstance(spending, Unbounded)

    def course(self, targets: Sequence[A], deadline: float | None) -> Course[A]:
        """The way of one call over its targets. `deadline` is a monotonic moment."""
        return Course(targets, self._manners, self._health, self._clock, deadline)

    async def made(self, call: Call[A, T]) -> T:
        """What the attempt gave that succeeded; raises the fault that tells best why none did."""
        while True:
            target = await call.course.next()
            call.record.attempting(target)
            try:
                place = await self._health.enter(target.name)
            except UpstreamFault as fault:
                call.record.failed(fault)
                call.course.passed_over(target, fault)
                continue
            if call.hedge is None:
                result = await self._tried(call, target, place)
            else:
                result = await self._hedged(call, call.hedge, target, place)
            if result is not FAILED:
                return result

    async def _tried(self, call: Call[A, T], target: A, place: Place) -> T | _Nothing:
        """One attempt; raises its fault only where nobody is to be asked after it."""
        attempt = call.attempt
        try:
            if self._counted:  # what attempts may cost is looked at only where somebody counts
                async with self._spending.reserve(attempt.expense(target)) as reservation:
                    result = await attempt.ask(target, place, reservation)
            else:
                result = await attempt.ask(target, place, UNBOUNDED)
        except Fault as fault:
            place.failed(fault)
            call.record.attempting(target)
            call.record.failed(fault)
            call.course.failed(target, fault)
            return FAILED
        except BaseException as error:
            place.failed(ProviderTimeout("the call took too long") if call.bound.expired() else error)
            raise
        place.answered()
        return result

    async def _hedged(self, call: Call[A, T], hedge: Hedge, target: A, place: Place) -> T | _Nothing:
        """An attempt, and when it has no output in time a second one at another target; the first output wins."""
        race = Race[T | _Nothing]()
        try:
            self._enter(race, call, target, place)
            if await race.pending(self._patience(hedge, target)):
                second = call.course.spare(self._takes_one_more)
                if second is not None:
                    self._enter(race, call, second, await self._health.enter(second.name))
            while results := await race.results():
                for result in results:
                    if result is not FAILED:
                        return result
            return FAILED
        finally:
            await race.close()

    def _enter(self, race: Race[T | _Nothing], call: Call[A, T], target: A, place: Place) -> None:
        def claim() -> None:
            race.claim()
            call.record.attempting(target)

        async def claiming() -> T | _Nothing:
            result = await self._tried(call, target, place)
            if result is not FAILED:
                claim()  # for what comes whole
            return result

        place.claim = claim
        race.enter(claiming())

    def _patience(self, hedge: Hedge, target: A) -> float:
        """Seconds without output after which a second target is asked."""
        usual = None if hedge.percentile is None else self._health.latency(target.name, hedge.percentile, KNOWN_LATENCIES)
        return hedge.after if usual is None else usual

    def _takes_one_more(self, target: A) -> bool:
        """Whether a second attempt may go there: it is well, and its provider has the repetition to spare."""
        return self._health.standing(target.name) is Standing.READY and target.access.budget.spend()
