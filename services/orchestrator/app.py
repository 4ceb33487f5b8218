"""Builds the orchestrator; nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from behest.agent.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from behest.run.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from chassis.faults import ServiceUnavailable, SettingsInvalid
from chassis.kafka.settings import NO_KAFKA, KafkaSettings
from chassis.rpc import App, Methods, StubChannel, default_pipeline, open_channel
from chassis.world import World
from orchestrator.adapters.configured_agents import configured_agents
from orchestrator.adapters.rpc_follows import RpcFollows
from orchestrator.adapters.rpc_models import RpcModels
from orchestrator.adapters.rpc_store import RpcJournal, RpcRuns
from orchestrator.adapters.rpc_tools import RpcTools
from orchestrator.adapters.scribe import ProtoScribe
from orchestrator.api.agent_service import AgentServicer
from orchestrator.api.commands import CommandOrders
from orchestrator.api.run_service import RunServicer
from orchestrator.operations.agents import Agents
from orchestrator.operations.approvals import ApprovalDesk
from orchestrator.operations.commands import CommandDesk
from orchestrator.operations.driver import Driver
from orchestrator.operations.ports import Patience, Ports
from orchestrator.operations.runs import RunDesk
from orchestrator.settings import CommandsSettings, NeighbourSettings, OrchestratorSettings

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
async def open_app(
    settings: OrchestratorSettings, world: World, neighbours: Neighbours, kafka: KafkaSettings = NO_KAFKA
) -> AsyncIterator[App]:
    """The orchestrator, driving runs while the context lasts; leaving hands over what it drives."""
    patience = Patience(neighbour=settings.neighbour_patience_s)
    configured = {name: agent.model_dump(exclude_none=True) for name, agent in settings.agents.items()}
    agents = Agents(configured_agents(configured), settings.default_agent)
    ports = _ports(neighbours, world, patience)
    driver = Driver(ports, world, patience, settings.max_runs)
    follows = RpcFollows(neighbours.session_store, world.clock, patience)
    runs = RpcRuns(neighbours.session_store)
    desk, approvals = RunDesk(runs, driver, ports, world), ApprovalDesk(runs, follows, world.clock)
    methods = _methods(RunServicer(desk, approvals, runs, follows, agents, world.ids), AgentServicer(agents))
    async with _commands(settings.commands, kafka, methods, world) as leave_commands, asyncio.TaskGroup() as tasks:
        driving = tasks.create_task(driver.run_until_left())

        async def ready() -> None:
            if not driver.attached:
                raise ServiceUnavailable("the session-store cannot be reached; start it or correct orchestrator.neighbours.session_store")

        async def drain() -> None:
            driver.leave()
            follows.close()
            await leave_commands()
            await asyncio.wait([driving])

        try:
            yield App("orchestrator", methods, ready, drain)
        finally:
            await drain()


@contextlib.asynccontextmanager
async def _commands(
    settings: CommandsSettings, kafka: KafkaSettings, methods: Methods, world: World
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Carries out commands from Kafka, when that is wanted, until what it gives is called. Raises SettingsInvalid."""
    if not settings.enabled:
        yield _nothing
        return
    if not kafka.on:
        raise SettingsInvalid("orchestrator.commands.enabled needs Kafka; set kafka.bootstrap_servers, or enabled to false")
    from chassis.kafka.publisher import open_publisher  # the client costs memory that suites without Kafka need not pay
    from orchestrator.adapters.kafka_commands import KafkaCommands, KafkaDeadLetters

    async with open_publisher(kafka, world.clock, "dead-commands") as publisher, asyncio.TaskGroup() as tasks:
        orders = CommandOrders(methods, frozenset(settings.tenants))
        dead_letters = KafkaDeadLetters(publisher, kafka.topics.dead_commands.name)
        desk = CommandDesk(orders, dead_letters, world.clock, Patience(), settings.max_in_flight)
        commands = KafkaCommands(kafka, settings.group, desk, world.clock)
        serving = tasks.create_task(commands.serve())

        async def leave() -> None:
            commands.leave()
            await asyncio.wait([serving])

        try:
            yield leave
        finally:
            await leave()


async def _nothing() -> None:
    """There are no commands to leave."""


def _ports(neighbours: Neighbours, world: World, patience: Patience) -> Ports:
    journal = RpcJournal(neighbours.session_store, world.clock, patience)
    models = RpcModels(neighbours.provider_gateway, world.ids)
    return Ports(journal, journal, models, RpcTools(neighbours.tool_executor), ProtoScribe(world.ids))


def _methods(runs: RunServicer, agents: AgentServicer) -> Methods:
    methods = Methods("orchestrator", default_pipeline())
    add_RunServiceServicer_to_server(runs, methods.server())
    add_AgentServiceServicer_to_server(agents, methods.server())
    return methods


def _run_of(request: Message) -> str:
    """The run that a request is about: all of a run's calls go to one replica, so that what it remembers of the run serves them.

    The store has the run's row and followers there, and the executor the tool calls that a cancellation is about.
    """
    run = getattr(request, "run", None)
    found = getattr(request, "run_id", "") if run is None else run.id
    return found if isinstance(found, str) else ""


@contextlib.asynccontextmanager
async def open_alone(settings: OrchestratorSettings, world: World, kafka: KafkaSettings = NO_KAFKA) -> AsyncIterator[App]:
    """The orchestrator with channels to its configured neighbours."""
    async with contextlib.AsyncExitStack() as stack:

        async def neighbour(at: NeighbourSettings) -> StubChannel:
            channel = open_channel(at.target, at.carrier, IDEMPOTENT, streams=at.streams, affinity=_run_of)
            return await stack.enter_async_context(channel)

        where = settings.neighbours
        neighbours = Neighbours(
            session_store=await neighbour(where.session_store),
            provider_gateway=await neighbour(where.provider_gateway),
            tool_executor=await neighbour(where.tool_executor),
        )
        yield await stack.enter_async_context(open_app(settings, world, neighbours, kafka))
