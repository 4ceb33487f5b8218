"""The writer: one task, one connection, and group commit. Nothing that was acknowledged is lost and nothing is done twice.

Each process has a row in the table of writers: every transaction leaves its token there, and refuses to happen unless the row's fence
is its connection's. When the connection is cut in the middle of a commit, the next one raises the fence: that waits for the old
transaction, if the server still works on it, and shuts it out if the server has not seen it yet. The token says whether it was committed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from chassis.announcing import announce_commit
from chassis.faults import StorageUnavailable
from chassis.postgres.connecting import Server, close_quietly
from chassis.postgres.faults import RETRY_SECONDS, is_cut, is_repeatable
from chassis.postgres.frames import Frame
from chassis.postgres.patience import PATIENCE_SECONDS, Backoff
from chassis.postgres.statements import Statements, run_suspending
from chassis.postgres_access import Connection
from chassis.tenants import EVERYBODY
from chassis.waypoints import waypoint

T = TypeVar("T")

GROUP = 512  # works of a transaction
BACKLOG = 10_000  # works that may wait; far more than callers that can be under way
ATTEMPTS = 5  # of a transaction that other sessions were in the way of
_SETTINGS = {
    "behest.tenant": EVERYBODY,
    # The few rows that a writer wants are found by index, whatever the statistics of a young table say; and a plan is made once.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}
WRITER_DAYS = 7  # after so long without a sign of life a writer's row is somebody's who is gone


@dataclass(slots=True, eq=False)
class Pending:
    """A work that waits, or what came of it."""

    work: Callable[[Any], Any]
    announce: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    since: float
    result: Any = None
    error: BaseException | None = None
    settled: bool = False


class Shortcut(Protocol):
    """A quicker way for some works."""

    async def take(self, group: Sequence[Pending], writer: Writer) -> Sequence[Pending]:
        """Commits what it can of the group on the writer's connection, settles it and returns the rest.

        An error that cuts the connection is raised, and all that is not settled comes again: the works must bear that.
        """

    def touched(self, rows: Any) -> None:
        """Hears of a transaction that was committed, by what its works got of the frame."""


class _Regroup(Exception):
    """A work failed after it wrote, or the server refused the group: nothing was done, and each is worth its own transaction."""


class _Shut(StorageUnavailable):
    """The fence is not ours: a later connection of this writer took over, or its row was purged."""


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A commit that was asked for and not answered."""

    token: int
    group: Sequence[Pending]


