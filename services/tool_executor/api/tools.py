"""The servicer of behest.tool.v1.ToolService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from behest.tool.v1 import tool_service_pb2 as pb
from behest.tool.v1 import tool_service_pb2_grpc
from chassis.faults import ExecutionNotFound
from chassis.rpc import current_call
from chassis.world import Ids
from tool_executor.api import convert
from tool_executor.operations.batch import Batches
from tool_executor.operations.cancelling import Cancelling
from tool_executor.operations.execute import Executor
from tool_executor.operations.tools import Tools
from tool_executor.wire import execution_out


class ToolServicer(tool_service_pb2_grpc.ToolServiceServicer):
    """Knows tools and runs them."""

    def __init__(self, tools: Tools, executor: Executor, batches: Batches, cancelling: Cancelling, ids: Ids) -> None:
        self._tools = tools
        self._executor = executor
        self._batches = batches
        self._cancelling = cancelling
        self._ids = ids
        self._tools_out = convert.ToolsOut()

    async def ListTools(self, request: pb.ListToolsRequest, context: object) -> pb.ListToolsResponse:
        """One page of tools."""
        tools, token = self._tools.list(current_call().tenant, convert.query_in(request))
        return pb.ListToolsResponse(tools=map(self._tools_out.of, tools), next_page_token=token)

    async def GetTool(self, request: pb.GetToolRequest, context: object) -> pb.GetToolResponse:
        """One tool."""
        tool = self._tools.get(current_call().tenant, request.name, convert.scope_in(request.scope))
        return pb.GetToolResponse(tool=convert.tool_out(tool))

    async def RegisterTool(self, request: pb.RegisterToolRequest, context: object) -> pb.RegisterToolResponse:
        """Adds or replaces a tool."""
        tool, replaced = await self._tools.register(current_call().tenant, convert.registration_in(request.tool))
        return pb.RegisterToolResponse(tool=convert.tool_out(tool), replaced=replaced)

    async def UnregisterTool(self, request: pb.UnregisterToolRequest, context: object) -> pb.UnregisterToolResponse:
        """Removes a tool."""
        await self._tools.unregister(current_call().tenant, request.name, convert.scope_in(request.scope))
        return pb.UnregisterToolResponse()

    async def ExecuteTool(self, request: pb.ExecuteToolRequest, context: object) -> AsyncIterator[pb.ExecuteToolResponse]:
        """Progress, then the result."""
        call = current_call()
        order = convert.direct_order_in(request, call.tenant, self._ids.new(), call.deadline)
        async with aclosing(self._batches.run([order])) as stream:
            async for happened in stream:
                for response in convert.direct_out(happened):
                    yield response

    async def ExecuteBatch(self, request: pb.ExecuteBatchRequest, context: object) -> AsyncIterator[pb.ExecuteBatchResponse]:
        """Progress and results as they come."""
        call = current_call()
        orders = convert.orders_in(request, call.tenant, call.deadline)
        async with aclosing(self._batches.run(orders)) as stream:
            async for happened in stream:
                yield convert.happened_out(happened)

    async def CancelExecutions(self, request: pb.CancelExecutionsRequest, context: object) -> pb.CancelExecutionsResponse:
        """Stops calls."""
        return pb.CancelExecutionsResponse(call_ids=await self._cancelling.cancel(current_call().tenant, *convert.cancel_in(request)))

    async def DeleteExecutions(self, request: pb.DeleteExecutionsRequest, context: object) -> pb.DeleteExecutionsResponse:
        """Forgets executions."""
        deleted = await self._executor.delete(current_call().tenant, convert.runs_in(request))
        return pb.DeleteExecutionsResponse(deleted=deleted.count, kept=deleted.kept)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: object) -> pb.GetExecutionResponse:
        """The record of an execution."""
        execution = await self._executor.find(current_call().tenant, request.key)
        if execution is None:
            raise ExecutionNotFound(
                f"no execution {request.key[:200]!r}; keys are run/call or request ids", metadata={"key": request.key[:200]}
            )
        return pb.GetExecutionResponse(execution=execution_out(execution))
