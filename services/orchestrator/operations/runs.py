"""What callers ask of runs: accept, cancel, steer, look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chassis.faults import RunEnded
from chassis.rpc import current_call
from chassis.waypoints import waypoint
from chassis.world import World
from orchestrator.domain import events as e
from orchestrator.domain.commands import Cancel, Create, Steer, handle
from orchestrator.domain.run import Recorded
from orchestrator.domain.values import Agent, Body, Entry, OnBusy, Priority, RunId, SessionId
from orchestrator.operations.context import Context, Window, newest
from orchestrator.operations.driver import Driver
from orchestrator.operations.ports import Assignment, Opened, Order, Ports, Runs, Tail, Terms, Toolset


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
    on_busy: OnBusy = OnBusy.REJECT
    priority: Priority = Priority.NORMAL
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
        with self._driver.place() as driver_id:
            order = self._order(wish, driver_id)
            opened = await self._runs.open(order)
            waypoint("driver.opened")
            if opened.epoch:
                assignment = Assignment(opened.run_id, current_call().tenant, opened.epoch, 1)
                # Of one that existed, the first answer may have been lost: it is this driver's, and perhaps nobody drives it.
                log = [] if opened.existed else [Recorded(1, order.at, order.created)]
                self._driver.take(assignment, None if opened.existed else opened.session_id, log)
        return opened

    def _order(self, wish: Wish, driver_id: str) -> Order:
        ids, metadata, trace = self._world.ids, tuple(sorted((wish.metadata or {}).items())), current_call().traceparent
        created = e.RunCreated(wish.agent, wish.entry.body, wish.entry.id, wish.tool_choice, wish.response_format, metadata, trace)
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
            on_busy=wish.on_busy,
            fork_session_id=SessionId(ids.new()) if wish.on_busy is OnBusy.FORK else SessionId(""),
            priority=wish.priority,
            driver_id=driver_id,
        )

    async def cancel(self, run_id: RunId, reason: str, request_id: str = "", payload_digest: str = "") -> Body:
        """Asks a run to stop; returns its row."""
        row, ended = await self._runs.get(run_id)
        for event in handle(ended, Cancel(reason)):
            assert isinstance(event, e.CancelRequested)
            try:
                waypoint("driver.command.before")
                _, row = await self._runs.command(run_id, event, Terms(request_id, payload_digest))
                waypoint("driver.command.after")
            except RunEnded:  # it ended between the look and the command
                row, _ = await self._runs.get(run_id)
        return row

    async def steer(self, run_id: RunId, steer: Steer, request_id: str, payload_digest: str) -> int:
        """Sends input to a run; returns the sequence of the recorded event. Raises RunEnded.

        The store tells whether the run has ended, since it alone knows whether the same input was recorded before the end.
        """
        (event,) = handle(False, steer)
        assert isinstance(event, e.InputReceived)
        # A message id is as good as a request id: it makes sending again after a lost answer harmless.
        waypoint("driver.command.before")
        sequence, _ = await self._runs.command(run_id, event, Terms(request_id or steer.entry.id, payload_digest))
        waypoint("driver.command.after")
        return sequence

    async def preview(self, session_id: SessionId | None, agent: Agent, entry: Entry | None) -> Preview:
        """What the model would see now, with this input."""
        history = await newest(self._ports.histories, session_id, agent) if session_id else Tail()
        window = Window(agent, history)
        toolset = await self._ports.tools.visible(RunId(""), agent)
        return Preview(window.compose((entry,) if entry else ()), toolset)
