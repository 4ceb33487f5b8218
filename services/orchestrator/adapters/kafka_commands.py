"""The topic of commands, read as one member of a consumer group, and the topic of those that cannot be carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition, errors
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from chassis.faults import Fault
from chassis.kafka.client import client_options, explained, learn, open_client
from chassis.kafka.publishing import Publisher, Record
from chassis.kafka.settings import KafkaSettings
from chassis.waypoints import waypoint
from chassis.world import Clock
from orchestrator.operations.commands import CommandDesk, Letter

BATCH = 32
"""Records of a partition that are taken, carried out one after the other, and committed together."""

HEARTBEAT, SESSION, REJOIN = 1.5, 6.0, 30.0
"""Seconds: between signs of life; until a member that gives none loses its partitions; until one that rebalances is not waited for."""

POLL, GRACE, COMMIT = 1.0, 2.0, 2.0
"""Seconds: to wait for records; for a command under way when its partition goes; for the brokers to keep an offset at that time."""

REPORT = 60.0
"""Seconds between two reports of the lag."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
MOST_MESSAGE = 1024

DEAD_HEADERS = {
    "reason": "the reason of the fault, such as INPUT_EMPTY.",
    "domain": "who refused it, such as orchestrator.behest.dev.",
    "message": "a sentence that says what is wrong and what to do.",
    "topic": "the topic it came from.",
    "partition": "the partition it came from.",
    "offset": "the offset it had there.",
}
"""The headers that a dead letter has besides its own, after behest-dead-; of several of a name the last one counts."""

STALE = (errors.CommitFailedError, errors.IllegalStateError)
UNREADABLE = (errors.CorruptRecordException, errors.UnsupportedCodecError)
EXPECTED = (Fault, errors.KafkaError, OSError, TimeoutError)

_logger = structlog.get_logger("orchestrator.commands")


