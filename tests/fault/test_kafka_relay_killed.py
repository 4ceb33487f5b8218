"""A session store that dies between publishing and noting that it did publishes the same again, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from behest.session.v1.outbox_service_pb2_grpc import OutboxServiceStub
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from chassis.rpc import open_channel
from chassis.waypoints import PERMIT
from kit.kafka import KafkaCluster
from kit.outbox import Outbox
from kit.ports import free_port
from kit.publishing import by_run, first_ids
from kit.store import ManualClock, open_driver
from suite.processes import serves

ROOT = Path(__file__).parent.parent.parent


@contextlib.asynccontextmanager
async def running_store(folder: Path, settings: dict[str, Any], *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A session store as a process, and its address; it is killed at the end."""
    address = f"127.0.0.1:{free_port()}"
    own = {"listen": address, "database": f"sqlite:{folder / 'store.db'}", "durability": "normal", "lease_ms": 1000}
    (folder / "behest.yaml").write_text(yaml.safe_dump({"session_store": own, **settings}))
    path = os.pathsep.join(str(ROOT / name) for name in ("services", "gen"))
    command = [sys.executable, "-m", "session_store", "--config", str(folder / "behest.yaml"), *options]
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | {"PYTHONPATH": path, PERMIT: "1"})
    try:
        yield process, address
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def calling(address: str) -> AsyncIterator[Outbox]:
    """Calls to a store in another process."""
    async with asyncio.timeout(30):
        await serves(address)
    async with open_channel(address, "grpc", frozenset()) as channel:
        store = Outbox(
            SessionServiceStub(channel),
            JournalServiceStub(channel),
            ManualClock(),
            None,
            outbox=OutboxServiceStub(channel),  # type: ignore[arg-type]
        )
        yield store


@pytest.mark.feature("E2")
@pytest.mark.feature("E6")
async def test_what_was_published_and_not_noted_is_published_again_under_the_same_ids(kafka: KafkaCluster, tmp_path: Path) -> None:
    topic = await kafka.create_topic(kafka.topic("runs"), partitions=3)
    with_kafka = {"kafka": {"bootstrap_servers": kafka.bootstrap_servers, "topics": {"runs": {"name": topic}}}}
    async with running_store(tmp_path, {}) as (_, address), calling(address) as store, open_driver(store):
        ids = await store.write_many(20, sessions=6)
    async with running_store(tmp_path, with_kafka, "--waypoint", "relay.sent:1:kill") as (dying, _):
        async with asyncio.timeout(30):
            assert await dying.wait() == -9
    first = [dict(record.headers)["ce_id"].decode() for record in await kafka.records(topic)]
    assert first, "it died after it had published"
    async with running_store(tmp_path, with_kafka) as (_, address), calling(address) as store:
        await store.until_published()
    found = [dict(record.headers)["ce_id"].decode() for record in await kafka.records(topic)]
    assert Counter(found) == Counter(ids) + Counter(first)
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in by_run(first_ids(found)).values())
