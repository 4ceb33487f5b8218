"""Publishing to Kafka, for as long as it takes: whatever is in the way is said once and waited out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import structlog
from aiokafka import errors

from chassis.faults import Fault
from chassis.kafka.client import client_options, explained
from chassis.kafka.lanes import Lane
from chassis.kafka.producer import Producer
from chassis.kafka.publishing import Record
from chassis.kafka.settings import KafkaSettings
from chassis.world import Clock

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
MOST_CAUSES = 16  # of one outage, told apart in the log


class KafkaPublisher:
    """A Publisher to Kafka: all copies acknowledge, nothing twice save after a cut, records of a key in order."""

    def __init__(self, settings: KafkaSettings, clock: Clock, name: str) -> None:
        self._settings = settings
        self._clock = clock
        self._producer = Producer(settings, name)
        self._turn = asyncio.Lock()
        self._causes: dict[str, Fault] = {}
        self._pause = FIRST_PAUSE
        self.tries = 0  # in vain, since the last that was not

    @property
    def problem(self) -> Fault | None:
        """What keeps records from being published; the newest cause of an outage that lasts."""
        return next(reversed(self._causes.values()), None)

    async def publish(self, records: Iterable[Record]) -> None:
        """Returns when the brokers have all records."""
        async with self._turn:
            waiting, lanes = list(records), list[Lane]()
            while waiting or lanes:
                try:
                    lanes, waiting = lanes or await self._producer.lanes(waiting), []
                    await self._producer.send(lanes, self._clock.now())
                    self._works()
                except errors.UnknownTopicOrPartitionError as error:  # it may come back with other partitions
                    self._producer.forget(lanes)
                    waiting, lanes = [*waiting, *(record for lane in lanes for record in lane.left)], []
                    await self._fails(error)
                except (Fault, errors.KafkaError, OSError, TimeoutError) as error:
                    await self._fails(error)
                lanes = [lane for lane in lanes if not lane.finished]

    async def close(self) -> None:
        """Cuts the connections."""
        await self._producer.close()

    def _works(self) -> None:
        if self._causes:
            structlog.get_logger().info("publishing to Kafka goes on")
        self._causes.clear()
        self._pause, self.tries = FIRST_PAUSE, 0

    async def _fails(self, error: Exception) -> None:
        """Says what is in the way, unless it was said, and waits."""
        problem = explained(error, self._settings)
        self.tries += 1
        known = self._causes.pop(problem.message, None) is not None
        self._causes[problem.message] = problem
        if not known and len(self._causes) <= MOST_CAUSES:
            structlog.get_logger().warning("publishing to Kafka waits", reason=problem.reason, problem=problem.message)
        elif len(self._causes) > MOST_CAUSES:
            del self._causes[next(iter(self._causes))]
        await self._clock.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


@asynccontextmanager
async def open_publisher(settings: KafkaSettings, clock: Clock, name: str) -> AsyncIterator[KafkaPublisher]:
    """A publisher, which connects when there is something to publish. Raises SettingsInvalid for secrets and files that cannot be read."""
    client_options(settings)
    publisher = KafkaPublisher(settings, clock, name)
    try:
        yield publisher
    finally:
        await publisher.close()
