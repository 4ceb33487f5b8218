"""Writing a command at the end of a run's log, where its driver finds it: no lease is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from chassis.waypoints import waypoint
from session_store.domain.batch import Announcement, Batch
from session_store.domain.run import Place, Run, RunPatch, RunState
from session_store.domain.session import DriverId
from session_store.operations.ports import Tables


@dataclass(frozen=True, slots=True)
class Recorded:
    """A command's sequence, the run, who must look (nobody when empty), and whether the run is now to be driven by any driver."""

    sequence: int
    run: Run
    announcement: Announcement | None = None
    driver_id: DriverId = DriverId("")
    due: bool = False


def write_command(
    tables: Tables, run: Run, write: Callable[[int], bytes], now: float, *, cancels: bool, keeps_waiting: bool = False
) -> Recorded:
    """Writes a command to the log of a run that has not ended.

    One that awaits approval goes on, unless it is to keep waiting. One that is cancelled while nobody drives it is ended out of turn.
    """
    sequence = run.sequence + 1
    data = write(sequence)
    number = tables.batches.add(run.tenant, run.session_key, run.key, sequence, sequence, data)
    tables.runs.advance(run.key, sequence, RunPatch(), None)
    wakes = run.state is RunState.AWAITING_APPROVAL and not keeps_waiting
    if wakes:
        tables.runs.wake(run.key)
        run = replace(run, state=RunState.QUEUED)
    ends = cancels and run.state is RunState.QUEUED and not run.driver_id
    if ends:
        _end_out_of_turn(tables, run, now)
    announcement = Announcement(run.tenant, Batch(number, run.id, run.session_id, sequence, sequence, data))
    waypoint("store.command.written")
    return Recorded(sequence, replace(run, sequence=sequence), announcement, run.driver_id, wakes or ends)


def _end_out_of_turn(tables: Tables, run: Run, now: float) -> None:
    if run.place is Place.WAITING:
        tables.runs.place(run.key, Place.LEAVING)
    tables.runs.end_by(run.key, now)
