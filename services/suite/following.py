"""One gap-free stream of a run's events, out of as many connections as it takes. Knows neither channels nor stubs."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from behest.event.v1 import event_pb2 as event_pb
from chassis.faults import Fault, Kind, ServiceUnavailable
from chassis.world import Clock

TERMINAL = frozenset({"run_completed", "run_failed", "run_cancelled"})
# A delta of a pruned log stands for all sequence numbers since the event before it.
COVERS_A_RANGE = frozenset({"text_delta", "reasoning_delta", "tool_call_delta"})

Batches = AsyncGenerator[Sequence[event_pb.Event], None]
OpenStream = Callable[[int], Batches]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a new attempt: full jitter below a doubling ceiling, in seconds."""

    first: float = 0.05
    ceiling: float = 2.0
    attempts: int = 12

    def delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait after so many failures in a row; never less than what the service asked for."""
        # Jitter needs no cryptography.
        jittered = random.uniform(0.0, min(self.ceiling, self.first * 2.0 ** (failures - 1)))  # noqa: S311
        return max(jittered, retry_after or 0.0)


def kind_of(event: event_pb.Event) -> str:
    """The name of what happened, such as text_delta; empty for a kind that this version does not know."""
    return event.WhichOneof("kind") or ""


def is_terminal(event: event_pb.Event) -> bool:
    """Whether nothing follows this event."""
    return kind_of(event) in TERMINAL


class Following:
    """Follows one run from after a sequence to its terminal event, across broken, ended and faulty connections.

    Each event comes once and in order. Raises the service's fault when it is not about being away, and ServiceUnavailable
    when `backoff.attempts` connections in a row brought nothing new.
    """

    def __init__(self, connect: OpenStream, after: int, clock: Clock, backoff: Backoff = Backoff()) -> None:
        self.sequence = after
        self._connect = connect
        self._clock = clock
        self._backoff = backoff
        self._failures = 0

    async def events(self) -> AsyncIterator[event_pb.Event]:
        """The events, ending with the terminal one."""
        while True:
            fault: Fault | None = None
            try:
                async with aclosing(self._connect(self.sequence)) as batches:
                    async for event in self._new_ones(batches):
                        yield event
                        if is_terminal(event):
                            return
            except Fault as caught:
                fault = self._survivable(caught)
            await self._pause(fault)

    async def _new_ones(self, batches: Batches) -> AsyncIterator[event_pb.Event]:
        async for batch in batches:
            for event in batch:
                if event.sequence <= self.sequence:
                    continue
                if not self._follows(event):
                    return
                self.sequence, self._failures = event.sequence, 0
                yield event

    def _follows(self, event: event_pb.Event) -> bool:
        return event.sequence == self.sequence + 1 or kind_of(event) in COVERS_A_RANGE

    @staticmethod
    def _survivable(fault: Fault) -> Fault:
        if fault.kind is not Kind.UNAVAILABLE:
            raise fault
        return fault

    async def _pause(self, fault: Fault | None) -> None:
        self._failures += 1
        if self._failures > self._backoff.attempts:
            raise fault or ServiceUnavailable(
                f"the event stream broke {self._failures} times in a row after sequence {self.sequence}; look at the orchestrator's log",
                metadata={"sequence": str(self.sequence)},
            )
        await self._clock.sleep(self._backoff.delay(self._failures, fault.retry_after if fault else None))