class KafkaDeadLetters:
    """DeadLetters in a topic: key, value and headers as they came, and headers that say why and from where."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    async def put(self, letter: Letter, fault: Fault) -> None:
        """Returns when the brokers have it."""
        domain = f"{fault.service or 'orchestrator'}.behest.dev"
        about = (fault.reason, domain, fault.message[:MOST_MESSAGE], letter.topic, str(letter.partition), str(letter.offset))
        told = zip(DEAD_HEADERS, about, strict=True)
        headers = [*letter.headers, *((f"behest-dead-{name}", text.encode("utf-8", "replace")) for name, text in told)]
        elsewhere = f"kafka:{letter.topic}/{letter.partition}/{letter.offset}"
        await self._publisher.publish([Record(self._topic, letter.key or b"", letter.value, headers, elsewhere)])


class KafkaCommands:
    """Carries out the commands of a topic until it is left; whatever is in the way is said once and waited out."""

    def __init__(self, kafka: KafkaSettings, group: str, desk: CommandDesk, clock: Clock) -> None:
        self._kafka = kafka
        self._topic = kafka.topics.commands.name
        self._group = group
        self._desk = desk
        self._clock = clock
        self._leaving = asyncio.Event()
        self._member: Member | None = None
        self.problem: Fault | None = None

    async def lag(self) -> Mapping[int, int]:
        """By partition that this process reads: how many commands it has not settled. Raises errors of aiokafka."""
        return await self._member.lag() if self._member else {}

    def leave(self) -> None:
        """Finishes what is under way, and gives the partitions to others."""
        self._leaving.set()

    async def serve(self) -> None:
        """Returns after `leave`."""
        pause = FIRST_PAUSE
        while not self._leaving.is_set():
            began = self._clock.monotonic()
            try:
                await self._take_part()
            except* Exception as group:  # noqa: BLE001 — nothing that goes wrong here may end the process, which serves callers too
                self._fails(_first(group))
            self._member = None
            pause = FIRST_PAUSE if self._clock.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            await _within(self._leaving.wait(), pause)

    async def _take_part(self) -> None:
        async with _open_consumer(self._kafka, self._group, self._topic) as consumer, asyncio.TaskGroup() as tasks:
            self._member = member = Member(consumer, self._desk, self._topic, self._clock, tasks)
            attending = [tasks.create_task(member.watch()), tasks.create_task(self._report(member))]
            if self.problem:
                _logger.info("commands are read again")
            self.problem = None
            await self._leaving.wait()
            await member.release()
            for task in attending:
                task.cancel()

    def _fails(self, error: Exception) -> None:
        problem = explained(error, self._kafka, (self._topic,))
        if self.problem is None or self.problem.message != problem.message:
            defect = None if isinstance(error, EXPECTED) else error
            _logger.warning("commands wait for Kafka", reason=problem.reason, problem=problem.message, exc_info=defect)
        self.problem = problem

    async def _report(self, member: Member) -> None:
        while True:
            await self._clock.sleep(REPORT)
            with suppress(errors.KafkaError, TimeoutError):  # `watch` tells of them
                lag = await member.lag()
                _logger.info("commands", lag=sum(lag.values()), partitions={str(p): n for p, n in sorted(lag.items())})


@dataclass(slots=True)
class Lane:
    """A partition under way. Offsets below `settled` are carried out or put aside; `busy` while a command is.

    `careful` after something could not be read: records are taken one by one, so that those before it are carried out.
    """

    settled: int | None = None
    careful: bool = False
    stuck_at: int | None = None
    busy: bool = False
    ending: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Member(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """One membership of the group: a task for each partition that it is given, in order within each."""

    def __init__(self, consumer: AIOKafkaConsumer, desk: CommandDesk, topic: str, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        self._consumer = consumer
        self._desk = desk
        self._topic = topic
        self._clock = clock
        self._tasks = tasks
        self._lanes: dict[TopicPartition, Lane] = {}
        self._released = False

    async def watch(self) -> None:
        """Raises what goes wrong with the membership, of which no lane may be there to hear."""
        self._consumer.subscribe([self._topic], listener=self)
        nowhere = TopicPartition(self._topic, -1)
        while True:
            await _within(self._consumer.getmany(nowhere, timeout_ms=round(POLL * 1000)), 2 * POLL)

    async def lag(self) -> dict[int, int]:
        """Commands not settled, by partition. Asks the brokers: what was last fetched is old while commands wait."""
        settled = {place: lane.settled for place, lane in self._lanes.items() if lane.settled is not None}
        ends = await self._consumer.end_offsets(list(settled)) if settled else {}
        return {place.partition: max(0, end - settled[place]) for place, end in ends.items()}

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begins to carry out the commands of partitions."""
        for place in assigned:
            if not self._released and place not in self._lanes:
                lane = self._lanes[place] = Lane()
                lane.task = self._tasks.create_task(self._carry_out(place, lane))

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Returns when nothing of the partitions is under way here, and what was settled is committed."""
        lanes = {place: lane for place in revoked if (lane := self._lanes.pop(place, None)) is not None}
        for lane in lanes.values():
            lane.ending = True
            if lane.task is not None and not lane.busy:
                lane.task.cancel()
        tasks = [lane.task for lane in lanes.values() if lane.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GRACE)
            for task in late:  # whoever has the partition next carries the command out again, to no further effect
                task.cancel()
            if late:
                await asyncio.wait(late)
        await _within(self._commit(lanes), COMMIT)

    async def release(self) -> None:
        """Gives all partitions back."""
        self._released = True
        await self.on_partitions_revoked(list(self._lanes))

    async def _carry_out(self, place: TopicPartition, lane: Lane) -> None:
        lane.settled = await self._consumer.position(place)
        while not lane.ending:
            records = await self._read(place, lane)
            if records:
                waypoint("commands.received")
            await self._settle(records, lane)
            if records:
                await self._commit({place: lane})
                waypoint("commands.committed")

    async def _read(self, place: TopicPartition, lane: Lane) -> Sequence[ConsumerRecord]:
        """The next records; none when there are none yet, or what comes next cannot be read."""
        try:
            found = await self._consumer.getmany(place, timeout_ms=round(POLL * 1000), max_records=1 if lane.careful else BATCH)
        except Exception as error:
            if isinstance(error, EXPECTED) and not isinstance(error, UNREADABLE):
                raise
            await self._bear(place, lane, error)
            return ()
        records: Sequence[ConsumerRecord] = found.get(place, ())
        return records

    async def _bear(self, place: TopicPartition, lane: Lane, error: Exception) -> None:
        """Waits at a record that cannot be read: neither lost nor passed over, and said once."""
        offset = await self._consumer.position(place)
        if lane.careful and lane.stuck_at != offset:
            lane.stuck_at = offset
            remedy = "install what it is compressed with, or move the group's offset behind it (docs/operations.md)"
            _logger.error(
                "commands wait behind a record that cannot be read", **_name(place), offset=offset, problem=str(error), remedy=remedy
            )
        if lane.careful:
            await self._clock.sleep(LONGEST_PAUSE)
        lane.careful = True

    async def _settle(self, records: Iterable[ConsumerRecord], lane: Lane) -> None:
        lane.busy = True
        try:
            for record in records:
                if lane.ending:
                    return
                await self._desk.settle(_letter(record))
                lane.settled = record.offset + 1
        finally:
            lane.busy = False

    async def _commit(self, lanes: Mapping[TopicPartition, Lane]) -> None:
        offsets = {place: lane.settled for place, lane in lanes.items() if lane.settled is not None}
        try:
            if offsets:
                await self._consumer.commit(offsets)
        except STALE as error:  # others have the partitions now: they carry out again what was not committed
            _logger.info("offsets of commands not committed", partitions=sorted(p.partition for p in offsets), problem=str(error))


@asynccontextmanager
async def _open_consumer(kafka: KafkaSettings, group: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A connected consumer that is subscribed to nothing. Raises faults, and errors of aiokafka such as UnknownTopicOrPartitionError."""
    async with open_client(kafka, "commands") as client:  # says what is wrong, which the consumer would not
        await learn(client, {topic})
    consumer = AIOKafkaConsumer(
        **client_options(kafka, "commands"),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        partition_assignment_strategy=(StickyPartitionAssignor,),
        heartbeat_interval_ms=round(HEARTBEAT * 1000),
        session_timeout_ms=round(SESSION * 1000),
        rebalance_timeout_ms=round(REJOIN * 1000),
        max_poll_interval_ms=2**31 - 1,  # a command that waits for the store is no reason to leave: others wait for it too
        metadata_max_age_ms=30_000,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await _within(consumer.stop(), GRACE)


def _letter(record: ConsumerRecord) -> Letter:
    headers = tuple((name, value) for name, value in record.headers)
    return Letter(record.topic, record.partition, record.offset, record.timestamp / 1000, record.key, record.value, headers)


def _name(place: TopicPartition) -> dict[str, str | int]:
    return {"topic": place.topic, "partition": place.partition}


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def _within(work: object, seconds: float) -> None:
    """Waits for the work, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await work  # type: ignore[misc] # any awaitable
    except TimeoutError:
        return
