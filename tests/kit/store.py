"""The session store on any backend, in this process, with a clock that a test owns. A new backend joins the suites by joining BACKENDS."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as journal_pb
from behest.session.v1 import session_pb2
from behest.session.v1 import session_service_pb2 as session_pb
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from chassis.rpc import Call, LocalChannel, call_scope
from chassis.world import World
from kit.postgres import database_of
from session_store.adapters.memory.storage import open_memory_storage
from session_store.adapters.postgres.storage import PostgresStorage, open_postgres_storage
from session_store.adapters.sqlite.storage import open_sqlite_storage
from session_store.app import FOR_EVER, GENEROUS, open_service
from session_store.domain.retention import Retention
from session_store.domain.schedule import RunLimits
from session_store.operations.ports import Storage

LEASE_SECONDS = 3.0
TERMINAL = {"run_completed": 3, "run_failed": 4, "run_cancelled": 5}
Backend = Callable[[Path], AbstractAsyncContextManager[Storage]]

BACKENDS: dict[str, Backend] = {
    "memory": lambda folder: open_memory_storage(),
    "sqlite": lambda folder: open_sqlite_storage(str(folder / "store.db"), "normal"),
    "postgres": lambda folder: _open_postgres(folder),
}


@contextlib.asynccontextmanager
async def _open_postgres(folder: Path) -> AsyncIterator[Storage]:
    url = await database_of(folder, "session_store")
    async with open_postgres_storage(lambda: url, "normal") as storage:
        yield storage


class ManualClock:
    """Time that passes when a test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._jumped = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None], asyncio.Task[Any] | None]] = []
        self._woken: set[asyncio.Task[Any] | None] = set()

    def now(self) -> float:
        return self._now + self._jumped

    def jump(self, seconds: float) -> None:
        """Sets the wall clock alone."""
        self._jumped += seconds

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken, sleeper = asyncio.get_running_loop().create_future(), asyncio.current_task()
        self._sleepers.append((self._now + seconds, woken, sleeper))
        self._woken.discard(sleeper)
        await woken

    @property
    def asleep(self) -> int:
        """How many wait for time to pass."""
        return len(self._sleepers)

    @property
    def awake(self) -> bool:
        """Whether one that slept is not done yet with what it does between its sleeps."""
        self._woken = {sleeper for sleeper in self._woken if sleeper and not sleeper.done()}
        return bool(self._woken)

    def advance(self, seconds: float) -> None:
        self._now += seconds
        due = [each for each in self._sleepers if each[0] <= self._now]
        self._sleepers = [each for each in self._sleepers if each[0] > self._now]
        for _, woken, sleeper in due:
            if not woken.done():
                woken.set_result(None)
                self._woken.add(sleeper)


class CountingIds:
    """Ids in order, distinct between processes' lives."""

    def __init__(self, prefix: str = "id") -> None:
        self._prefix = prefix
        self._numbers = itertools.count(1)

    def new(self) -> str:
        return f"{self._prefix}-{next(self._numbers):08d}"


@dataclass
class Store:
    """A running store as its callers see it."""

    sessions: SessionServiceStub
    journal: JournalServiceStub
    clock: ManualClock
    storage: Storage
    drain: Callable[[], object] = field(repr=False, default=lambda: None)


@contextlib.asynccontextmanager
async def open_store(
    backend: str,
    folder: Path,
    clock: ManualClock | None = None,
    ids: object | None = None,
    limits: RunLimits = GENEROUS,
    retention: Retention = FOR_EVER,
) -> AsyncIterator[Store]:
    """A store on a backend; folder is where one with files keeps them, so opening twice is a restart."""
    async with BACKENDS[backend](folder) as storage, open_store_on(storage, clock, ids, limits, retention) as store:
        yield store


