"""A store whose outbox tests look into, and relays beside it as of other processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from behest.session.v1.outbox_service_pb2 import GetOutboxRequest, GetOutboxResponse
from behest.session.v1.outbox_service_pb2_grpc import OutboxServiceStub
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from chassis.kafka.publishing import Publisher
from chassis.kafka.settings import NO_KAFKA, KafkaSettings, TopicsSettings
from chassis.rpc import LocalChannel
from chassis.world import World
from kit.store import ManualClock, Store, appending, ending, event, open_driver, opening
from session_store.adapters.event_records import EventPublications
from session_store.app import open_service
from session_store.operations.ports import Storage
from session_store.operations.relay import Relay

LEASE = 0.3  # of relays; drivers have theirs for long


@dataclass
class Outbox(Store):
    """A store, what asks for its outbox, and its storage to run relays on."""

    outbox: OutboxServiceStub = None  # type: ignore[assignment]

    async def write(self, run: str, session: str, appends: int = 3, *, ends: bool = True) -> list[str]:
        """A run with events in several batches; the ids they are published under."""
        await self.journal.OpenRun(opening(run, session, driver_id="d1"))
        after = 1
        for _ in range(appends):
            events = [event(run, after + n, session_id=session, kind="tool_execution_started") for n in (1, 2)]
            request = appending(run, "d1", after, 1, session_id=session)
            del request.events[:]
            request.events.extend(events)
            after = (await self.journal.Append(request)).sequence
        if ends:
            after = (await self.journal.Append(ending(run, "d1", after, session_id=session))).sequence
        return [f"{run}/{sequence}" for sequence in range(1, after + 1)]

    async def write_many(self, count: int, sessions: int = 1 << 30, **values: int) -> list[str]:
        """Runs r0 to r<count - 1> at once, dealt to so many sessions; the ids of all their events."""
        dealt = [range(first, count, sessions) for first in range(min(sessions, count))]
        written = await asyncio.gather(*(self._write_in_turn(f"s{index}", numbers, **values) for index, numbers in enumerate(dealt)))
        return [id_ for ids in written for id_ in ids]

    async def _write_in_turn(self, session: str, numbers: range, **values: int) -> list[str]:
        return [id_ for n in numbers for id_ in await self.write(f"r{n}", session, **values)]

    async def standing(self) -> GetOutboxResponse:
        return await self.outbox.GetOutbox(GetOutboxRequest())

    async def until(self, true: Callable[[GetOutboxResponse], bool], seconds: float = 20) -> GetOutboxResponse:
        """The outbox as soon as something is true of it."""
        async with asyncio.timeout(seconds):
            while not true(standing := await self.standing()):
                await asyncio.sleep(0.01)
        return standing

    async def until_published(self, seconds: float = 20) -> None:
        """Returns when the outbox says that all is published."""
        await self.until(lambda standing: standing.published_number == standing.last_number > 0, seconds)


@contextlib.asynccontextmanager
async def open_outbox(storage: Storage, publisher: Publisher | None = None, kafka: KafkaSettings = NO_KAFKA) -> AsyncIterator[Outbox]:
    """A store on a storage; it publishes itself when it is given where to."""
    publications = EventPublications(publisher, kafka.topics, kafka.deltas) if publisher else None
    async with open_service(storage, World(), 60.0, publications=publications) as app, LocalChannel(app.methods) as channel:
        store = Outbox(SessionServiceStub(channel), JournalServiceStub(channel), ManualClock(), storage, outbox=OutboxServiceStub(channel))
        async with open_driver(store):
            yield store


@contextlib.asynccontextmanager
async def publishing(storage: Storage, publisher: Publisher, deltas: bool = False, lease: float = LEASE) -> AsyncIterator[Relay]:
    """A relay at work, as of another process; it leaves in order at the end."""
    relay = Relay(storage, EventPublications(publisher, TopicsSettings(), deltas), World(), lease)
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        await asyncio.wait([task])
