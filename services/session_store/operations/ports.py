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
from typing import Protocol, TypeVar

from session_store.domain.batch import Batch
from session_store.domain.page import Cursor
from session_store.domain.run import Assignment, Place, Run, RunPatch, RunQuery, Standing
from session_store.domain.session import DriverId, Message, RunId, Session, SessionId, SessionQuery, StoredMessage, Tenant
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

    def occupy(self, key: int, run_id: RunId) -> None:
        """Makes a run the session's active one; an empty id frees the session."""

    def grow(self, key: int, count: int, now: float) -> int:
        """Counts messages in, and returns how many there were before."""

    def page(self, tenant: Tenant, query: SessionQuery, before: Cursor | None, limit: int) -> list[Session]:
        """Sessions by (created_at, id), greatest first."""

    def delete(self, key: int) -> None:
        """Removes a session and every row that hangs on it; its usage is kept, nameless, in the sums of its tenant."""


class Messages(Protocol):
    """Rows of messages, and of those that wait for their run to start."""

    def add(self, session_key: int, first: int, run_key: int, now: float, messages: Sequence[Message]) -> None:
        """Stores messages of a run, or of none with key 0, at positions from first."""

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

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None) -> None:
        """Moves the log's end, and changes what patch sets."""

    def place(self, key: int, place: Place) -> None:
        """Changes a run's place with its session."""

    def page(self, tenant: Tenant, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """Runs by (created_at, id), greatest first."""

    def with_input(self, session_key: int, digest: str, since: float) -> Run | None:
        """The newest run of the session with that input, created at or after since, that neither failed nor was cancelled."""

    def count_waiting(self, session_key: int) -> int:
        """How many runs wait behind the session."""

    def next_waiting(self, session_key: int) -> tuple[int, RunId] | None:
        """Key and id of the oldest run that waits behind the session."""

    def unassigned(self, limit: int) -> list[tuple[int, Assignment]]:
        """Runs of all tenants, oldest first, that should have a driver and have none, with their keys."""

    def assign(self, key: int, driver_id: DriverId, now: float) -> None:
        """Hands a run to a driver; one that holds its session is running from then on."""

    def held_by(self, driver_id: DriverId) -> list[Assignment]:
        """A driver's runs, oldest first."""

    def take(self, driver_id: DriverId, run_ids: Sequence[RunId] | None) -> list[RunId]:
        """Takes these runs, or all, away from the driver and returns which; their epochs grow."""


class Batches(Protocol):
    """Rows of the logs. Pages end at limit rows, or when their data passes max_bytes, and hold at least one row if there is one."""

    def add(self, tenant: Tenant, session_key: int, run_key: int, first: int, last: int, data: bytes) -> int:
        """Stores events and returns their batch's number: greater than any before, in the order of commits."""

    def of_run(self, run_key: int, after: int, limit: int, max_bytes: int) -> list[Batch]:
        """A run's batches that end after a sequence."""

    def of_session(self, session_key: int, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A session's batches from a number."""

    def of_tenant(self, tenant: Tenant, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A tenant's batches from a number."""

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
        """Sums by provider and model, sorted, of a run, a session or the whole tenant."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A driver's lease: which of its streams keeps it alive, and until when."""

    driver_id: DriverId
    stream_id: str
    expires_at: float


class Leases(Protocol):
    """Rows of drivers."""

    def find(self, driver_id: DriverId) -> Lease | None:
        """The lease of a driver."""

    def put(self, lease: Lease) -> None:
        """Stores a driver's lease, new or renewed."""

    def remove(self, driver_id: DriverId) -> None:
        """Forgets a driver."""

    def expired(self, now: float) -> list[DriverId]:
        """Drivers whose leases ended, and drivers of runs that have no lease."""


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
    def leases(self) -> Leases:
        """Drivers."""


class Storage(Protocol):
    """A backend."""

    async def write(self, work: Callable[[Tables], T], announce: Callable[[T], None] | None = None) -> T:
        """Runs work in a transaction and returns its result when that is durable.

        announce gets the result first, on the event loop, in the order of commits, even when the caller has left.
        Raises StorageUnavailable.
        """

    async def read(self, work: Callable[[Tables], T]) -> T:
        """Runs work, which only reads, on a snapshot. Raises StorageUnavailable."""

    async def check(self) -> None:
        """Raises StorageUnavailable unless it can be written."""
