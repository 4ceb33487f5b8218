"""A driver whose store is in memory: runs are handed to it and their logs looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from chassis.faults import LeaseLost, RunNotFound
from chassis.rpc import current_call
from chassis.world import World
from kit.loop import CountedIds, CountedTools, MemoryJournal, Say, ScriptedModels, StoppedClock
from orchestrator.adapters.scribe import ProtoScribe
from orchestrator.domain import events as e
from orchestrator.domain.run import Recorded
from orchestrator.domain.values import MessageId, RunId, SessionId
from orchestrator.operations.driver import Driver
from orchestrator.operations.ports import Assignment, Batch, Instruction, Lease, Patience, Ports, SignOfLife, Tail
from orchestrator.wire import agent_from_proto, entry_from_proto, event_from_proto, event_to_proto


@dataclass
class MemoryStore:
    """Many runs' journals, each fenced by its epoch. `before_append` may refuse."""

    runs: dict[RunId, MemoryJournal] = field(default_factory=dict)
    epochs: dict[RunId, int] = field(default_factory=dict)
    before_append: Callable[[Lease, Batch], None] = lambda lease, batch: None
    signs: list[SignOfLife] = field(default_factory=list)
    tenants: set[str] = field(default_factory=set)
    told: asyncio.Queue[Instruction] = field(default_factory=asyncio.Queue)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, name: str, agent: agent_pb2.Agent | None = None, epoch: int = 1) -> Assignment:
        """A run that waits for a driver."""
        run_id, journal = RunId(name), MemoryJournal()
        definition = agent or agent_pb2.Agent(name="a", model="fake/m", tools=["*"])
        message = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="please")])
        created = e.RunCreated(agent_from_proto(definition), message, MessageId(f"{name}-0"))
        journal.log.append(event_from_proto(event_to_proto(Recorded(1, 1000.0, created))))
        journal.messages.append(entry_from_proto(f"{name}-0", message))
        self.runs[run_id], self.epochs[run_id] = journal, epoch
        return Assignment(run_id, "acme", epoch, 1)

    async def append(self, lease: Lease, batch: Batch) -> None:
        self.tenants.add(current_call().tenant)
        await asyncio.sleep(0)
        if self.epochs[lease.run_id] != lease.epoch:
            raise LeaseLost("another driver has it")
        self.before_append(lease, batch)
        await self.runs[lease.run_id].append(lease, batch)
        self.changed.set()

    async def read(self, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        self.tenants.add(current_call().tenant)
        if run_id not in self.runs:
            raise RunNotFound("gone")
        return SessionId(f"session-of-{run_id}"), tuple(self.runs[run_id].log[after:])

    async def tail(self, session_id: SessionId, count: int) -> Tail:
        return await self.runs[RunId(session_id.removeprefix("session-of-"))].tail(session_id, count)

    async def drive(self, signs: AsyncIterator[SignOfLife]) -> AsyncGenerator[Instruction, None]:
        async def hear() -> None:
            async for sign in signs:
                self.signs.append(sign)

        hearing = asyncio.create_task(hear())
        try:
            while not hearing.done():
                waiting = asyncio.create_task(self.told.get())
                await asyncio.wait([waiting, hearing], return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    yield waiting.result()
                waiting.cancel()
        finally:
            hearing.cancel()

    def tell(self, *assignments: Assignment, wakes: Sequence[RunId] = ()) -> None:
        """Tells the driver something."""
        self.told.put_nowait(Instruction(assignments, tuple(wakes)))

    def ends(self, name: str) -> list[e.Terminal]:
        """The terminal events of a run."""
        return [r.event for r in self.runs[RunId(name)].log if isinstance(r.event, e.Terminal)]

    async def end_of(self, name: str) -> e.Terminal:
        """The one end of a run, once it has come."""
        async with asyncio.timeout(5):
            while not self.ends(name):
                self.changed.clear()
                await self.changed.wait()
        (end,) = self.ends(name)
        return end


@contextlib.asynccontextmanager
async def driving(
    store: MemoryStore, script: Sequence[Say] = ("done",), tools: CountedTools | None = None, room: int = 8
) -> AsyncIterator[Driver]:
    """A driver at work; leaves in the end. A driver that broke raises here."""
    patience = Patience(neighbour=1.0, stopping=0.05, backoff=0.01, longest_backoff=0.02, retry=0.001)
    ports = Ports(store, store, ScriptedModels(script), tools or CountedTools(), ProtoScribe(CountedIds("s")))
    driver = Driver(ports, World(StoppedClock(), CountedIds("driver")), patience, room)
    serving = asyncio.create_task(driver.run_until_left())
    await asyncio.sleep(0)
    try:
        yield driver
    finally:
        driver.leave()
        await serving
