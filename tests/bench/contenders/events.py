"""Ours: the log of a store on SQLite, brought to Kafka by its relay. And a bare aiokafka producer that sends the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer
from google.protobuf.message import Message
from tests.bench.meters import Meter
from tests.bench.worker import Sample

from behest.event.v1 import event_pb2 as pb
from behest.session.v1.journal_service_pb2 import FollowResponse
from chassis.kafka.publisher import open_publisher
from chassis.kafka.publishing import Record
from chassis.kafka.settings import KafkaSettings, TopicsSettings
from chassis.world import World
from session_store.adapters.event_records import EventPublications, event_records
from session_store.adapters.sqlite.storage import open_sqlite_storage
from session_store.domain.batch import Announcement, Batch
from session_store.domain.run import Place, Run, RunState
from session_store.domain.session import RunId, Session, SessionId, Tenant
from session_store.operations.ports import Storage, Tables
from session_store.operations.relay import Relay

TENANT = Tenant("default")
TURNS = 10
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WINDOW = 4000  # records that the bare producer has under way; more only cost memory


def a_run() -> list[list[pb.Event]]:
    """The events of a run of ten tool turns, by append."""
    created = pb.Event(run_created=pb.RunCreated(input_message_id="01990000-0000-7000-8000-000000000000"), traceparent=TRACE)
    created.run_created.agent.instructions = "You answer questions about orders. Use the tools; do not guess numbers." * 4
    appends = [[created], [pb.Event(run_started=pb.RunStarted(driver_id="driver-1", epoch=1))]]
    for turn in range(1, TURNS + 1):
        appends += _turn(turn)
    appends.append([pb.Event(run_completed=pb.RunCompleted(message_id="01990000-0000-7000-8000-000000000001", turns=TURNS))])
    for sequence, event in enumerate((event for append in appends for event in append), 1):
        event.sequence = sequence
        event.time.FromNanoseconds(1_700_000_000_123_456_000 + sequence)
    return appends


def _turn(turn: int) -> list[list[pb.Event]]:
    message, call = "01990000-0000-7000-8000-000000000002", f"call_{turn}"
    finished = pb.ToolExecutionFinished(turn=turn, content_digest="d" * 64, message_id=message)
    finished.result.call_id = call
    usage = pb.UsageRecorded(turn=turn)
    usage.call.input_tokens, usage.total.input_tokens = 1234, 1234 * turn
    completed = pb.ToolCallCompleted(turn=turn)
    completed.call.id, completed.call.name, completed.call.arguments = call, "order_status", b'{"number": "A-1017"}'
    planned = pb.ToolExecutionStarted(turn=turn, call_id=call, tool="order_status", arguments_digest="a" * 64)
    kinds: list[list[Message]] = [
        [pb.ContextBuilt(turn=turn, sources=[{"name": "history", "items": turn, "tokens": 100}]), pb.ModelStarted(turn=turn, attempt=1)],
        [completed, pb.ModelFinished(turn=turn, provider="openai", model="gpt-4.1"), usage, planned],
        [finished, pb.MessagesCommitted(turn=turn, message_ids=[message])],
    ]
    return [[_event(kind) for kind in append] for append in kinds]


def _event(kind: Message) -> pb.Event:
    fields = (field for field in pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields if field.message_type == kind.DESCRIPTOR)
    return pb.Event(**{next(fields).name: kind})


RUN = a_run()
EVENTS = sum(map(len, RUN))
DATA = [FollowResponse(events=append).SerializeToString() for append in RUN]


def batches_of(number: int, first_number: int) -> list[Announcement]:
    """A run's batches as the store has them."""
    run, session = RunId(f"01990000-0000-7000-8000-{number:012d}"), SessionId(f"01991111-0000-7000-8000-{number:012d}")
    found, first = [], 1
    for index, (append, data) in enumerate(zip(RUN, DATA, strict=True)):
        found.append(Announcement(TENANT, Batch(first_number + index, run, session, first, first + len(append) - 1, data)))
        first += len(append)
    return found


class RelayContender:
    """Publishes what the log has gathered."""

    def __init__(self, storage: Storage, publications: EventPublications) -> None:
        self._storage = storage
        self._publications = publications
        self._runs = itertools.count()

    async def measure(self, runs: int) -> Sample:
        """Events each second, and CPU for each, until so many runs are published and that is noted."""
        for _ in range(runs):
            number = next(self._runs)
            await self._storage.write(lambda tables, number=number: _store(tables, number))  # type: ignore[misc]
        relay = Relay(self._storage, self._publications, World(), lease_seconds=3.0)
        last = await self._storage.read(lambda tables: tables.batches.last_number())
        meter = Meter([os.getpid()])
        relaying = asyncio.create_task(relay.run())
        while min((held.number for held in relay.held.values()), default=0) < last:
            await asyncio.sleep(0.001)
        spent = meter.spent()
        relaying.cancel()
        await asyncio.wait([relaying])
        return {"cpu": spent.cpu / (runs * EVENTS), "rate": runs * EVENTS / spent.wall}


def _store(tables: Tables, number: int) -> None:
    batches = [announcement.batch for announcement in batches_of(number, 0)]
    session = tables.sessions.add(Session(TENANT, batches[0].session_id, 0.0, 0.0))
    run = Run(TENANT, batches[0].run_id, batches[0].session_id, 0.0, RunState.COMPLETED, Place.HOLDING, EVENTS, session_key=session)
    key = tables.runs.add(run)
    for batch in batches:
        tables.batches.add(TENANT, session, key, batch.first, batch.last, batch.data)


@contextlib.asynccontextmanager
async def open_relay(folder: str, kafka: str, topic: str) -> AsyncIterator[RelayContender]:
    """The relay on a file."""
    settings = KafkaSettings(bootstrap_servers=kafka)
    topics = TopicsSettings.model_validate({"runs": {"name": topic}})
    async with (
        open_sqlite_storage(str(Path(folder) / "events.db"), "full") as storage,
        open_publisher(settings, World().clock, "bench") as publisher,
    ):
        yield RelayContender(storage, EventPublications(publisher, topics, deltas=False))


class BareProducer:
    """Sends the same records, each by itself, as a service without an outbox would."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._runs = itertools.count()

    async def measure(self, runs: int) -> Sample:
        """Events each second, and CPU for each, until all copies have them."""
        records = [
            record
            for _ in range(runs)
            for announcement in batches_of(next(self._runs), 1)
            for record in event_records(announcement, self._topic, None)
        ]
        meter = Meter([os.getpid()])
        for start in range(0, len(records), WINDOW):
            await self._send(records[start : start + WINDOW])
        spent = meter.spent()
        return {"cpu": spent.cpu / len(records), "rate": len(records) / spent.wall}

    async def _send(self, records: Sequence[Record]) -> None:
        send = self._producer.send
        sent = [await send(record.topic, value=record.value, key=record.key, headers=record.headers) for record in records]
        await asyncio.gather(*sent)


@contextlib.asynccontextmanager
async def open_bare_producer(kafka: str, topic: str) -> AsyncIterator[BareProducer]:
    """An idempotent producer that waits for all copies, with batches as large as ours."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", enable_idempotence=True, max_batch_size=1_000_000, max_request_size=1_000_000
    )
    await producer.start()
    try:
        yield BareProducer(producer, topic)
    finally:
        await producer.stop()
