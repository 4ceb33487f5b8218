"""Real Apache Kafka for tests: brokers that a test starts, kills, freezes and starts again, and short ways to read and write topics.

The jars come from Maven Central once and stay in the user's cache. `KAFKA_BOOTSTRAP_SERVERS` names a cluster to use instead.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from kit.kafka_broker import START_SECONDS, Broker, Leash, lay_out, missing

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs each attempt at a broker that is killed or not up yet
GIVEN = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")

T = TypeVar("T")


@dataclass
class KafkaCluster:
    """A cluster to test with. `brokers` is empty when the cluster was given. Topics of `topic(name)` are this object's own."""

    bootstrap_servers: str
    brokers: list[Broker] = field(default_factory=list)
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}.")

    def topic(self, name: str) -> str:
        """A name that no other test uses."""
        return self.prefix + name

    async def serving(self) -> None:
        """Returns when all brokers that were started serve; fails with their logs when they do not."""
        running = [broker for broker in self.brokers if broker.process is not None]
        try:
            async with asyncio.timeout(START_SECONDS):
                while await self._live() < max(1, len(running)):
                    await asyncio.sleep(0.05)
                    self._check(running)
        except TimeoutError:
            raise RuntimeError(f"Kafka does not serve after {START_SECONDS} s:\n" + self.logs()) from None

    def _check(self, running: list[Broker]) -> None:
        if any(broker.process is not None and broker.process.poll() is not None for broker in running):
            raise RuntimeError("a broker ended at its start:\n" + self.logs())

    async def _live(self) -> int:
        try:
            async with self.admin() as admin:
                return len((await admin.describe_cluster())["brokers"])
        except (KafkaError, OSError):
            return 0

    def logs(self) -> str:
        """What the brokers say."""
        return "\n".join(f"--- {broker.address}\n{broker.log}" for broker in self.brokers)

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A connected admin client."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=5000)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    async def create_topic(self, name: str, partitions: int = 1, replicas: int = 0, **config: str) -> str:
        """Creates a topic, which may exist; its name. Config keys are Kafka's with underscores for dots."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        new = NewTopic(name, partitions, replicas or max(1, len(self.brokers)), topic_configs=settings)
        async with self.admin() as admin:
            with contextlib.suppress(TopicAlreadyExistsError):
                await admin.create_topics([new])
            while not await self._led(admin, name, partitions):
                await asyncio.sleep(0.02)
        return name

    @staticmethod
    async def _led(admin: AIOKafkaAdminClient, name: str, partitions: int) -> bool:
        (topic,) = await admin.describe_topics([name])
        leaders = [partition["leader"] for partition in topic["partitions"]]
        return len(leaders) == partitions and all(leader >= 0 for leader in leaders)

    async def delete_topic(self, name: str) -> None:
        """Deletes a topic."""
        async with self.admin() as admin:
            await admin.delete_topics([name])

    @contextlib.asynccontextmanager
    async def producer(self, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
        """A started producer."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers, **{"acks": "all", "enable_idempotence": True, "request_timeout_ms": 3000, **options}
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def send(self, topic: str, value: bytes | None, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Writes one record and waits for all copies."""
        async with self.producer() as producer:
            await producer.send_and_wait(topic, value, key=key, headers=list(headers))

    async def records(self, topic: str) -> list[ConsumerRecord]:
        """Every record that the topic holds now: by partition, in order of offsets."""
        async with self.admin() as admin:
            (found,) = await admin.describe_topics([topic])
        partitions = sorted(TopicPartition(topic, partition["partition"]) for partition in found["partitions"])
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest", request_timeout_ms=5000
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            return await _read(consumer, partitions)
        finally:
            await consumer.stop()

    async def records_when(
        self, topic: str, enough: Callable[[list[ConsumerRecord]], object], seconds: float = 30.0
    ) -> list[ConsumerRecord]:
        """Every record of the topic, as soon as they are enough; fails with what there is when they never are."""
        found: list[ConsumerRecord] = []
        try:
            async with asyncio.timeout(seconds):
                while not enough(found := await self.records(topic)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            held = [(record.partition, record.offset, record.headers) for record in found]
            raise AssertionError(f"after {seconds} s {topic} holds {len(found)} records, not enough: {held}") from None
        return found

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """The group's committed offsets by partition."""
        async with self.admin() as admin:
            offsets = await admin.list_consumer_group_offsets(group)
        return {place.partition: at.offset for place, at in offsets.items() if place.topic == topic}


async def _read(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> list[ConsumerRecord]:
    ends = await consumer.end_offsets(partitions)
    found: dict[TopicPartition, list[ConsumerRecord]] = {partition: [] for partition in partitions}
    await consumer.seek_to_beginning(*partitions)
    while [p for p in partitions if await consumer.position(p) < ends[p]]:
        for partition, batch in (await consumer.getmany(timeout_ms=200)).items():
            found[partition] += [record for record in batch if record.offset < ends[partition]]
    return [record for partition in partitions for record in found[partition]]


@contextlib.asynccontextmanager
async def open_kafka(folder: Path, brokers: int = 1, *, advertised: Sequence[str] = ()) -> AsyncIterator[KafkaCluster]:
    """A private cluster in a folder, to be harmed at will.

    `advertised` are the brokers' addresses for clients when proxies stand before them; then wait with `serving()` once the proxies run.
    """
    leash = Leash()
    try:
        yield await _started(folder, brokers, advertised, leash)
    finally:
        leash.kill()


async def _started(folder: Path, brokers: int, advertised: Sequence[str], leash: Leash) -> KafkaCluster:
    cluster = KafkaCluster("", lay_out(folder, brokers, advertised, leash))
    cluster.bootstrap_servers = ",".join(advertised or [broker.address for broker in cluster.brokers])
    identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    for preparing in [broker.format(identity) for broker in cluster.brokers]:
        if preparing.wait(START_SECONDS):
            raise RuntimeError("Kafka's storage could not be prepared:\n" + cluster.logs())
    for broker in cluster.brokers:
        broker.start()
    if not advertised:
        await cluster.serving()
    return cluster


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in a thread of its own, whatever loop there is."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[str]:
    """The bootstrap servers of the session's shared broker, or of the given cluster."""
    if GIVEN:
        yield GIVEN
        return
    if missing():
        pytest.skip(missing())
    with tempfile.TemporaryDirectory(prefix="behest-kafka-", ignore_cleanup_errors=True) as folder:
        leash = Leash()
        try:
            yield run_apart(_started(Path(folder), 1, (), leash)).bootstrap_servers
        finally:
            leash.kill()


@pytest.fixture
def kafka(kafka_server: str) -> KafkaCluster:
    """The shared cluster, with topic names of this test's own. It must not be harmed."""
    return KafkaCluster(kafka_server)


@pytest.fixture
def private_kafka(tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[KafkaCluster]]:
    """Opens a cluster that the test may harm; takes the number of brokers."""
    if GIVEN:
        pytest.skip("optional: brokers of the cluster at KAFKA_BOOTSTRAP_SERVERS are not ours to harm")
    if missing():
        pytest.skip(missing())
    return functools.partial(open_kafka, tmp_path / "kafka")
