"""Builds the session store. The only file that does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from behest.session.v1 import journal_service_pb2_grpc, session_service_pb2_grpc
from chassis.rpc import App, Methods, default_pipeline
from chassis.world import World
from session_store.adapters.memory.storage import open_memory_storage
from session_store.adapters.sqlite.storage import open_sqlite_storage
from session_store.api.journal import JournalServicer
from session_store.api.sessions import SessionServicer
from session_store.operations.broadcast import Broadcaster
from session_store.operations.fleet import Fleet
from session_store.operations.journal import JournalOperations
from session_store.operations.ports import Storage
from session_store.operations.sessions import SessionOperations
from session_store.settings import SessionStoreSettings

NAME = "session-store"


@asynccontextmanager
async def open_app(settings: SessionStoreSettings, world: World) -> AsyncIterator[App]:
    """The session store with its database open, for as long as the body runs. Raises StorageUnavailable, SchemaTooNew."""
    async with open_storage(settings) as storage, open_service(storage, world, settings.lease_ms / 1000) as app:
        yield app


def open_storage(settings: SessionStoreSettings) -> AbstractAsyncContextManager[Storage]:
    """The backend that the settings name."""
    path = settings.sqlite_path
    return open_memory_storage() if path is None else open_sqlite_storage(path, settings.durability)


@asynccontextmanager
async def open_service(storage: Storage, world: World, lease_seconds: float) -> AsyncIterator[App]:
    """The service on any backend; what an own backend needs besides the conformance suite."""
    broadcaster = Broadcaster()
    broadcaster.start_after(await storage.read(lambda tables: tables.batches.last_number()))
    fleet = Fleet(storage, broadcaster, world, lease_seconds)
    keeping = asyncio.create_task(fleet.keep(), name="session-store-keep")
    try:
        yield App(NAME, _methods(storage, broadcaster, fleet, world), storage.check, _drain(broadcaster, fleet))
    finally:
        broadcaster.close()
        fleet.close()
        keeping.cancel()
        await asyncio.wait([keeping])


def _methods(storage: Storage, broadcaster: Broadcaster, fleet: Fleet, world: World) -> Methods:
    methods = Methods(NAME, default_pipeline())
    sessions = SessionServicer(SessionOperations(storage, broadcaster, world))
    journal = JournalServicer(JournalOperations(storage, broadcaster, fleet, world), fleet, world.clock.now)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, methods.server())
    journal_service_pb2_grpc.add_JournalServiceServicer_to_server(journal, methods.server())
    return methods


def _drain(broadcaster: Broadcaster, fleet: Fleet) -> Callable[[], Awaitable[None]]:
    """Sends followers and drivers to another replica. Unary calls go on to the end of the grace."""

    async def drain() -> None:
        broadcaster.close()
        fleet.close()

    return drain
