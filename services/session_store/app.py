"""Builds the session store. The only file that does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from behest.session.v1 import journal_service_pb2_grpc, outbox_service_pb2_grpc, session_service_pb2_grpc
from chassis.kafka.settings import NO_KAFKA, KafkaSettings
from chassis.rpc import App, Methods, default_pipeline, running
from chassis.world import World
from session_store.adapters.event_records import EventPublications
from session_store.adapters.memory.storage import open_memory_storage
from session_store.adapters.sqlite.storage import open_sqlite_storage
from session_store.api.convert_export import Writer
from session_store.api.journal import JournalServicer
from session_store.api.outbox import OutboxServicer
from session_store.api.sessions import SessionServicer, Transfers
from session_store.domain.retention import Retention
from session_store.domain.schedule import RunLimits
from session_store.operations.broadcast import Broadcaster
from session_store.operations.counting import Counting
from session_store.operations.exporting import Exporting
from session_store.operations.fleet import Fleet
from session_store.operations.importing import Importing
from session_store.operations.journal import JournalOperations
from session_store.operations.ports import Publications, Storage
from session_store.operations.relay import Relay, backlog
from session_store.operations.sessions import SessionOperations
from session_store.operations.upkeep import Upkeep
from session_store.settings import SessionStoreSettings

NAME = "session-store"
GENEROUS = RunLimits()
FOR_EVER = Retention()


@asynccontextmanager
async def open_app(settings: SessionStoreSettings, world: World, kafka: KafkaSettings = NO_KAFKA) -> AsyncIterator[App]:
    """The session store with its database open, for as long as the body runs. Raises StorageUnavailable, SchemaTooNew, SettingsInvalid."""
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(settings))
        world = replace(world, clock=getattr(storage, "clock", world.clock))  # replicas go by their database's time
        publications = await _open_publications(kafka, world, stack) if kafka.on else None
        service = open_service(storage, world, settings.lease_ms / 1000, settings.run_limits, publications, settings.kept)
        yield await stack.enter_async_context(service)


def open_storage(settings: SessionStoreSettings) -> AbstractAsyncContextManager[Storage]:
    """The backend that the settings name."""
    if settings.database.is_postgres:
        from session_store.adapters.postgres.storage import open_postgres_storage  # asyncpg is loaded where it is used

        return open_postgres_storage(settings.database.url, settings.durability)
    path = settings.database.sqlite_path
    return open_memory_storage() if path is None else open_sqlite_storage(path, settings.durability)


async def _open_publications(kafka: KafkaSettings, world: World, stack: AsyncExitStack) -> EventPublications:
    from chassis.kafka.publisher import open_publisher  # aiokafka is loaded where it is used

    publisher = await stack.enter_async_context(open_publisher(kafka, world.clock, NAME))
    return EventPublications(publisher, kafka.topics, kafka.deltas)


@asynccontextmanager
async def open_service(
    storage: Storage,
    world: World,
    lease_seconds: float,
    limits: RunLimits = GENEROUS,
    publications: Publications | None = None,
    retention: Retention = FOR_EVER,
) -> AsyncIterator[App]:
    """The service on any backend; what an own backend needs besides the conformance suite. It publishes where there is something to."""
    broadcaster = Broadcaster()
    fleet = Fleet(storage, broadcaster, world, lease_seconds, limits)
    broadcaster.hears = storage.listen(fleet.hear)
    broadcaster.start_after(await storage.read(lambda tables: tables.batches.last_number()))
    publishes = publications is not None
    works = {"session-store-keep": fleet.keep(), "session-store-upkeep": Upkeep(storage, broadcaster, world, retention, publishes).run()}
    if publications is not None:
        works["session-store-relay"] = Relay(storage, publications, world, lease_seconds, broadcaster.committed).run()
    journal = JournalServicer(JournalOperations(storage, broadcaster, fleet, world, limits), fleet, world.clock.now)
    outbox = OutboxServicer(partial(backlog, storage, publications), publishes)
    methods = _methods(_sessions(storage, broadcaster, world, publishes), journal, outbox)
    async with running(**works):
        try:
            yield App(NAME, methods, storage.check, _drain(broadcaster, fleet))
        finally:
            broadcaster.close()
            fleet.close()


def _sessions(storage: Storage, broadcaster: Broadcaster, world: World, publishes: bool) -> SessionServicer:
    transfers = Transfers(Exporting(storage), lambda: Importing(storage, world, publishes), lambda: Writer(world.clock.now()))
    return SessionServicer(SessionOperations(storage, broadcaster, world, publishes), Counting(storage), transfers)


def _methods(sessions: SessionServicer, journal: JournalServicer, outbox: OutboxServicer) -> Methods:
    methods = Methods(NAME, default_pipeline())
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, methods.server())
    journal_service_pb2_grpc.add_JournalServiceServicer_to_server(journal, methods.server())
    outbox_service_pb2_grpc.add_OutboxServiceServicer_to_server(outbox, methods.server())
    return methods


def _drain(broadcaster: Broadcaster, fleet: Fleet) -> Callable[[], Awaitable[None]]:
    """Sends followers and drivers to another replica. Unary calls go on to the end of the grace."""

    async def drain() -> None:
        broadcaster.close()
        fleet.close()

    return drain