@dataclass(slots=True)
class Writer:
    """Commits works in the order in which they come. `run` must run beside the callers."""

    server: Server
    id: str
    frame: Frame
    shortcut: Shortcut | None = None
    _waiting: deque[Pending] = field(default_factory=deque)
    _something: asyncio.Event = field(default_factory=asyncio.Event)
    _connection: Connection | None = None
    _fence: int = 0
    _token: int = 0  # of the last transaction that was begun
    _doubt: _Doubt | None = None
    _backoff: Backoff = field(default_factory=Backoff)
    _under_way: bool = False
    _closed: bool = False

    @property
    def busy(self) -> bool:
        """Whether a work waits or is under way."""
        return bool(self._waiting) or self._under_way

    async def write(self, work: Callable[[Any], T], announce: Callable[[T], None] | None = None) -> T:
        """Runs work in the next transaction and returns its result once that is durable. See Database.write."""
        if self._closed or len(self._waiting) >= BACKLOG:
            text = f"{self.server.place} takes no more writes: it is closing or {BACKLOG} wait; retry later"
            raise StorageUnavailable(text, retry_after=RETRY_SECONDS)
        pending = Pending(work, announce, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(pending)
        self._something.set()
        result: T = await pending.future
        return result

    async def run(self) -> None:
        """Commits until closed and nothing waits."""
        while self._waiting or not self._closed:
            self._under_way = bool(self._waiting)
            if not self._waiting:
                self._something.clear()
                await self._something.wait()
                continue
            await self._carry_out([self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))])
        await self._sign_off()

    def close(self) -> None:
        """Takes no more; `run` returns when all that waits is done."""
        self._closed = True
        self._something.set()

    async def connect(self) -> Connection:
        """The connection, new where there is none; what was in doubt is settled. Raises StorageUnavailable."""
        if self._connection is None or self._connection.is_closed():
            self._drop()
            connection = await self.server.connect("writer", _SETTINGS)
            try:
                await self._sign_on(connection)
            except BaseException:
                close_quietly(connection)
                raise
            self._connection = connection
        return self._connection

    async def _carry_out(self, group: Sequence[Pending]) -> None:
        live = [pending for pending in group if not pending.future.cancelled()]
        while live:
            try:
                await self._attempt(live)
                self._backoff.failures = 0
            except Exception as error:  # noqa: BLE001 — told to the callers
                await self._after(error, live)
            live = [pending for pending in live if not pending.settled]

    async def _attempt(self, group: list[Pending]) -> None:
        await self.connect()
        rest: Sequence[Pending] = [pending for pending in group if not pending.settled]
        if self.shortcut is not None and rest:
            rest = await self.shortcut.take(rest, self)
        if rest:
            await self._transact(rest)

    async def _after(self, error: Exception, group: Sequence[Pending]) -> None:
        """Tries again when the server may come back in time; else the callers get the fault."""
        waiting = [pending for pending in group if not pending.settled]
        if is_cut(error):
            self._drop()
            late = time.monotonic() - PATIENCE_SECONDS
            fault = self.server.fault(error)
            _fail([pending for pending in waiting if self._closed or pending.since <= late], fault)
            await self._backoff.wait()
        else:
            _fail(waiting, self.server.fault(error))

    async def _transact(self, group: Sequence[Pending]) -> None:
        try:
            await self._repeating(group)
        except _Regroup as regroup:
            if len(group) == 1:
                _fail(group, self.server.fault(regroup.__cause__ or regroup))
                return
            for pending in group:
                await self._transact([pending])

    async def _repeating(self, group: Sequence[Pending]) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                await self._together(group)
            except Exception as error:
                if not is_repeatable(error):
                    raise
            else:
                return
        await self._together(group)

    async def _together(self, group: Sequence[Pending]) -> None:
        """One transaction for all of the group."""
        connection = await self.connect()
        await connection.execute("BEGIN")
        try:
            rows = await run_suspending(self._perform, group, Statements(connection))
            self._doubt = _Doubt(self._token, group)
            waypoint("postgres.commit.before")
            if await connection.execute("COMMIT") != "COMMIT":  # a work went on after the server had refused a statement of it
                raise _Regroup
        except BaseException as error:
            if is_cut(error):
                raise
            self._doubt = None
            await connection.execute("ROLLBACK")
            if is_repeatable(error) or not isinstance(error, Exception):
                raise
            raise _Regroup from (error.__cause__ if isinstance(error, _Regroup) else error)
        if self.shortcut is not None:
            self.shortcut.touched(rows)
        waypoint("postgres.commit.after")
        self._doubt = None
        settle(group)

    def _perform(self, group: Sequence[Pending], statements: Statements) -> Any:
        self._token += 1
        row = statements.fetchrow(self.frame.entering, self.id, self._fence, self._token)
        if row is None:
            raise _Shut(f"{self.server.place} closed this connection to writes; a new one is made", retry_after=RETRY_SECONDS)
        rows = self.frame.enter(row, statements)
        for pending in group:
            _perform_one(pending, rows, statements)
        self.frame.leave(rows)
        statements.flush()
        return rows

    async def _sign_on(self, connection: Connection) -> None:
        """Takes this writer's row, after what is left of its last connection, and learns whether the commit in doubt was made."""
        sign_on = f"UPDATE {self.frame.writers} SET fence = fence + 1, seen_at = now() WHERE id = $1 RETURNING fence, token"  # noqa: S608 — a constant of the service
        row = await connection.fetchrow(sign_on, self.id)
        if row is None:
            await self._sign_up(connection)
            return
        self._fence, token = row
        doubt, self._doubt = self._doubt, None
        if doubt is not None and doubt.token == token:
            settle(doubt.group)

    async def _sign_up(self, connection: Connection) -> None:
        table = self.frame.writers
        await connection.execute(f"DELETE FROM {table} WHERE seen_at < now() - make_interval(days => $1)", WRITER_DAYS)  # noqa: S608 — a constant of the service
        await connection.execute(f"INSERT INTO {table} (id, fence, token) VALUES ($1, 1, 0)", self.id)  # noqa: S608 — a constant of the service
        self._fence = 1
        if self._doubt is not None:
            self._doubt = None
            structlog.get_logger().error("the row that tells whether the last write was committed is gone; it is tried again")

    async def _sign_off(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.execute(f"DELETE FROM {self.frame.writers} WHERE id = $1", self.id)  # noqa: S608 — a constant of the service
            await connection.close(timeout=1.0)
        except Exception:  # noqa: BLE001 — the row is purged one day
            close_quietly(connection)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        close_quietly(connection)


def _perform_one(pending: Pending, rows: Any, statements: Statements) -> None:
    written = statements.writes
    pending.result, pending.error = None, None
    try:
        pending.result = pending.work(rows)
    except Exception as error:
        if statements.failed:
            raise
        if statements.writes != written:
            raise _Regroup from error
        pending.error = error


def settle(group: Sequence[Pending]) -> None:
    """Announces, in order, then lets the callers go on."""
    for pending in group:
        if pending.error is None and pending.announce is not None:
            announce_commit(pending.announce, pending.result)
    for pending in group:
        _answer(pending, pending.error)


def _fail(group: Sequence[Pending], error: BaseException) -> None:
    for pending in group:
        _answer(pending, error)


def _answer(pending: Pending, error: BaseException | None) -> None:
    pending.settled = True
    if pending.future.done():
        return
    if error is None:
        pending.future.set_result(pending.result)
    else:
        pending.future.set_exception(error)
