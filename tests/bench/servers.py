"""The servers that cases need beside the suite: a real PostgreSQL that syncs every commit, as in production."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
from tests.bench.meters import cpu_seconds

from chassis.migrations import Lineage, migrate
from kit.postgres import SERVICE, SUPERUSER, PostgresServer, private_server
from kit.postgres_keeper import family

SYNCED = {"fsync": "on", "synchronous_commit": "on", "shared_buffers": "128MB", "max_connections": "200", "autovacuum": "off"}


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server. Each contender gets databases of its own on it."""

    server: PostgresServer

    async def database(self, name: str, *services: str) -> str:
        """The URL of a new database of that name, migrated for these services."""
        connection = await asyncpg.connect(self.server.url(user=SUPERUSER))
        try:
            await connection.execute(f"CREATE DATABASE {name} OWNER {SERVICE}")
        finally:
            await connection.close()
        url = self.server.url(name)
        for service in services:
            await migrate(url, Lineage.of(service))
        return url

    def pids(self) -> tuple[int, ...]:
        """Its processes as they are now."""
        return tuple(family(self.server._pid()))

    def cpu(self) -> float:
        """CPU seconds that its present processes have consumed."""
        return sum(cpu_seconds(pid) for pid in self.pids())


@contextlib.asynccontextmanager
async def open_postgres() -> AsyncIterator[Postgres]:
    """A server for as long as the body runs."""
    opening = private_server(SYNCED)
    server = await asyncio.to_thread(opening.__enter__)
    try:
        yield Postgres(server)
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)
