"""Builds the tool executor. Nothing else builds anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from behest.tool.v1.tool_service_pb2_grpc import add_ToolServiceServicer_to_server
from chassis.faults import ToolsExhausted
from chassis.rpc import App, Methods, default_pipeline
from chassis.sqlite import open_sqlite
from chassis.world import World
from tool_executor.adapters.functions.load import Timeouts, load_functions
from tool_executor.adapters.json_schemas import JsonSchemas
from tool_executor.adapters.memory_executions import MemoryExecutions
from tool_executor.adapters.memory_registrations import MemoryRegistrations
from tool_executor.adapters.sqlite_executions import SqliteExecutions, open_sqlite_executions
from tool_executor.adapters.sqlite_registrations import SqliteRegistrations
from tool_executor.adapters.sqlite_schema import MIGRATIONS
from tool_executor.adapters.threads import ToolThreads
from tool_executor.api.tools import ToolServicer
from tool_executor.domain.cutting import Bounds as OutputBounds
from tool_executor.operations.batch import Batches
from tool_executor.operations.execute import Executor, Limits
from tool_executor.operations.ports import Registrations
from tool_executor.operations.registry import Bounds, Registry
from tool_executor.operations.tools import Tools
from tool_executor.operations.upkeep import Upkeep
from tool_executor.settings import SQLITE, ToolExecutorSettings

NAME = "tool-executor"
DAY = 86_400.0

LedgerAdapter = MemoryExecutions | SqliteExecutions


@asynccontextmanager
async def open_app(settings: ToolExecutorSettings, world: World) -> AsyncIterator[App]:
    """The tool executor, ready to be called while the body runs. Raises SettingsInvalid, StorageUnavailable, SchemaTooNew."""
    registry = _registry(settings)
    async with AsyncExitStack() as stack:
        executions, registrations = await _open_storage(settings, stack)
        threads = ToolThreads(settings.threads)
        stack.callback(threads.close)
        executor = Executor(registry, executions, threads, world, _limits(settings))
        stack.push_async_callback(executor.close)
        tools = Tools(registry, registrations, world.clock, settings.max_timeout_ms / 1000)
        await tools.refresh()
        await stack.enter_async_context(_running(Upkeep(executor, executions, tools, world.clock, settings.retention_days * DAY)))
        yield App(
            name=NAME,
            methods=_methods(ToolServicer(tools, executor, Batches(executor), world.ids)),
            ready=lambda: _ready(executions, threads),
            drain=lambda: executor.drain(settings.drain_ms / 1000),
        )


def _registry(settings: ToolExecutorSettings) -> Registry:
    functions = load_functions(settings.functions, Timeouts(settings.timeout_ms / 1000, settings.max_timeout_ms / 1000))
    return Registry(functions, JsonSchemas(), Bounds(per_tenant=settings.max_tools_per_tenant))


async def _open_storage(settings: ToolExecutorSettings, stack: AsyncExitStack) -> tuple[LedgerAdapter, Registrations]:
    if not settings.database.startswith(SQLITE):
        return MemoryExecutions(), MemoryRegistrations()
    path = settings.database.removeprefix(SQLITE)
    database = await stack.enter_async_context(open_sqlite(path, MIGRATIONS, settings.durability, owner="tool_executor"))
    return await stack.enter_async_context(open_sqlite_executions(database)), SqliteRegistrations(database)


def _limits(settings: ToolExecutorSettings) -> Limits:
    output = OutputBounds(settings.output_max_bytes, settings.output_max_lines)
    return Limits(settings.max_executions, settings.parallel_calls, output)


def _methods(servicer: ToolServicer) -> Methods:
    methods = Methods(NAME, default_pipeline())
    add_ToolServiceServicer_to_server(servicer, methods.server())
    return methods


@asynccontextmanager
async def _running(upkeep: Upkeep) -> AsyncIterator[None]:
    task = asyncio.create_task(upkeep.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _ready(executions: LedgerAdapter, threads: ToolThreads) -> None:
    """Raises what keeps the executor from working: its storage, or threads that all hang."""
    if isinstance(executions, SqliteExecutions):
        await executions.check()
    if threads.stuck >= threads.limit:
        message = f"all {threads.limit} threads (tool_executor.threads) hang in tools that timed out; restart the executor"
        raise ToolsExhausted(message, metadata={"threads": str(threads.limit)})
