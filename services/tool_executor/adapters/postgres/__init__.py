"""What the tool executor keeps in PostgreSQL, shared by all of its replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.migrations import Lineage
from chassis.postgres import DatabaseClock, Durability, PlainFrame, Server, open_postgres, require_newest
from tool_executor.adapters.postgres.cancellations import PostgresCancellations
from tool_executor.adapters.postgres.executions import PostgresExecutions, open_postgres_executions
from tool_executor.adapters.postgres.registrations import PostgresRegistrations
from tool_executor.adapters.postgres.writing import CHANNEL


@dataclass(frozen=True, slots=True)
class PostgresStorage:
    """Everything of one database. `listen` has a function called when there is word of news, or some may have been missed."""

    executions: PostgresExecutions
    registrations: PostgresRegistrations
    cancellations: PostgresCancellations
    clock: DatabaseClock
    listen: Callable[[Callable[[], None]], object]


@asynccontextmanager
async def open_postgres_storage(
    url: Callable[[], str], durability: Durability = "full", publishes: bool = False
) -> AsyncIterator[PostgresStorage]:
    """The storage in a database that was migrated; see open_postgres_executions. Raises StorageUnavailable, SchemaTooOld, SchemaTooNew."""
    server = Server(url, "tool-executor", durability)
    await require_newest(server, Lineage.of("tool_executor"))
    frame = PlainFrame("tool_executor_writers")
    async with open_postgres(server, frame) as database, open_postgres_executions(database, publishes) as executions:
        yield PostgresStorage(
            executions,
            PostgresRegistrations(database),
            PostgresCancellations(database),
            database.keep_clock(),
            lambda look: database.listen(CHANNEL, lambda _: look(), look),
        )
