"""What the gateway keeps in PostgreSQL, shared by all of its replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.migrations import Lineage
from chassis.postgres import PlainFrame, Server, open_postgres, require_newest
from chassis.rpc import running
from chassis.world import World
from provider_gateway.adapters.postgres.bank import PostgresBank
from provider_gateway.adapters.postgres.signals import PostgresSignals


@dataclass(frozen=True, slots=True)
class PostgresStorage:
    """Everything of one database."""

    bank: PostgresBank
    signals: PostgresSignals
    check: Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_postgres_storage(url: Callable[[], str], world: World) -> AsyncIterator[PostgresStorage]:
    """The storage in a database that was migrated. Raises StorageUnavailable, SchemaTooOld, SchemaTooNew."""
    server = Server(url, "provider-gateway")
    await require_newest(server, Lineage.of("provider_gateway"))
    async with open_postgres(server, PlainFrame("provider_gateway_writers")) as database:
        clock = database.keep_clock()
        signals = PostgresSignals(database, world.clock)
        async with running(signals=signals.run()):
            yield PostgresStorage(PostgresBank(database, clock, world.ids.new()), signals, database.check)
