"""Builds the orchestrator; nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from behest.agent.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from behest.run.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from chassis.faults import ServiceUnavailable
from chassis.rpc import App, Methods, StubChannel, default_pipeline, open_channel
from chassis.world import World
from orchestrator.adapters.configured_agents import configured_agents
from orchestrator.adapters.rpc_follows import RpcFollows
from orchestrator.adapters.rpc_models import RpcModels
from orchestrator.adapters.rpc_store import RpcJournal, RpcRuns
from orchestrator.adapters.rpc_tools import RpcTools
from orchestrator.adapters.scribe import ProtoScribe
from orchestrator.api.agent_service import AgentServicer
from orchestrator.api.run_service import RunServicer
from orchestrator.operations.agents import Agents
from orchestrator.operations.driver import Driver
from orchestrator.operations.ports import Patience, Ports
from orchestrator.operations.runs import RunDesk
from orchestrator.settings import NeighbourSettings, OrchestratorSettings

JOURNAL = "/behest.session.v1.JournalService/"
SESSIONS = "/behest.session.v1.SessionService/"

IDEMPOTENT = frozenset(
    {JOURNAL + name for name in ("OpenRun", "RecordCommand", "GetRun", "ListRuns")}
    | {SESSIONS + "ListMessages", "/behest.tool.v1.ToolService/ListTools"}
)
"""Calls that are sent again when a neighbour could not be reached."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Channels to the services that the orchestrator calls."""

    session_store: StubChannel
    provider_gateway: StubChannel
    tool_executor: StubChannel


@contextlib.asynccontextmanager
async def open_app(settings: OrchestratorSettings, world: World, neighbours: Neighbours) -> AsyncIterator[App]:
    """The orchestrator, driving runs while the context lasts; leaving hands over what it drives."""
    patience = Patience(neighbour=settings.neighbour_patience_s)
    configured = {name: agent.model_dump(exclude_none=True) for name, agent in settings.agents.items()}
    agents = Agents(configured_agents(configured), settings.default_agent)
    ports = _ports(neighbours, world, patience)
    driver = Driver(ports, world, patience, settings.max_runs)
    follows = RpcFollows(neighbours.session_store, world.clock, patience)
    desk = RunDesk(RpcRuns(neighbours.session_store), driver, ports, world)
    methods = _methods(RunServicer(desk, RpcRuns(neighbours.session_store), follows, agents, world.ids), AgentServicer(agents))
    async with asyncio.TaskGroup() as tasks:
        driving = tasks.create_task(driver.run_until_left())

        async def ready() -> None:
            if not driver.attached:
                raise ServiceUnavailable("the session-store cannot be reached; start it or correct orchestrator.neighbours.session_store")

        async def drain() -> None:
            driver.leave()
            follows.close()
            await asyncio.wait([driving])

        try:
            yield App("orchestrator", methods, ready, drain)
        finally:
            await drain()


def _ports(neighbours: Neighbours, world: World, patience: Patience) -> Ports:
    journal = RpcJournal(neighbours.session_store, world.clock, patience)
    models = RpcModels(neighbours.provider_gateway, world.ids)
    return Ports(journal, journal, models, RpcTools(neighbours.tool_executor), ProtoScribe(world.ids))


def _methods(runs: RunServicer, agents: AgentServicer) -> Methods:
    methods = Methods("orchestrator", default_pipeline())
    add_RunServiceServicer_to_server(runs, methods.server())
    add_AgentServiceServicer_to_server(agents, methods.server())
    return methods


@contextlib.asynccontextmanager
async def open_alone(settings: OrchestratorSettings, world: World) -> AsyncIterator[App]:
    """The orchestrator with channels to its configured neighbours."""
    async with contextlib.AsyncExitStack() as stack:

        async def neighbour(at: NeighbourSettings) -> StubChannel:
            return await stack.enter_async_context(open_channel(at.target, at.carrier, IDEMPOTENT))

        where = settings.neighbours
        neighbours = Neighbours(
            session_store=await neighbour(where.session_store),
            provider_gateway=await neighbour(where.provider_gateway),
            tool_executor=await neighbour(where.tool_executor),
        )
        yield await stack.enter_async_context(open_app(settings, world, neighbours))
