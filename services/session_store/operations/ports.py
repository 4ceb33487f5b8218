"""What the service needs of a backend.

A backend keeps rows and runs work on them in transactions; which rows to write is decided by the functions of this package, once for
all backends. Work is a plain function of Tables, holds no state and may run again when its transaction could not be committed.
Work raises before it writes, so a backend without savepoints can keep the promise that a failed work changes nothing.
All truth lies in the transaction: several processes may share a backend, and what a process remembers besides is a hint.
Every look-up by id takes the tenant; `key` arguments are numbers of rows that such a look-up found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from session_store.domain.batch import Announcement, Batch
from session_store.domain.outbox import Shard
from session_store.domain.page import Cursor
from session_store.domain.run import Assignment, Place, Run, RunPatch, RunQuery, Standing
from session_store.domain.schedule import Load, Queue
from session_store.domain.session import DriverId, Message, RunId, Session, SessionId, SessionQuery, StoredMessage, Tenant
from session_store.domain.statistics import DayUsage, RunSums, Selection
from session_store.domain.tally import NOTHING, Tally
from session_store.domain.usage import ModelUsage

T = TypeVar("T")


class Sessions(Protocol):
    """Rows of sessions."""

    def find(self, tenant: Tenant, id_: SessionId) -> Session | None:
        """The session of that id."""

    def add(self, session: Session) -> int:
        """Stores a new session and returns its key."""

    def change(self, session: Session) -> None:
        """Stores title, metadata, version and updated_at of a session that exists."""

    def forks(self, tenant: Tenant, id_: SessionId, since: float, limit: int) -> list[int]:
        """Keys of sessions forked from that one at or after since, newest first."""

    def occupy(self, key: int, run_id: RunId) -> None:
        """Makes a run the session's active one; an empty id frees the session."""

    def grow(self, key: int, count: int, now: float) -> int:
        """Counts messages in, and returns how many there were before."""

    def page(self, tenant: Tenant, query: SessionQuery, before: Cursor | None, limit: int) -> list[Session]:
        """Sessions by (created_at, id), greatest first."""

    def oldest(self, tenant: Tenant, created_before: float, after: Cursor | None, limit: int) -> list[Session]:
        """Sessions by (created_at, id), least first."""

    def next_tenant(self, after: str) -> Tenant | None:
        """The next tenant with sessions, in some order that begins after the empty one."""

    def delete(self, key: int) -> None:
        """Removes a session with all that hangs on it from every look-up; its usage and counts are kept, nameless, in its tenant's sums.

        What may be much, its messages and logs, goes with sweep. All runs of the session have ended.
        """

    def hide(self, key: int, tenant: Tenant, until: float) -> None:
        """Keeps a session, stored under a tenant that nobody is, for its tenant: it is swept unless shown, or hidden on, till then."""

    def show(self, key: int) -> None:
        """Gives a hidden session and its runs to their tenant."""

    def sweep(self, now: float, limit: int, published: int | None) -> int:
        """Removes at most about limit rows of sessions that were deleted, or hidden until now, and returns how many: 0 when none are left.

        published: the last batch that all of those before have left for Kafka with; what is beyond stays. None: nothing is published.
        """


class Messages(Protocol):
    """Rows of messages, and of those that wait for their run to start."""

    def add(self, session_key: int, first: int, run_key: int, now: float, messages: Sequence[Message]) -> None:
        """Stores messages of a run, or of none with key 0, at positions from first."""

    def copy(self, session_key: int, last: int, to_session_key: int) -> None:
        """Copies messages up to a position into a session that has none; the copies are of no run."""

    def count_before(self, session_key: int, run_key: int) -> int:
        """How many messages the session had when its newest run, that of run_key, began."""

    def page(self, session_key: int, after: int, limit: int, newest_first: bool) -> list[StoredMessage]:
        """Messages beyond a position in the asked direction; 0 starts at the end."""

    def hold(self, run_key: int, messages: Sequence[Message]) -> None:
        """Keeps messages with a run that waits."""

    def release(self, run_key: int) -> list[Message]:
        """Takes out what was held for a run, in order."""


