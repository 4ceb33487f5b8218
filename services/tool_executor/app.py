"""Builds the tool executor. Nothing else builds anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from behest.tool.v1.tool_service_pb2_grpc import add_ToolServiceServicer_to_server
from chassis.faults import ToolsExhausted
from chassis.kafka.settings import NO_KAFKA, KafkaSettings
from chassis.rpc import App, Methods, default_pipeline, running
from chassis.sqlite import open_sqlite
from chassis.world import Clock, World
from tool_executor.adapters.execution_records import ExecutionPublications
from tool_executor.adapters.functions.load import Timeouts, load_functions
from tool_executor.adapters.json_schemas import JsonSchemas
from tool_executor.adapters.lone_cancellations import LoneCancellations
from tool_executor.adapters.memory_executions import MemoryExecutions
from tool_executor.adapters.memory_registrations import MemoryRegistrations
from tool_executor.adapters.sqlite_executions import open_sqlite_executions
from tool_executor.adapters.sqlite_registrations import SqliteRegistrations
from tool_executor.adapters.sqlite_schema import MIGRATIONS
from tool_executor.adapters.threads import ToolThreads
from tool_executor.api.tools import ToolServicer
from tool_executor.domain.cutting import Bounds as OutputBounds
from tool_executor.operations.batch import Batches
from tool_executor.operations.cancelling import Cancelling
from tool_executor.operations.execute import Executor, Limits
from tool_executor.operations.ports import Cancellations, Executions, Registrations, Unpublished
from tool_executor.operations.publishing import Publishing
from tool_executor.operations.registry import Bounds, Registry
from tool_executor.operations.tools import Tools
from tool_executor.operations.upkeep import Upkeep
from tool_executor.settings import ToolExecutorSettings

NAME = "tool-executor"
DAY = 86_400.0


class Ledger(Executions, Unpublished, Protocol):
    """The ledger, and what of it is to be published."""


@asynccontextmanager
async def open_app(settings: ToolExecutorSettings, world: World, kafka: KafkaSettings = NO_KAFKA) -> AsyncIterator[App]:
    """The tool executor, ready to be called while the body runs. Raises SettingsInvalid, StorageUnavailable, SchemaTooNew."""
    registry = _registry(settings)
    async with AsyncExitStack() as stack:
        storage = await _open_storage(settings, kafka.on, stack)
        executions, registrations = storage.executions, storage.registrations
        world = replace(world, clock=storage.clock or world.clock)
        threads = ToolThreads(settings.threads)
        stack.callback(threads.close)
        executor = Executor(registry, executions, threads, world, _limits(settings))
        stack.push_async_callback(executor.close)
        tools = Tools(registry, registrations, world.clock, settings.max_timeout_ms / 1000)
        await tools.refresh()
        batches = Batches(executor)
        cancelling = Cancelling(batches, storage.cancellations)
        upkeep = Upkeep(executor, executions, tools, cancelling, world.clock, settings.retention_days * DAY)
        storage.listen(upkeep.look_around)
        await stack.enter_async_context(running(upkeep=upkeep.run()))
        if kafka.on:
            publications = await _open_publications(settings, kafka, world, stack)
            await stack.enter_async_context(running(publishing=Publishing(storage.executions, publications, world.clock).run()))
        yield App(
            name=NAME,
            methods=_methods(ToolServicer(tools, executor, batches, cancelling, world.ids)),
            ready=lambda: _ready(storage, threads),
            drain=lambda: executor.drain(settings.drain_ms / 1000),
        )


def _registry(settings: ToolExecutorSettings) -> Registry:
    functions = load_functions(settings.functions, Timeouts(settings.timeout_ms / 1000, settings.max_timeout_ms / 1000))
    return Registry(functions, JsonSchemas(), Bounds(per_tenant=settings.max_tools_per_tenant))


@dataclass(frozen=True, slots=True)
class _Storage:
    """What a database keeps, the clock that its executors go by, None for the machine's, and who wants to hear of news in it."""

    executions: Ledger
    registrations: Registrations
    cancellations: Cancellations = field(default_factory=LoneCancellations)
    clock: Clock | None = None
    listen: Callable[[Callable[[], None]], object] = lambda _: None
    check: Callable[[], Awaitable[None]] | None = None


async def _open_storage(settings: ToolExecutorSettings, publishes: bool, stack: AsyncExitStack) -> _Storage:
    if settings.database.is_postgres:
        from tool_executor.adapters.postgres import open_postgres_storage  # asyncpg is loaded where it is used

        opened = await stack.enter_async_context(open_postgres_storage(settings.database.url, settings.durability, publishes))
        check = opened.executions.check
        return _Storage(opened.executions, opened.registrations, opened.cancellations, opened.clock, opened.listen, check)
    path = settings.database.sqlite_path
    if path is None:
        return _Storage(MemoryExecutions(publishes=publishes), MemoryRegistrations())
    database = await stack.enter_async_context(open_sqlite(path, MIGRATIONS, settings.durability, owner="tool_executor"))
    executions = await stack.enter_async_context(open_sqlite_executions(database, publishes))
    return _Storage(executions, SqliteRegistrations(database), check=executions.check)


async def _open_publications(
    settings: ToolExecutorSettings, kafka: KafkaSettings, world: World, stack: AsyncExitStack
) -> ExecutionPublications:
    from chassis.kafka.publisher import open_publisher  # aiokafka is loaded where it is used

    publisher = await stack.enter_async_context(open_publisher(kafka, world.clock, NAME))
    return ExecutionPublications(publisher, kafka.topics.tool_executions.name, settings.publish_content)


def _limits(settings: ToolExecutorSettings) -> Limits:
    output = OutputBounds(settings.output_max_bytes, settings.output_max_lines)
    return Limits(settings.max_executions, settings.parallel_calls, output)


def _methods(servicer: ToolServicer) -> Methods:
    methods = Methods(NAME, default_pipeline())
    add_ToolServiceServicer_to_server(servicer, methods.server())
    return methods


async def _ready(storage: _Storage, threads: ToolThreads) -> None:
    """Raises what keeps the executor from working: its storage, or threads that all hang."""
    if storage.check is not None:
        await storage.check()
    if threads.stuck >= threads.limit:
        message = f"all {threads.limit} threads (tool_executor.threads) hang in tools that timed out; restart the executor"
        raise ToolsExhausted(message, metadata={"threads": str(threads.limit)})
