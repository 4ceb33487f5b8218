"""The backend as a whole: transactions on PostgreSQL that all take the row of the counters first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from chassis.migrations import Lineage
from chassis.postgres import Database, DatabaseClock, Durability, Listener, Row, Server, Statements, open_postgres, require_newest
from chassis.tenants import EVERYBODY
from session_store.adapters.postgres.batches import Counters, PostgresBatches
from session_store.adapters.postgres.counts import PostgresCounts
from session_store.adapters.postgres.hints import CHANNEL, read_hints, write_hints
from session_store.adapters.postgres.hot import HotPath
from session_store.adapters.postgres.ledgers import PostgresLeases, PostgresRequests, PostgresUsageSums
from session_store.adapters.postgres.outbox import PostgresOutbox
from session_store.adapters.postgres.runs import PostgresRuns
from session_store.adapters.postgres.sessions import PostgresMessages, PostgresSessions
from session_store.domain.session import Tenant
from session_store.operations.ports import Heard, Hint, Tables

T = TypeVar("T")

WRITERS = "session_store_writers"
_LINEAGE = Lineage.of("session_store")
_LEAVE = f"""WITH moved AS (UPDATE counters SET last_number = $1, last_key = $2 WHERE one)
    SELECT pg_notify('{CHANNEL}', $3 || ' ' || $4) WHERE $4 <> ''"""  # noqa: S608 — constants only


class PostgresTables:
    """All rows, within one transaction."""

    def __init__(self, statements: Statements, counters: Counters) -> None:
        self.statements = statements
        self.counters = counters
        self.hints: list[Hint] = []
        self.touched: set[int] = set()
        self.sessions = PostgresSessions(statements, counters)
        self.messages = PostgresMessages(statements)
        self.runs = PostgresRuns(statements, counters, self.touched)
        self.batches = PostgresBatches(statements, counters)
        self.requests = PostgresRequests(statements)
        self.usage = PostgresUsageSums(statements)
        self.counts = PostgresCounts(statements)
        self.leases = PostgresLeases(statements)
        self.outbox = PostgresOutbox(statements)


class CountersFrame:
    """Every transaction takes the counters first, which puts all writes of all replicas in one order, and leaves them moved on."""

    writers = WRITERS
    entering = f"""WITH mine AS (UPDATE {WRITERS} SET token = $3, seen_at = now() WHERE id = $1 AND fence = $2 RETURNING id)
        SELECT last_number, last_key, mine.id FROM counters CROSS JOIN mine WHERE one FOR UPDATE OF counters"""  # noqa: S608 — constants only

    def enter(self, row: Row, statements: Statements) -> PostgresTables:
        """All rows, and the counters as they are."""
        last_number, last_key, self._id = row
        self._before = (last_number, last_key)
        return PostgresTables(statements, Counters(last_number, last_key))

    def leave(self, rows: PostgresTables) -> None:
        """Stores the counters and tells the other replicas."""
        counters = rows.counters
        if self._before != (counters.last_number, counters.last_key) or rows.hints:
            said = write_hints(self._id, rows.hints, 0) if rows.hints else ""
            rows.statements.fetch(_LEAVE, counters.last_number, counters.last_key, "0", said)


class PostgresStorage:
    """Runs work on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Listener] = []

    @property
    def clock(self) -> DatabaseClock:
        """The database's clock."""
        return self._database.clock

    async def write(
        self, work: Callable[[Tables], T], announce: Callable[[T], None] | None = None, tell: Callable[[T], Sequence[Hint]] | None = None
    ) -> T:
        """Runs work in the next group commit."""
        alone = len(self._listeners) == 1 and not self._listeners[0].others
        return await self._database.write(work if tell is None or alone else _telling(work, tell), announce)

    async def read(self, work: Callable[[Tables], T], tenant: Tenant | None = None) -> T:
        """Runs work on a snapshot of a tenant's rows, or of all."""
        return await self._database.read(
            lambda statements: work(PostgresTables(statements, Counters(0, 0))), EVERYBODY if tenant is None else tenant
        )

    def listen(self, hear: Callable[[Heard], None]) -> bool:
        """Hears the other replicas' notifications; also this process's, where several services stand on this storage."""

        def heard(payload: str) -> None:
            news = read_hints(payload, self._database.writer_id if len(self._listeners) == 1 else "")
            if news is not None:
                hear(news)

        self._listeners.append(self._database.listen(CHANNEL, heard, lambda: hear(Heard(missed=True))))
        return True

    async def check(self) -> None:
        """Commits nothing but the writer's token."""
        await self._database.check()


def _telling(work: Callable[[Tables], T], tell: Callable[[T], Sequence[Hint]]) -> Callable[[Any], T]:
    """Work that leaves its hints with the rows."""

    def telling(rows: Any) -> T:
        result = work(rows)
        rows.hints += tell(result)
        return result

    return telling


@asynccontextmanager
async def open_postgres_storage(url: Callable[[], str], durability: Durability = "full") -> AsyncIterator[PostgresStorage]:
    """The backend in a database that was migrated. Raises StorageUnavailable, SchemaTooOld, SchemaTooNew."""
    server = Server(url, "session-store", durability)
    await require_newest(server, _LINEAGE)
    async with open_postgres(server, CountersFrame(), HotPath()) as database:
        database.keep_clock()
        yield PostgresStorage(database)
