"""A tool executor for tests, and short ways to call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_pb2
from behest.tool.v1 import tool_service_pb2 as pb
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis.database import Database
from chassis.kafka.settings import NO_KAFKA, KafkaSettings
from chassis.rpc import App, Call, LocalChannel, call_scope
from chassis.world import World
from kit.postgres import fresh_database
from tool_executor.app import open_app
from tool_executor.settings import ToolExecutorSettings

SAMPLES = ("kit.sample_tools:*", "kit.sample_tools:unmarked")


@dataclass(frozen=True)
class ExecutorClient:
    """Calls an executor; every tool of SAMPLES is allowed unless said otherwise."""

    app: App
    stub: ToolServiceStub

    async def run(self, name: str, arguments: bytes | str = b"{}", request_id: str = "", **fields: Any) -> tool_pb2.ToolResult:
        """The result of a direct call."""
        _, result = await self.run_loudly(name, arguments, request_id, **fields)
        return result

    async def run_loudly(
        self, name: str, arguments: bytes | str = b"{}", request_id: str = "", **fields: Any
    ) -> tuple[list[tool_pb2.ToolProgress], tool_pb2.ToolResult]:
        """The progress and result of a direct call."""
        request = pb.ExecuteToolRequest(request_id=request_id, call=call("", name, arguments), **fields)
        responses = [response async for response in self.stub.ExecuteTool(request)]
        assert [response.WhichOneof("event") for response in responses][-1] == "result"
        return [response.progress for response in responses[:-1]], responses[-1].result

    async def batch(self, *calls: chat_pb2.ToolCall, run_id: str = "run-1", **fields: Any) -> dict[str, tool_pb2.ToolResult]:
        """The results of a batch by call id, in the order in which they came."""
        results: dict[str, tool_pb2.ToolResult] = {}
        async for response in self.stub.ExecuteBatch(batch_request(*calls, run_id=run_id, **fields)):
            for result in response.results:
                assert result.call_id not in results, "each call once over the whole stream"
                results[result.call_id] = result
        return results

    async def execution(self, key: str) -> tool_pb2.Execution:
        """The record of an execution."""
        response: pb.GetExecutionResponse = await self.stub.GetExecution(pb.GetExecutionRequest(key=key))
        return response.execution


def call(call_id: str, name: str, arguments: bytes | str = b"{}") -> chat_pb2.ToolCall:
    """A model's call."""
    return chat_pb2.ToolCall(id=call_id, name=name, arguments=arguments.encode() if isinstance(arguments, str) else arguments)


def batch_request(*calls: chat_pb2.ToolCall, run_id: str = "run-1", **fields: Any) -> pb.ExecuteBatchRequest:
    """A batch that may call what it calls, unless said otherwise."""
    fields.setdefault("allowed_tools", sorted({c.name for c in calls}))
    return pb.ExecuteBatchRequest(run_id=run_id, session_id="session-1", calls=calls, **fields)


@asynccontextmanager
async def database_for(kind: str, folder: Path) -> AsyncIterator[str]:
    """The setting `database` for an empty one: memory, sqlite or postgres."""
    if kind == "postgres":
        async with fresh_database("tool_executor") as url:
            yield url
    else:
        yield "memory:" if kind == "memory" else f"sqlite:{folder / 'tools.db'}"


@asynccontextmanager
async def open_executor(
    *,
    functions: Sequence[str] = SAMPLES,
    database: str | Database = "memory:",
    world: World | None = None,
    kafka: KafkaSettings = NO_KAFKA,
    **settings: Any,
) -> AsyncIterator[ExecutorClient]:
    """An executor in this process."""
    own = ToolExecutorSettings(functions=tuple(functions), database=database, **settings)
    async with open_app(own, world or World(), kafka) as app:
        channel = LocalChannel(app.methods)
        try:
            yield ExecutorClient(app, ToolServiceStub(channel))
        finally:
            await channel.close()


def tenant(name: str) -> Any:
    """Calls within are this tenant's."""
    return call_scope(Call(tenant=name))


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Returns when the condition holds; fails after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