@contextlib.asynccontextmanager
async def open_store_on(
    storage: Storage,
    clock: ManualClock | None = None,
    ids: object | None = None,
    limits: RunLimits = GENEROUS,
    retention: Retention = FOR_EVER,
) -> AsyncIterator[Store]:
    """A store on an open storage; two on one storage are two replicas."""
    clock = clock or ManualClock()
    world = World(clock=clock, ids=ids or CountingIds())  # type: ignore[arg-type]
    others = clock.asleep
    async with open_service(storage, world, LEASE_SECONDS, limits, retention=retention) as app, LocalChannel(app.methods) as channel:
        store = Store(SessionServiceStub(channel), JournalServiceStub(channel), clock, storage, app.drain)
        await _until(store, lambda: clock.asleep >= others + HOUSEKEEPERS)
        yield store


def as_tenant(tenant: str) -> contextlib.AbstractContextManager[Call]:
    """Calls in the body are of that tenant."""
    return call_scope(Call(tenant=tenant))


def user(text: str) -> chat_pb2.Message:
    return chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=text)])


def assistant(text: str) -> chat_pb2.Message:
    return chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, parts=[chat_pb2.Part(text=text)])


def stored(id_: str, message: chat_pb2.Message) -> session_pb2.StoredMessage:
    return session_pb2.StoredMessage(id=id_, message=message)


def event(
    run_id: str, sequence: int, *, session_id: str = "s", tenant: str = "default", kind: str = "text_delta", text: str = "x"
) -> event_pb2.Event:
    """An event of a kind, text_delta unless said."""
    made = event_pb2.Event(run_id=run_id, session_id=session_id, tenant=tenant, sequence=sequence)
    getattr(made, kind).SetInParent()
    if kind == "text_delta":
        made.text_delta.text = text
    return made


def events(run_id: str, first: int, count: int, **values: str) -> list[event_pb2.Event]:
    return [event(run_id, sequence, text=f"{run_id}/{sequence}", **values) for sequence in range(first, first + count)]  # type: ignore[arg-type]


def opening(run_id: str, session_id: str = "s", tenant: str = "default", **values: object) -> journal_pb.OpenRunRequest:
    """A request to open a run with a user message, in a session that is created when it is not there."""
    created = event(run_id, 1, session_id=session_id, tenant=tenant, kind="run_created")
    created.run_created.input_message_id = f"{run_id}-input"
    values.setdefault("create_session", True)
    values.setdefault("messages", [stored(f"{run_id}-input", user(f"do {run_id}"))])
    run = run_pb2.Run(id=run_id, session_id=session_id, agent="a", agent_version="v1", title=f"do {run_id}", metadata={"k": "v"})
    return journal_pb.OpenRunRequest(run=run, events=[created], **values)  # type: ignore[arg-type]


def queueing(run_id: str, session_id: str = "s", **values: object) -> journal_pb.OpenRunRequest:
    return opening(run_id, session_id, on_busy=run_pb2.BUSY_POLICY_QUEUE, **values)  # type: ignore[arg-type]


def interrupting(run_id: str, session_id: str = "s", **values: object) -> journal_pb.OpenRunRequest:
    return opening(run_id, session_id, on_busy=run_pb2.BUSY_POLICY_INTERRUPT, **values)  # type: ignore[arg-type]


def forking(run_id: str, fork: str, session_id: str = "s", **values: object) -> journal_pb.OpenRunRequest:
    return opening(run_id, session_id, on_busy=run_pb2.BUSY_POLICY_FORK, fork_session_id=fork, **values)  # type: ignore[arg-type]


def ending(
    run_id: str, driver_id: str, after: int, *, epoch: int = 1, kind: str = "run_completed", session_id: str = "s", tenant: str = "default"
) -> journal_pb.AppendRequest:
    """The append that ends a run."""
    last = event(run_id, after + 1, session_id=session_id, tenant=tenant, kind=kind)
    patch = journal_pb.RunPatch(state=TERMINAL[kind])  # type: ignore[arg-type]
    return journal_pb.AppendRequest(run_id=run_id, driver_id=driver_id, epoch=epoch, expected_sequence=after, events=[last], patch=patch)


