"""One driver's open stream in this process: how much room it has, and what it must still be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from session_store.domain.run import Assignment
from session_store.domain.session import DriverId, RunId


@dataclass(frozen=True, slots=True)
class Notice:
    """What a driver should know. `lease_ms` is 0 save in the first."""

    assignments: tuple[Assignment, ...] = ()
    wakes: tuple[RunId, ...] = ()
    lease_ms: int = 0


class Attachment:
    """A driver that listens.

    An assignment is at least once: one that the driver does not answer with an append is told again,
    so neither a lost notice nor a lost answer to OpenRun leaves a run without anybody to drive it.
    """

    def __init__(self, driver_id: DriverId, stream_id: str) -> None:
        self.driver_id = driver_id
        self.stream_id = stream_id
        self._room = 0
        self._given: set[RunId] = set()  # since the driver's last sign of life
        self._unseen: set[RunId] = set()  # before that, perhaps too late for it to have counted them
        self._unanswered: dict[RunId, tuple[Assignment, float]] = {}
        self._assignments: dict[RunId, Assignment] = {}
        self._wakes: dict[RunId, None] = {}
        self._closed = False
        self._failure: Exception | None = None
        self._something = asyncio.Event()

    @property
    def listens(self) -> bool:
        """Whether it can still be told anything."""
        return not self._closed

    @property
    def free(self) -> int:
        """How many more runs the driver takes, by its last word less what it may not have counted."""
        return 0 if self._closed else max(0, self._room - len(self._given) - len(self._unseen))

    def has_room(self, room: int) -> None:
        """Takes the driver's word for its room."""
        self._room = room
        self._unseen, self._given = self._given, set()

    def given(self, assignment: Assignment, now: float) -> None:
        """Counts a run that the driver was told of, or is about to be."""
        self._given.add(assignment.run_id)
        self._unanswered[assignment.run_id] = (assignment, now)

    def push(self, assignments: Iterable[Assignment], now: float) -> None:
        """Tells the driver of runs, and counts them."""
        for assignment in assignments:
            self.given(assignment, now)
            self._assignments[assignment.run_id] = assignment
        self._something.set()

    def push_again(self, before: float, now: float) -> None:
        """Tells the driver once more of runs that it was told of before a moment and has not written to."""
        self.push([assignment for assignment, since in self._unanswered.values() if since <= before], now)

    def remind(self, assignments: Iterable[Assignment]) -> None:
        """Tells the driver of runs that it has, and probably knows of, and that their logs may have new commands."""
        for assignment in assignments:
            self._assignments.setdefault(assignment.run_id, assignment)
            self._wakes[assignment.run_id] = None
        self._something.set()

    def answered(self, run_id: RunId, left: bool) -> None:
        """Notes that the driver wrote to a run, so its next word on room counts that run unless it has left it."""
        self._unanswered.pop(run_id, None)
        if run_id in self._given:
            self._given.discard(run_id)
            self._room -= 1
        if left:
            self.lost((run_id,))

    def lost(self, run_ids: Iterable[RunId]) -> None:
        """Forgets runs that are not the driver's any more."""
        for run_id in run_ids:
            self._given.discard(run_id)
            self._unseen.discard(run_id)
            self._unanswered.pop(run_id, None)
            self._assignments.pop(run_id, None)
            self._wakes.pop(run_id, None)

    def wake(self, run_id: RunId) -> None:
        """Tells the driver that a run's log has a new command."""
        self._wakes[run_id] = None
        self._something.set()

    def close(self, failure: Exception | None = None) -> None:
        """Ends the notices, with a failure if there is one."""
        if not self._closed:
            self._closed, self._failure = True, failure
            self._something.set()

    async def notices(self) -> AsyncIterator[Notice]:
        """What there is to tell, until closed."""
        while not self._closed:
            if self._assignments or self._wakes:
                yield self._take()
            else:
                self._something.clear()
                await self._something.wait()
        if self._failure is not None:
            raise self._failure

    def _take(self) -> Notice:
        notice = Notice(tuple(self._assignments.values()), tuple(self._wakes))
        self._assignments.clear()
        self._wakes.clear()
        return notice
