"""Writes one run's log: stages events, folds them, and makes them durable in one append."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chassis.faults import LeaseLost, SequenceConflict
from chassis.waypoints import waypoint
from chassis.world import Clock
from orchestrator.domain.events import Event, RunResumed, RunStarted
from orchestrator.domain.run import Recorded, Run, evolve, fold
from orchestrator.domain.values import Entry
from orchestrator.operations.inbox import Signal
from orchestrator.operations.ports import Batch, Journal, Lease, Spent

Joined = Callable[[tuple[Entry, ...]], None]
"""Hears of messages that joined the session."""


@dataclass(frozen=True, slots=True)
class _Staged:
    """An event waiting to be appended. A plan is dropped when a command comes first; an outcome has happened and is kept."""

    event: Event
    entries: tuple[Entry, ...]
    spent: Spent | None
    plan: bool
    time: float


class Log:
    """The log of the run this driver has the lease of. `run` is the fold of what is durable and what is staged."""

    def __init__(self, run: Run, lease: Lease, journal: Journal, clock: Clock, joined: Joined) -> None:
        self.run = run
        self.lease = lease
        self._durable = run
        self._staged: list[_Staged] = []
        self._journal = journal
        self._clock = clock
        self._joined = joined

    def stage(self, event: Event, *entries: Entry, spent: Spent | None = None, plan: bool = False) -> None:
        """Adds an event to the next append. Raises IllegalEvent before anything is written."""
        staged = _Staged(event, entries, spent, plan, self._clock.now())
        self.run = evolve(self.run, Recorded(self.run.sequence + 1, staged.time, event))
        self._staged.append(staged)

    async def commit(self) -> bool:
        """Makes the staged events durable.

        Returns False when a command came first: the outcomes are durable, the plans are dropped, and the caller decides anew.
        """
        as_planned = True
        while self._staged:
            try:
                await self._append()
            except SequenceConflict:
                as_planned = not await self._rebase() and as_planned
        return as_planned

    async def rest(self, until: float) -> bool:
        """Makes the staged events durable and lets go of the run till a moment, in seconds since the epoch.

        Returns False when a command came first: the plans are dropped, and the caller decides anew.
        """
        try:
            await self._append(rests_until=until)
        except SequenceConflict:
            await self._rebase()
            return False
        return True

    async def heed(self, signal: Signal) -> Run:
        """The run with the commands folded that the signal tells of. They are in the log already, so what is planned is dropped."""
        if signal.commanded:
            signal.commanded = False
            await self.commit()
            self._durable = self.run = fold(self._durable, await self._missed())
        return self.run

    @property
    def joining(self) -> tuple[Entry, ...]:
        """The messages that join the session in the next append."""
        return tuple(entry for staged in self._staged for entry in staged.entries)

    async def _append(self, rests_until: float | None = None) -> None:
        staged = tuple(self._staged)
        first = self._durable.sequence + 1
        events = tuple(Recorded(first + i, s.time, s.event) for i, s in enumerate(staged))
        entries = self.joining
        spent = tuple(s.spent for s in staged if s.spent)
        waypoint("driver.append.before")
        await self._journal.append(self.lease, Batch(self._durable.sequence, events, entries, spent, self.run, rests_until))
        waypoint("driver.append.after")
        self._durable = self.run
        self._staged.clear()
        self._joined(entries)

    async def _rebase(self) -> bool:
        """Puts the outcomes after the commands that came first; tells whether plans were dropped."""
        self._durable = fold(self._durable, await self._missed())
        return self.drop_plans()

    async def _missed(self) -> tuple[Recorded, ...]:
        """The commands that were recorded meanwhile. Raises LeaseLost when another driver has written, too."""
        _, missed = await self._journal.read(self.lease.run_id, self._durable.sequence)
        others = [r.event.epoch for r in missed if isinstance(r.event, RunStarted | RunResumed) and r.event.epoch > self.lease.epoch]
        if others:
            text = f"run {self.lease.run_id} went on at epoch {others[-1]}; stop driving it at {self.lease.epoch}"
            raise LeaseLost(text, metadata={"run_id": self.lease.run_id, "epoch": str(others[-1])})
        return missed

    def drop_plans(self) -> bool:
        """Forgets what is staged and has not happened; tells whether there was any."""
        staged, self._staged, self.run = self._staged, [], self._durable
        for kept in (s for s in staged if not s.plan):
            self.run = evolve(self.run, Recorded(self.run.sequence + 1, kept.time, kept.event))
            self._staged.append(kept)
        return len(self._staged) < len(staged)
