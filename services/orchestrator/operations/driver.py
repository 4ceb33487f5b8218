"""Keeps this process registered as a driver and drives the runs it is handed, within its room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import structlog

from chassis.faults import Fault, Internal, LeaseLost, RunEnded
from chassis.rpc import Call, call_scope
from chassis.world import World
from orchestrator.domain.run import Recorded, Run, fold
from orchestrator.domain.values import RunId, SessionId
from orchestrator.operations.drive import Drive
from orchestrator.operations.inbox import Signal
from orchestrator.operations.ports import Assignment, Instruction, Lease, Patience, Ports, SignOfLife

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
        self._runs: dict[RunId, Signal] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._leaving = asyncio.Event()
        self._changed = asyncio.Event()
        self.attached = False

    @property
    def room(self) -> int:
        """How many more runs it can take."""
        return 0 if self._leaving.is_set() else max(0, self._most - len(self._runs))

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

    def take(self, assignment: Assignment, session_id: SessionId | None = None, log: Sequence[Recorded] = ()) -> None:
        """Begins to drive a run. A log that the caller already has is not read again."""
        if self._tasks is None or self._leaving.is_set() or assignment.run_id in self._runs:
            return
        signal = self._runs[assignment.run_id] = Signal()
        self._tasks.create_task(self._drive(assignment, signal, session_id, log))

    async def _attend(self) -> None:
        backoff = self._patience.backoff
        while not self._leaving.is_set():
            try:
                async for instruction in self._ports.journal.drive(self._signs()):
                    backoff, self.attached = self._patience.backoff, True
                    self._follow(instruction)
            except Fault as fault:
                self.attached = False
                _logger.warning("store away", reason=fault.reason, message=fault.message, retry_in=backoff)
            if not self._leaving.is_set():
                await self._world.clock.sleep(backoff)
            backoff = min(2 * backoff, self._patience.longest_backoff)

    async def _signs(self) -> AsyncGenerator[SignOfLife, None]:
        while not self._leaving.is_set():
            yield SignOfLife(self.id, self.room)
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
            if signal := self._runs.get(run_id):
                signal.command()

    async def _drive(self, assignment: Assignment, signal: Signal, session_id: SessionId | None, log: Sequence[Recorded]) -> None:
        try:
            with call_scope(Call(tenant=assignment.tenant)):
                await self._drive_within(assignment, signal, session_id, log)
        except (LeaseLost, RunEnded) as fault:
            _logger.info("run handed to another driver", run_id=assignment.run_id, reason=fault.reason)
        finally:
            del self._runs[assignment.run_id]
            self._changed.set()

    async def _drive_within(self, assignment: Assignment, signal: Signal, session_id: SessionId | None, log: Sequence[Recorded]) -> None:
        if session_id is None:
            session_id, log = await self._ports.journal.read(assignment.run_id, 0)
        lease = Lease(assignment.run_id, session_id, assignment.tenant, self.id, assignment.epoch)
        run = fold(Run(assignment.run_id, session_id), log)
        if run.ended:
            return
        drive = Drive(run, lease, self._ports, self._world.clock, self._patience, signal)
        try:
            await drive.to_the_end()
        except (LeaseLost, RunEnded):
            raise
        except Fault as fault:
            await drive.fail(fault)
        except Exception as defect:  # noqa: BLE001 — any defect must still end the run with its one terminal event
            await drive.fail(self._internal(assignment, defect))

    def _internal(self, assignment: Assignment, defect: Exception) -> Internal:
        defect_id = self._world.ids.new()
        _logger.error("run failed by a defect", run_id=assignment.run_id, defect_id=defect_id, exc_info=defect)
        return Internal(f"a defect ended the run; the service's log has it under {defect_id}", metadata={"id": defect_id})


class _Left(Exception):
    """The driver left; ends its TaskGroup."""
