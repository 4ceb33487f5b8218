"""Ours: the session store in this process, called as the orchestrator calls it. And bare commits of the databases it stands on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
from tests.bench.meters import Meter
from tests.bench.worker import Sample

from behest.event.v1.event_pb2 import Event, RunCreated, TextDelta
from behest.run.v1.run_pb2 import Run
from behest.session.v1.journal_service_pb2 import AppendRequest, DriveRequest, OpenRunRequest
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from chassis.database import Database
from chassis.rpc import LocalChannel
from chassis.world import World
from session_store.app import open_app
from session_store.settings import SessionStoreSettings

DRIVER = "bench-driver"
TEXT = "a piece of an answer, as long as those of a fast model that are gathered for 25 ms: about a line of text " * 2


class StoreContender:
    """Appends by one writer or many."""

    def __init__(self, channel: LocalChannel) -> None:
        self._journal = JournalServiceStub(channel)
        self._runs = itertools.count()

    async def measure(self, writers: int, appends: int) -> Sample:
        """The median wait for an append, appends each second, and CPU for each, with so many writers at once."""
        lanes = [await self._open_run() for _ in range(writers)]
        left, waits = iter(range(appends)), list[float]()
        meter = Meter([os.getpid()])
        await asyncio.gather(*(self._write(run, epoch, left, waits) for run, epoch in lanes))
        spent = meter.spent()
        return {"p50": statistics.median(waits), "rate": appends / spent.wall, "cpu": spent.cpu / appends}

    async def _open_run(self) -> tuple[Run, int]:
        number = next(self._runs)
        run = Run(id=f"run-{number}", session_id=f"session-{number}", agent="bench")
        event = Event(run_id=run.id, session_id=run.session_id, tenant="default", sequence=1, run_created=RunCreated())
        event.time.GetCurrentTime()
        response = await self._journal.OpenRun(OpenRunRequest(run=run, create_session=True, events=[event], driver_id=DRIVER))
        assert response.epoch, "the run was not given to this driver"
        return run, response.epoch

    async def _write(self, run: Run, epoch: int, left: Iterator[int], waits: list[float]) -> None:
        for sequence, _ in enumerate(left, 1):
            event = Event(
                run_id=run.id, session_id=run.session_id, tenant="default", sequence=sequence + 1, text_delta=TextDelta(turn=1, text=TEXT)
            )
            event.time.GetCurrentTime()
            request = AppendRequest(run_id=run.id, driver_id=DRIVER, epoch=epoch, expected_sequence=sequence, events=[event])
            began = time.perf_counter()
            await self._journal.Append(request)
            waits.append(time.perf_counter() - began)

    async def register(self) -> asyncio.Task[None]:
        """Keeps the driver's lease."""
        registered = asyncio.Event()

        async def signs() -> AsyncIterator[DriveRequest]:
            while True:
                yield DriveRequest(driver_id=DRIVER, room=100_000)
                await asyncio.sleep(1.0)

        async def drive() -> None:
            async for _ in self._journal.Drive(signs()):
                registered.set()

        task = asyncio.create_task(drive())
        await registered.wait()
        return task


@contextlib.asynccontextmanager
async def open_store(
    folder: str = "", url: str = "", name: str = "store", contender: type[StoreContender] = StoreContender
) -> AsyncIterator[StoreContender]:
    """The store on a file or on PostgreSQL, as durable as it gets."""
    settings = SessionStoreSettings(database=Database(url or f"sqlite:{Path(folder) / f'{name}.db'}"), durability="full")
    async with open_app(settings, World()) as app, LocalChannel(app.methods) as channel:
        opened = contender(channel)
        driving = await opened.register()
        try:
            yield opened
        finally:
            driving.cancel()


Commit = Callable[[bytes], Awaitable[object]]


class BareCommit:
    """One row, one commit: the least that a database can do."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    async def measure(self, appends: int, **_: int) -> Sample:
        """The median wait for a commit, and commits each second."""
        data, waits = TEXT.encode(), list[float]()
        meter = Meter([os.getpid()])
        for _ in range(appends):
            began = time.perf_counter()
            await self._commit(data)
            waits.append(time.perf_counter() - began)
        spent = meter.spent()
        return {"p50": statistics.median(waits), "rate": appends / spent.wall, "cpu": spent.cpu / appends}


@contextlib.asynccontextmanager
async def open_bare(folder: str) -> AsyncIterator[BareCommit]:
    """A SQLite file with the settings of our store, in the caller's thread."""
    connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT")

    async def commit(data: bytes) -> None:
        connection.execute("INSERT INTO rows (data) VALUES (?)", (data,))

    yield BareCommit(commit)
    connection.close()


@contextlib.asynccontextmanager
async def open_bare_postgres(url: str) -> AsyncIterator[BareCommit]:
    """A prepared insert that commits by itself, on one connection of asyncpg."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE rows (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data bytea NOT NULL)")
    insert = await connection.prepare("INSERT INTO rows (data) VALUES ($1)")
    yield BareCommit(insert.fetch)
    await connection.close()
