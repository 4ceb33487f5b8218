"""Runs as the store sees them, and which writes to their logs are legal.

The store knows a run's standing and nothing of what its events mean, save one thing: an event of a terminal kind ends the run.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from chassis.faults import LeaseLost, RunEnded, SequenceConflict, SessionBusy
from session_store.domain.bounds import refuse
from session_store.domain.priority import Priority
from session_store.domain.session import DriverId, Message, RunId, SessionId, Tenant
from session_store.domain.tally import NOTHING, Tally
from session_store.domain.usage import ModelUsage

DUPLICATE_SECONDS = 60.0  # R2: the same input again within this time is refused
MAX_WAITING = 100  # runs that may wait behind one session
REQUEST_SECONDS = 24 * 3600.0  # how long a request id is remembered
NOWHERE = -1  # where no log ends


class RunState(enum.IntEnum):
    """Where a run stands; the numbers are the contract's."""

    QUEUED = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5
    AWAITING_APPROVAL = 6

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the run any more."""
        return RunState.COMPLETED <= self <= RunState.CANCELLED


FORGIVEN = frozenset({RunState.FAILED, RunState.CANCELLED})  # after these the same input is welcome again at once


class Place(enum.IntEnum):
    """Where a run stands with its session. A driver should have every run that does not merely wait."""

    WAITING = 0  # behind another run
    HOLDING = 1  # it is the session's active run
    LEAVING = 2  # it waited and was cancelled: a driver ends it, out of turn and without the session
    IMPORTED = 3  # it is history: it ended elsewhere, and what it did counts there


class OnBusy(enum.IntEnum):
    """What to do when the session has a run under way; the numbers are the contract's."""

    REJECT = 1
    QUEUE = 2
    INTERRUPT = 3
    FORK = 4


@dataclass(frozen=True, slots=True)
class Run:
    """A run's row. `epoch` is that of its present lease, or of the next while `driver_id` is empty.

    `rank` says which of the runs that wait for a driver goes first, see schedule.py; `ends_by` when one that has not begun is to be ended;
    `wakes_at` when one that awaits approval is handed to a driver though nobody decided; it stays, for those that once did.
    `details`, `usage` and `fault` are serialized and not read here: what the caller said, what was consumed, why it failed.
    """

    tenant: Tenant
    id: RunId
    session_id: SessionId
    created_at: float
    state: RunState = RunState.QUEUED
    place: Place = Place.WAITING
    sequence: int = 0
    driver_id: DriverId = DriverId("")
    epoch: int = 1
    started_at: float | None = None
    ended_at: float | None = None
    details: bytes = b""
    usage: bytes = b""
    turns: int = 0
    fault: bytes = b""
    output_message_id: str = ""
    input_digest: str = ""
    session_key: int = 0
    rank: float = 0.0
    ends_by: float | None = None
    wakes_at: float | None = None
    key: int = 0
    tally: Tally = NOTHING


@dataclass(frozen=True, slots=True)
class Standing:
    """The part of a run's row that decides whether a write is legal."""

    key: int
    session_key: int
    session_id: SessionId
    state: RunState
    place: Place
    sequence: int
    driver_id: DriverId
    epoch: int


@dataclass(frozen=True, slots=True)
class Entries:
    """Events to log: their session, their number, their wire form (see batch.py), the state the last one ends the run in, if any,
    and what they add to the run's counts."""

    session_id: SessionId
    count: int
    data: bytes
    ends_in: RunState | None = None
    tally: Tally = NOTHING


@dataclass(frozen=True, slots=True)
class Fork:
    """Where an order goes when its session is busy: a session to be made, and the wire form of the order's events there."""

    session_id: SessionId
    data: bytes


@dataclass(frozen=True, slots=True)
class Order:
    """A run to open. `interrupt` gives the wire form of the event that asks the run under way to stop, for the sequence it gets."""

    tenant: Tenant
    run_id: RunId
    session_id: SessionId
    entries: Entries
    details: bytes = b""
    messages: tuple[Message, ...] = ()
    request_id: str = ""
    payload_digest: str = ""
    input_digest: str = ""
    create_session: bool = False
    on_busy: OnBusy = OnBusy.REJECT
    interrupt: Callable[[int], bytes] | None = None
    fork: Fork | None = None
    driver_id: DriverId = DriverId("")
    priority: Priority = Priority.NORMAL
    max_wait: float | None = None