def appending(
    run_id: str,
    driver_id: str,
    after: int,
    count: int = 1,
    *,
    epoch: int = 1,
    session_id: str = "s",
    tenant: str = "default",
    **values: object,
) -> journal_pb.AppendRequest:
    """An append of text deltas."""
    made = events(run_id, after + 1, count, session_id=session_id, tenant=tenant)
    return journal_pb.AppendRequest(run_id=run_id, driver_id=driver_id, epoch=epoch, expected_sequence=after, events=made, **values)  # type: ignore[arg-type]


def cancelling(run_id: str, request_id: str = "") -> journal_pb.RecordCommandRequest:
    command = event_pb2.Event()
    command.cancel_requested.reason = "enough"
    return journal_pb.RecordCommandRequest(run_id=run_id, event=command, request_id=request_id, payload_digest="d" if request_id else "")


class Driver:
    """A driver's stream: say something, hear something."""

    def __init__(self, store: Store, driver_id: str) -> None:
        self.id = driver_id
        self._said: asyncio.Queue[journal_pb.DriveRequest | None] = asyncio.Queue()
        self._call = store.journal.Drive(self._requests())
        self._responses = aiter(self._call)
        self.assigned: dict[str, journal_pb.Assignment] = {}
        self.woken: list[str] = []

    async def _requests(self) -> AsyncIterator[journal_pb.DriveRequest]:
        while (request := await self._said.get()) is not None:
            yield request

    def say(self, room: int = 0, released: tuple[str, ...] = (), leaving: bool = False) -> None:
        self._said.put_nowait(journal_pb.DriveRequest(driver_id=self.id, room=room, released_run_ids=released, leaving=leaving))

    async def hear(self) -> journal_pb.DriveResponse:
        response: journal_pb.DriveResponse = await asyncio.wait_for(anext(self._responses), 10)
        self.assigned.update({assignment.run_id: assignment for assignment in response.assignments})
        self.woken += response.wake_run_ids
        return response

    async def assignment(self) -> journal_pb.Assignment:
        """The next assignment."""
        while not (response := await self.hear()).assignments:
            pass
        return response.assignments[0]

    def stop_talking(self) -> None:
        self._said.put_nowait(None)

    def cut(self) -> None:
        """Breaks the stream."""
        self._call.cancel()


@contextlib.asynccontextmanager
async def open_driver(store: Store, driver_id: str = "d1", room: int = 0) -> AsyncIterator[Driver]:
    """A driver that was heard, cut off at the end."""
    driver = Driver(store, driver_id)
    driver.say(room)
    await driver.hear()
    try:
        yield driver
    finally:
        driver.cut()


async def read_log(store: Store, run_id: str, after: int = 0) -> list[event_pb2.Event]:
    """A run's log to its present end."""
    call = store.journal.Follow(journal_pb.FollowRequest(run_id=run_id, after=after, replay_only=True))
    return [each async for response in call for each in response.events]


async def read_messages(store: Store, session_id: str = "s") -> list[session_pb2.StoredMessage]:
    response = await store.sessions.ListMessages(session_pb.ListMessagesRequest(session_id=session_id, page_size=1000))
    return list(response.messages)


MOST_ROUNDS = 1000  # a slow machine's housekeeping takes a few; one that waits for the test itself never sleeps
HOUSEKEEPERS = 2  # fleet and upkeep, which sleep between their rounds


async def ticks(store: Store, count: int = 1, seconds: float = 0.25) -> None:
    """Lets the store's housekeeping run so many times, time included: each round is over when all that slept before sleep again."""
    for _ in range(count):
        store.clock.advance(seconds)
        await settle(store)
        await _until(store, lambda: not store.clock.awake)


async def _until(store: Store, reached: Callable[[], bool]) -> None:
    for _ in range(MOST_ROUNDS):
        if reached():
            return
        await settle(store)


async def settle(store: Store) -> None:
    """Lets everything that is under way in this process come to rest."""
    for _ in range(5):
        await store.storage.write(lambda tables: None)
        await store.storage.read(lambda tables: None)
        while isinstance(store.storage, PostgresStorage) and store.storage._database.busy:
            await store.storage.read(lambda tables: None)
        for _ in range(10):
            await asyncio.sleep(0)


__all__ = [name for name in dir() if not name.startswith("_")]
