"""Writing to a run's log: a driver's appends and anybody's commands, each as one work on the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chassis.faults import RunNotFound
from chassis.waypoints import waypoint
from session_store.domain.batch import Announcement, Batch
from session_store.domain.run import (
    REQUEST_SECONDS,
    Append,
    Command,
    Place,
    Run,
    Standing,
    ended,
    is_again,
    refuse_illegal,
    refuse_moved_on,
)
from session_store.domain.session import RunId
from session_store.domain.tally import Tally
from session_store.operations.commanding import Recorded, write_command
from session_store.operations.opening import find_again, join_session
from session_store.operations.ports import Request, Tables

RECORD_COMMAND = "record_command"
_PAGE = 64


@dataclass(frozen=True, slots=True)
class Appended:
    """The log's end, what to announce unless the append was a repetition, and whether another run's turn has come.

    `left` says that the driver does not have the run any more: it ended, or awaits approval.
    """

    sequence: int
    announcement: Announcement | None = None
    promoted: bool = False
    left: bool = False


def append(tables: Tables, wish: Append, now: float) -> Appended:
    """Writes events under a lease with all that changes with them, or finds that they are written."""
    standing = tables.runs.standing(wish.tenant, wish.run_id)
    if standing is None:
        raise run_not_found(wish.run_id)
    if is_again(standing, wish) and _is_written(tables, standing.key, wish):
        return Appended(standing.sequence)
    refuse_illegal(standing, wish)
    return _write(tables, standing, wish, now)


def record_command(tables: Tables, command: Command, now: float) -> Recorded:
    """Writes a command at the end of a run's log, or finds that the same request wrote it before."""
    run = tables.runs.find(command.tenant, command.run_id)
    if run is None:
        raise run_not_found(command.run_id)
    before = find_again(tables, command.tenant, RECORD_COMMAND, command.request_id, command.payload_digest)
    if before is not None:
        return Recorded(int(before), run)
    if run.state.ended:
        raise ended(run.id, run.state)
    if command.expected is not None:
        refuse_moved_on(run.id, run.sequence, command.expected)
    return _record(tables, run, command, now)


def run_not_found(run_id: RunId) -> RunNotFound:
    """The fault for a run that does not exist, or not for this tenant."""
    return RunNotFound(f"no run {run_id!r}; list runs to find it", metadata={"run_id": run_id})


def _is_written(tables: Tables, run_key: int, wish: Append) -> bool:
    first, last = wish.expected_sequence + 1, wish.expected_sequence + wish.entries.count
    stored = tables.batches.of_run(run_key, wish.expected_sequence, _PAGE, len(wish.entries.data))
    return bool(stored) and stored[0].first == first and b"".join(batch.data for batch in stored if batch.last <= last) == wish.entries.data


def _write(tables: Tables, standing: Standing, wish: Append, now: float) -> Appended:
    entries, first = wish.entries, standing.sequence + 1
    last = standing.sequence + entries.count
    number = tables.batches.add(wish.tenant, standing.session_key, standing.key, first, last, entries.data)
    ends = entries.ends_in is not None
    tally = replace(entries.tally, messages=len(wish.messages)) if wish.messages else entries.tally
    tables.runs.advance(standing.key, last, wish.patch, now if ends else None, tally)
    join_session(tables, standing.session_key, standing.key, wish.messages, now)
    if wish.usage:
        tables.usage.add(wish.tenant, standing.session_key, standing.key, wish.usage)
    if wish.wait is not None:
        tables.runs.rest(standing.key, now + wish.wait)
    promoted = ends and _free(tables, standing, now)
    batch = Batch(number, wish.run_id, standing.session_id, first, last, entries.data)
    waypoint("store.append.written")
    return Appended(last, Announcement(wish.tenant, batch, ends), promoted, left=ends or wish.wait is not None)


def _free(tables: Tables, standing: Standing, now: float) -> bool:
    """Lets go of the session after a run's end; whether another run holds it now.

    The next run's message joins the session here and not when the run was opened: between the messages of the run before it,
    it would part a tool call from its result.
    """
    if standing.place is not Place.HOLDING:
        tables.messages.release(standing.key)
        return False
    following = tables.runs.next_waiting(standing.session_key)
    if following is None:
        tables.sessions.occupy(standing.session_key, RunId(""))
        return False
    key, run_id = following
    tables.runs.place(key, Place.HOLDING)
    tables.sessions.occupy(standing.session_key, run_id)
    held = tuple(tables.messages.release(key))
    join_session(tables, standing.session_key, key, held, now)
    tables.runs.count(key, Tally(messages=len(held)))
    return True


def _record(tables: Tables, run: Run, command: Command, now: float) -> Recorded:
    recorded = write_command(tables, run, command.write, now, cancels=command.cancels, keeps_waiting=command.keeps_waiting)
    if command.request_id:
        request = Request(command.payload_digest, str(recorded.sequence))
        tables.requests.add(command.tenant, RECORD_COMMAND, command.request_id, request, run.session_key, now + REQUEST_SECONDS)
    return recorded
