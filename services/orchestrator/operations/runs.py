"""What callers ask of runs: accept, cancel, steer, look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chassis.rpc import current_call
from chassis.world import World
from orchestrator.domain import events as e
from orchestrator.domain.commands import Cancel, Create, Steer, handle
from orchestrator.domain.run import Recorded
from orchestrator.domain.values import Agent, Body, Entry, RunId, SessionId
from orchestrator.operations.context import Context, Window
from orchestrator.operations.driver import Driver
from orchestrator.operations.ports import Assignment, Opened, Order, Ports, Runs, Toolset


@dataclass(frozen=True, slots=True)
class Wish:
    """An order as a caller gives it, checked and converted. Digests are SHA-256, hexadecimal."""

    request_id: str
    session_id: SessionId | None
    agent: Agent
    entry: Entry
    title: str
    payload_digest: str
    input_digest: str
    queue: bool
    tool_choice: Body = None
    response_format: Body = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a model would see."""

    context: Context
    toolset: Toolset


class RunDesk:
    """Accepts orders and commands."""

    def __init__(self, runs: Runs, driver: Driver, ports: Ports, world: World) -> None:
        self._runs = runs
        self._driver = driver
        self._ports = ports
        self._world = world

    async def create(self, wish: Wish) -> Opened:
        """Accepts an order: durable when this returns, and driven from here when there is room."""
        order = self._order(wish)
        opened = await self._runs.open(order)
        if opened.epoch and not opened.existed:
            assignment = Assignment(opened.run_id, current_call().tenant, opened.epoch, 1)
            self._driver.take(assignment, opened.session_id, [Recorded(1, order.at, order.created)])
        return opened

    def _order(self, wish: Wish) -> Order:
        ids, metadata = self._world.ids, tuple(sorted((wish.metadata or {}).items()))
        created = e.RunCreated(wish.agent, wish.entry.body, wish.entry.id, wish.tool_choice, wish.response_format, metadata)
        (event,) = handle(False, Create(created))
        assert isinstance(event, e.RunCreated)
        return Order(
            run_id=RunId(ids.new()),
            session_id=wish.session_id or SessionId(ids.new()),
            create_session=wish.session_id is None,
            created=event,
            at=self._world.clock.now(),
            title=wish.title,
            request_id=wish.request_id,
            payload_digest=wish.payload_digest,
            input_digest=wish.input_digest,
            queue=wish.queue,
            driver_id=self._driver.id if self._driver.room else "",
        )

    async def cancel(self, run_id: RunId, reason: str) -> Body:
        """Asks a run to stop; returns its row."""
        row, ended = await self._runs.get(run_id)
        for event in handle(ended, Cancel(reason)):
            assert isinstance(event, e.CancelRequested)
            _, row = await self._runs.command(run_id, event, "", "")
        return row

    async def steer(self, run_id: RunId, steer: Steer, request_id: str, payload_digest: str) -> int:
        """Sends input to a run; returns the sequence of the recorded event. Raises RunEnded."""
        _, ended = await self._runs.get(run_id)
        (event,) = handle(ended, steer)
        assert isinstance(event, e.InputReceived)
        sequence, _ = await self._runs.command(run_id, event, request_id, payload_digest)
        return sequence

    async def preview(self, session_id: SessionId | None, agent: Agent, entry: Entry | None) -> Preview:
        """What the model would see now, with this input."""
        history = await self._ports.histories.tail(session_id, agent.history.max_messages) if session_id else ()
        window = Window(agent, (*history, entry) if entry else history)
        toolset = await self._ports.tools.visible(RunId(""), agent)
        return Preview(window.compose(), toolset)
