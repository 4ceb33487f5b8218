"""The servers that cases need beside the suite: a real PostgreSQL that syncs every commit, as in production."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kit.postgres import PostgresServer, private_server

SYNCED = {"fsync": "on", "synchronous_commit": "on", "shared_buffers": "128MB", "max_connections": "200", "autovacuum": "off"}


@contextlib.asynccontextmanager
async def open_postgres() -> AsyncIterator[PostgresServer]:
    """A server for as long as the body runs."""
    opening = private_server(SYNCED)
    server = await asyncio.to_thread(opening.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)
