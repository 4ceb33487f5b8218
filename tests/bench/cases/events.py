"""What it costs to bring the log's events to Kafka, beside a bare producer that sends the same bytes."""

from __future__ import annotations

import contextlib

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench, compare
from tests.bench.worker import open_worker

from kit.kafka import open_kafka

CASE = "events to Kafka, acknowledged by all copies"
EVENTS = "tests.bench.contenders.events"
PARTITIONS = 12
AIM = 25 / 18  # 25 µs an event, where a bare producer takes 17 to 19


async def run(bench: Bench) -> list[Figure]:
    """A backlog of runs, read from SQLite, published and noted."""
    async with contextlib.AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(open_kafka(bench.folder / "kafka"))
        topic = await kafka.create_topic("bench", PARTITIONS)
        at = {"kafka": kafka.bootstrap_servers, "topic": topic}
        workers = {
            "bare": await stack.enter_async_context(open_worker(f"{EVENTS}:open_bare_producer", **at)),
            "ours": await stack.enter_async_context(open_worker(f"{EVENTS}:open_relay", folder=str(bench.folder), **at)),
        }
        await compare(workers, 1, runs=20)
        found = await compare(workers, bench.rounds(6), runs=bench.size(300, 100))
    ours, bare = found["ours"], found["bare"]
    return [
        Figure(CASE, "CPU for each event", ours["cpu"], bare["cpu"], "bare aiokafka producer", "µs", Budget(aim=AIM)),
        Figure(CASE, "events a second, one process", ours["rate"], bare["rate"], "bare aiokafka producer", "/s"),
    ]