@dataclass(frozen=True, slots=True)
class RunPatch:
    """What changes on a run's row; None leaves a field."""

    state: RunState | None = None
    usage: bytes | None = None
    turns: int | None = None
    fault: bytes | None = None
    output_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """A driver's write to a log, and what changes with it. `wait` lets go of the run for so many seconds: it awaits approval."""

    tenant: Tenant
    run_id: RunId
    driver_id: DriverId
    epoch: int
    expected_sequence: int
    entries: Entries
    messages: tuple[Message, ...] = ()
    usage: tuple[ModelUsage, ...] = ()
    patch: RunPatch = field(default_factory=RunPatch)
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """Anybody's write to a log. `write` gives the wire form of its event for the sequence it gets.

    `expected` is where the log must end, NOWHERE for a command that is only to be found; `keeps_waiting` leaves alone a run that awaits
    approval, which otherwise goes on.
    """

    tenant: Tenant
    run_id: RunId
    write: Callable[[int], bytes]
    cancels: bool = False
    request_id: str = ""
    payload_digest: str = ""
    expected: int | None = None
    keeps_waiting: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run handed to a driver."""

    run_id: RunId
    tenant: Tenant
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list; None and empty mean any. `rested` means those that await approval, or once did."""

    session_key: int | None = None
    states: frozenset[RunState] = frozenset()
    rested: bool = False


def is_again(standing: Standing, append: Append) -> bool:
    """Whether append could be one that was already written under the same lease; its bytes tell."""
    same_lease = standing.driver_id == append.driver_id and standing.epoch == append.epoch
    return same_lease and append.expected_sequence + append.entries.count <= standing.sequence


def refuse_illegal(standing: Standing, append: Append) -> None:
    """Raises why append cannot be written: RunEnded, LeaseLost, SequenceConflict, RequestInvalid or SessionBusy."""
    if standing.state.ended:
        raise ended(append.run_id, standing.state)
    if not append.driver_id or standing.driver_id != append.driver_id or standing.epoch != append.epoch:
        raise LeaseLost(
            f"run {append.run_id} is not driven by {append.driver_id!r} at epoch {append.epoch}; stop driving it",
            metadata={"run_id": append.run_id, "epoch": str(standing.epoch)},
        )
    refuse_moved_on(append.run_id, standing.sequence, append.expected_sequence)
    if append.entries.session_id != standing.session_id:
        raise refuse("events", f"say session {append.entries.session_id!r}; run {append.run_id} is of session {standing.session_id!r}")
    if append.messages and standing.place is not Place.HOLDING:
        raise SessionBusy(
            f"run {append.run_id} does not hold session {standing.session_id}, so it cannot add messages; end it",
            metadata={"run_id": append.run_id, "session_id": standing.session_id},
        )


def refuse_moved_on(run_id: RunId, sequence: int, expected: int) -> None:
    """Raises SequenceConflict unless the log ends where it is expected to."""
    if sequence != expected:
        raise SequenceConflict(
            f"the log of run {run_id} ends at {sequence}, not at {expected}; read on and retry",
            metadata={"run_id": run_id, "sequence": str(sequence)},
        )


def refuse_mismatched_wait(state: RunState | None, wait: float | None) -> None:
    """Raises RequestInvalid unless a run that awaits approval is to be woken some time, and no other is."""
    if (state is RunState.AWAITING_APPROVAL) != (wait is not None):
        raise refuse("wait_ms", "goes with the state AWAITING_APPROVAL, and that with it; set both or neither")


def refuse_mismatched_end(entries: Entries, state: RunState | None) -> None:
    """Raises RequestInvalid unless the log and the row end together, in the same state."""
    if state is RunState.QUEUED:
        raise refuse("patch.state", "cannot be QUEUED: a run that was handed out does not queue again; release it instead")
    row = state if state is not None and state.ended else None
    if row is not entries.ends_in:
        raise refuse(
            "patch.state", f"is {_name(state)} but the last event says {_name(entries.ends_in)}; a run ends in its log and its row at once"
        )


def ended(run_id: RunId, state: RunState) -> RunEnded:
    """The fault for a write to a run that has ended."""
    return RunEnded(f"run {run_id} has ended ({state.name.lower()}); open a new one", metadata={"run_id": run_id, "state": state.name})


def _name(state: RunState | None) -> str:
    return "unset" if state is None else state.name
