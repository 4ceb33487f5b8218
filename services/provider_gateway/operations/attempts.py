"""Attempts at the targets of one call, one after the other, each with a place at its target and within its caps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from chassis.faults import Fault, ProviderTimeout, UpstreamFault
from chassis.world import Clock
from provider_gateway.operations.course import Course, Manners
from provider_gateway.operations.health import Health, Place
from provider_gateway.operations.recording import Record
from provider_gateway.operations.routes import Askable
from provider_gateway.operations.spending import Expense, Reservation, Spending, Unbounded

A = TypeVar("A", bound=Askable)
T = TypeVar("T")
UNBOUNDED = Unbounded()


@dataclass(frozen=True, slots=True)
class Attempt(Generic[A, T]):
    """How something is asked of a target: what it may cost, and the asking, which tells the place of its first output and the reservation
    of what it consumes.
    """

    expense: Callable[[A], Expense]
    ask: Callable[[A, Place, Reservation], Awaitable[T]]


class Attempts:
    """Makes attempts until one succeeds or the course is at its end."""

    def __init__(self, health: Health, manners: Manners, clock: Clock, spending: Spending = UNBOUNDED) -> None:
        self._health, self._manners, self._clock, self._spending = health, manners, clock, spending
        self.counted = not isinstance(spending, Unbounded)

    def course(self, targets: Sequence[A], deadline: float | None) -> Course[A]:
        """The way of one call over its targets. `deadline` is a monotonic moment."""
        return Course(targets, self._manners, self._health, self._clock, deadline)

    async def made(self, attempt: Attempt[A, T], course: Course[A], record: Record, bound: asyncio.Timeout) -> T:
        """What the attempt gave that succeeded; raises the fault that tells best why none did. `bound` is the whole call's."""
        while True:
            target = await course.next()
            record.attempting(target)
            try:
                place = await self._health.enter(target.name)
            except UpstreamFault as fault:
                record.failed(fault)
                course.passed_over(target, fault)
                continue
            try:
                return await self._made_once(attempt, target, place, bound)
            except Fault as fault:
                record.failed(fault)
                course.failed(target, fault)

    async def _made_once(self, attempt: Attempt[A, T], target: A, place: Place, bound: asyncio.Timeout) -> T:
        try:
            async with self._spending.reserve(attempt.expense(target)) as reservation:
                result = await attempt.ask(target, place, reservation)
        except BaseException as error:
            place.failed(ProviderTimeout("the call took too long") if bound.expired() else error)
            raise
        place.answered()
        return result