class Runs(Protocol):
    """Rows of runs."""

    def find(self, tenant: Tenant, id_: RunId) -> Run | None:
        """The run of that id."""

    def standing(self, tenant: Tenant, id_: RunId) -> Standing | None:
        """The part of the row that decides about writes: cheaper than find."""

    def add(self, run: Run) -> int:
        """Stores a new run and returns its key."""

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None, tally: Tally = NOTHING) -> None:
        """Moves the log's end, changes what patch sets, and adds to the counts."""

    def count(self, key: int, tally: Tally) -> None:
        """Adds to the counts alone."""

    def place(self, key: int, place: Place) -> None:
        """Changes a run's place with its session."""

    def taken(self, session_key: int, tenant: Tenant) -> RunId | None:
        """The id of a run of a hidden session that a run of the tenant has, if there is any."""

    def end_by(self, key: int, moment: float) -> None:
        """Changes when a run that has not begun is to be ended."""

    def page(self, tenant: Tenant, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """Runs by (created_at, id), greatest first."""

    def with_input(self, session_key: int, digest: str, since: float) -> Run | None:
        """The newest run of the session with that input, created at or after since, that neither failed nor was cancelled."""

    def count_waiting(self, session_key: int) -> int:
        """How many runs wait behind the session."""

    def next_waiting(self, session_key: int) -> tuple[int, RunId] | None:
        """Key and id of the oldest run that waits behind the session."""

    def load(self, tenant: Tenant) -> Load:
        """How many runs of a tenant run and wait, how many run in all, and whether any run of anybody waits for room.

        Exact, and told without counting: the backend keeps it with every change of a run's state, in the same transaction.
        """

    def is_due(self) -> bool:
        """Whether any run should have a driver and has none."""

    def overdue(self, now: float, limit: int) -> list[tuple[int, Place, Assignment]]:
        """Runs of all tenants that have not begun, have no driver and are to be ended by now, with their keys and places."""

    def count_running(self) -> int:
        """How many runs of all tenants run."""

    def orphans(self, limit: int) -> list[tuple[int, Assignment]]:
        """Runs of all tenants, oldest first, that have begun and lost their driver, with their keys."""

    def queues(self, after: Tenant, tenants: int, runs: int) -> list[Queue]:
        """Tenants with runs that hold their session, have not begun and have no driver: at most so many, each with at most so many runs.

        They come in the order of their names, from behind `after` to the end and then from the beginning to `after`.
        """

    def assign(self, key: int, driver_id: DriverId, begins_at: float | None) -> None:
        """Hands a run to a driver; it is running from that moment on, or stays as it is."""

    def rest(self, key: int, wakes_at: float) -> None:
        """Takes a run from its driver: it awaits approval, until wake or a moment. Its epoch grows."""

    def wake(self, key: int) -> None:
        """Lets a run that awaits approval wait for a driver, as one that has not begun does."""

    def rested(self, now: float, limit: int) -> list[int]:
        """Keys of runs of all tenants that await approval and are to be woken by now."""

    def held_by(self, driver_id: DriverId) -> list[Assignment]:
        """A driver's runs, oldest first."""

    def take(self, driver_id: DriverId, run_ids: Sequence[RunId] | None) -> list[RunId]:
        """Takes these runs, or all, away from the driver and returns which; their epochs grow."""


class Batches(Protocol):
    """Rows of the logs. Pages end at limit rows, or when their data passes max_bytes, and hold at least one row if there is one."""

    def add(self, tenant: Tenant, session_key: int, run_key: int, first: int, last: int, data: bytes) -> int:
        """Stores events and returns their batch's number: one more than the batch committed before it, over all processes."""

    def of_run(self, run_key: int, after: int, limit: int, max_bytes: int) -> list[Batch]:
        """A run's batches that end after a sequence."""

    def of_session(self, session_key: int, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A session's batches from a number."""

    def of_tenant(self, tenant: Tenant, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A tenant's batches from a number, without those of imported or deleted runs."""

    def last_number(self) -> int:
        """The greatest number ever given, 0 if none."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was carried out: what it asked and what came of it."""

    digest: str
    outcome: str


class Requests(Protocol):
    """Rows of request ids, which make repeated requests harmless."""

    def find(self, tenant: Tenant, method: str, request_id: str) -> Request | None:
        """What a request came to."""

    def add(self, tenant: Tenant, method: str, request_id: str, request: Request, session_key: int, expires_at: float) -> None:
        """Remembers a request until it expires or its session is deleted."""

    def purge(self, now: float, limit: int) -> int:
        """Forgets expired requests, at most limit, and returns how many."""


class UsageSums(Protocol):
    """Rows of usage by run and model."""

    def add(self, tenant: Tenant, session_key: int, run_key: int, rows: Sequence[ModelUsage]) -> None:
        """Adds to the sums of a run."""

    def sums(self, tenant: Tenant, session_key: int | None, run_key: int | None) -> list[ModelUsage]:
        """Sums by provider and model, sorted, of a run, a session or the whole tenant: without imported runs then, with deleted ones."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A driver's lease, which holds while its row is there: which of its streams keeps it, and until when by the clock of who wrote it."""

    driver_id: DriverId
    stream_id: str
    expires_at: float


class Counts(Protocol):
    """Sums over runs, of those that were deleted too when a whole tenant is asked for."""

    def of_runs(self, selection: Selection) -> list[RunSums]:
        """The selected runs' sums, one row for each day and state."""

    def of_usage(self, selection: Selection) -> list[DayUsage]:
        """The selected runs' usage, one row for each day and model."""


class Leases(Protocol):
    """Rows of drivers."""

    def find(self, driver_id: DriverId) -> Lease | None:
        """The lease of a driver."""

    def put(self, lease: Lease) -> None:
        """Stores a driver's lease, new or renewed."""

    def remove(self, driver_id: DriverId) -> None:
        """Forgets a driver."""

    def all(self) -> list[Lease]:
        """Every lease."""

    def missing(self) -> list[DriverId]:
        """Drivers of runs that have no lease."""


class Outbox(Protocol):
    """Rows of the shards that events are published by, and batches as they are published."""

    def shards(self) -> list[Shard]:
        """The rows there are; at most SHARDS."""

    def put(self, shard: Shard) -> None:
        """Stores a shard's row, new or changed."""

    def due(self, mask: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Announcement]:
        """Batches of shards (outbox.mask_of) with numbers in (after, up_to], by number, save those of imported runs.

        Pages end as those of Batches do.
        """


class Publications(Protocol):
    """Where batches are published."""

    @property
    def problem(self) -> str:
        """What keeps them from being published; empty when nothing is known to."""

    async def publish(self, batches: Sequence[Announcement]) -> None:
        """Publishes their events, each session's in this order; returns when they are kept for good, however long that takes."""


class Tables(Protocol):
    """All rows, within one transaction."""

    @property
    def sessions(self) -> Sessions:
        """Sessions."""

    @property
    def messages(self) -> Messages:
        """Messages."""

    @property
    def runs(self) -> Runs:
        """Runs."""

    @property
    def batches(self) -> Batches:
        """Logs."""

    @property
    def requests(self) -> Requests:
        """Request ids."""

    @property
    def usage(self) -> UsageSums:
        """Usage."""

    @property
    def counts(self) -> Counts:
        """Sums over runs."""

    @property
    def leases(self) -> Leases:
        """Drivers."""

    @property
    def outbox(self) -> Outbox:
        """Publishing."""


class News(Enum):
    """What a write did."""

    OPENED = "opened"  # a run
    APPENDED = "appended"  # by the run's driver
    ENDED = "ended"  # by the run's driver
    RESTED = "rested"  # by the run's driver, which let go of it
    COMMANDED = "commanded"  # by anybody: the driver must look
    DELETED = "deleted"  # a session; there is no run
    DUE = "due"  # there are runs to hand out, and no room for them with who tells; nothing else is said


@dataclass(frozen=True, slots=True)
class Hint:
    """What a committed write means to other processes on the same storage. It may come late, twice or never: the tables are the truth."""

    news: News
    tenant: Tenant = Tenant("")
    session_id: SessionId = SessionId("")
    run_id: RunId = RunId("")
    number: int = 0  # of the batch that the log grew by
    driver_id: DriverId = DriverId("")  # who drives the run
    epoch: int = 0  # of an opened run, for its driver


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of other processes' writes. `missed`: some may have been lost, as when the connection was cut."""

    hints: tuple[Hint, ...] = ()
    missed: bool = False


class Storage(Protocol):
    """A backend."""

    async def write(
        self, work: Callable[[Tables], T], announce: Callable[[T], None] | None = None, tell: Callable[[T], Sequence[Hint]] | None = None
    ) -> T:
        """Runs work in a transaction and returns its result when that is durable.

        announce gets the result first, on the event loop, in the order of commits, even when the caller has left.
        tell makes of the result what the other processes hear of it (listen); it may run within the transaction, in another thread,
        and again with it, and is left alone by a backend that tells nothing. Raises StorageUnavailable.
        """

    def listen(self, hear: Callable[[Heard], None]) -> bool:
        """Calls hear, on the event loop, with what other processes' writes tell, as long as the storage is open.

        Own hints may be among them. False when this backend tells nothing and other processes' writes are found by looking alone.
        """

    async def read(self, work: Callable[[Tables], T], tenant: Tenant | None = None) -> T:
        """Runs work, which only reads, on a snapshot. Raises StorageUnavailable.

        It is done on a tenant's behalf, whose rows alone a backend with row-level security shows, or with None for the store itself.
        """

    async def check(self) -> None:
        """Raises StorageUnavailable unless it can be written."""
