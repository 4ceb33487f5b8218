"""Keeps this process registered as a driver and drives the runs it is handed, within its room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from chassis.faults import Fault
from chassis.waypoints import waypoint
from chassis.world import World
from orchestrator.domain.run import Recorded
from orchestrator.domain.values import RunId, SessionId
from orchestrator.operations.inbox import Signal
from orchestrator.operations.persistence import GONE, Persistence
from orchestrator.operations.ports import Assignment, Instruction, Patience, Ports, SignOfLife

RENEWAL = 1.0
"""Seconds between two signs of life; leases last three times as long."""

_logger = structlog.get_logger("orchestrator.driver")


class Driver:
    """One orchestrator process as the store sees it. `room` runs at most are driven at once."""

    def __init__(self, ports: Ports, world: World, patience: Patience, room: int) -> None:
        self.id = world.ids.new()
        self._ports = ports
        self._world = world
        self._patience = patience
        self._most = room
        self._runs: dict[RunId, _Driven] = {}
        self._kept = 0
        self._told = 0
        self._complaints = _Complaints()
        self._persistence = Persistence(self.id, ports, world, patience)
        self._tasks: asyncio.TaskGroup | None = None
        self._leaving = asyncio.Event()
        self._changed = asyncio.Event()
        self.attached = False

    @property
    def room(self) -> int:
        """How many more runs it can take."""
        return 0 if self._leaving.is_set() else max(0, self._most - len(self._runs) - self._kept)

    @property
    def driven(self) -> int:
        """How many runs it drives now."""
        return len(self._runs)

    async def serve(self) -> None:
        """Drives runs until `leave` is called; then hands over what it has and returns."""
        async with asyncio.TaskGroup() as runs:
            self._tasks = runs
            attending = runs.create_task(self._attend())
            await self._leaving.wait()
            waypoint("driver.leaving")
            await asyncio.wait([attending], timeout=self._patience.stopping)
            raise _Left
        # A TaskGroup that is left by an exception cancels what is still under way: the store has handed it to others by now.

    async def run_until_left(self) -> None:
        """`serve`, ending quietly."""
        try:
            await self.serve()
        except* _Left:
            self._tasks = None

    def leave(self) -> None:
        """Stops taking runs and hands over the present ones at once."""
        self._leaving.set()
        self._changed.set()

    @contextmanager
    def place(self) -> Iterator[str]:
        """Keeps a place for a run that is being opened: gives this driver's id, or nothing when there is no room."""
        if not self.room:
            yield ""
            return
        self._kept += 1
        try:
            yield self.id
        finally:
            self._kept -= 1
            if self.room > self._told:  # the run is the store's to hand out, perhaps to here
                self._changed.set()

    def take(self, assignment: Assignment, session_id: SessionId | None = None, log: Sequence[Recorded] = ()) -> None:
        """Begins to drive a run. A log that the caller already has is not read again.

        A run that is driven here already is looked at: a command may have come while nobody could tell. If its epoch is greater,
        the lease was lost and given again: what goes on under the old one can write nothing any more, and is stopped.
        """
        driven = self._runs.get(assignment.run_id)
        if self._tasks is None or self._leaving.is_set():
            return
        if driven is not None and driven.epoch >= assignment.epoch:
            driven.signal.command()
            return
        if driven is not None:
            driven.task.cancel()
        signal = Signal()
        task = self._tasks.create_task(self._drive(assignment, signal, session_id, log))
        self._runs[assignment.run_id] = _Driven(assignment.epoch, signal, task)

    async def _attend(self) -> None:
        backoff = self._patience.backoff
        while not self._leaving.is_set():
            try:
                async for instruction in self._ports.journal.drive(self._signs()):
                    backoff = self._patience.backoff
                    self._complaints.back()
                    self.attached = True
                    self._follow(instruction)
            except Fault as fault:
                self._complaints.about(fault)
            except Exception as defect:
                _logger.error("attending the store failed; trying again", retry_in=backoff, exc_info=defect)
            self.attached = False
            if not self._leaving.is_set():
                await self._world.clock.sleep(backoff)
            # No longer than this: another replica of the store may be there, and the lease runs on.
            backoff = min(2 * backoff, RENEWAL / 2)

    async def _signs(self) -> AsyncGenerator[SignOfLife, None]:
        while not self._leaving.is_set():
            self._told = self.room
            yield SignOfLife(self.id, self._told)
            self._changed.clear()
            try:
                async with asyncio.timeout(RENEWAL):
                    await self._changed.wait()
            except TimeoutError:
                continue
        yield SignOfLife(self.id, 0, leaving=True)

    def _follow(self, instruction: Instruction) -> None:
        for assignment in instruction.assignments:
            self.take(assignment)
        for run_id in instruction.wakes:
            if driven := self._runs.get(run_id):
                driven.signal.command()

    async def _drive(self, assignment: Assignment, signal: Signal, session_id: SessionId | None, log: Sequence[Recorded]) -> None:
        try:
            await self._persistence.drive(assignment, signal, session_id, log)
        except GONE as fault:
            _logger.info("run handed to another driver", run_id=assignment.run_id, reason=fault.reason)
        finally:
            driven = self._runs.get(assignment.run_id)
            if driven is not None and driven.signal is signal:
                del self._runs[assignment.run_id]
            self._changed.set()


@dataclass(frozen=True, slots=True)
class _Driven:
    """A run under way here."""

    epoch: int
    signal: Signal
    task: asyncio.Task[None]


class _Complaints:
    """Says once for each cause that the store is away, and once that it is back."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def about(self, fault: Fault) -> None:
        if fault.reason not in self._made:
            _logger.warning("store away; trying again until it is back", reason=fault.reason, message=fault.message)
        self._made.add(fault.reason)

    def back(self) -> None:
        if self._made:
            _logger.warning("store back", reasons=sorted(self._made))
            self._made.clear()


class _Left(Exception):
    """The driver left; ends its TaskGroup."""
