"""The tool-executor behind the port Tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_pb2, tool_service_pb2
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis.rpc import StubChannel
from orchestrator.domain.history import estimate
from orchestrator.domain.run import Run
from orchestrator.domain.values import Agent, CallId, RunId, ToolCall
from orchestrator.operations.ports import Outcome, Progress, Toolset
from orchestrator.wire import call_status

PAGE = 1000


class RpcTools:
    """Tools over the executor's stub. A call's key is run/turn/call, since models reuse call ids from turn to turn."""

    def __init__(self, channel: StubChannel) -> None:
        self._executor = ToolServiceStub(channel)

    async def visible(self, run_id: RunId, agent: Agent) -> Toolset:
        """The tools that the agent names and the executor has, sorted by name."""
        if not agent.tools:
            return Toolset()
        tools = [
            tool async for tool in self._list(tool_pb2.ToolScope(agent=agent.name, run_id=run_id)) if agent.may_call(tool.definition.name)
        ]
        definitions = tuple(tool.definition for tool in tools)
        destructive = frozenset(tool.definition.name for tool in tools if _may_destroy(tool.traits))
        return Toolset(tuple(d.name for d in definitions), definitions, sum(estimate(d.ByteSize()) for d in definitions), destructive)

    async def _list(self, scope: tool_pb2.ToolScope) -> AsyncGenerator[tool_pb2.Tool, None]:
        token = ""
        while True:
            response = await self._executor.ListTools(tool_service_pb2.ListToolsRequest(scope=scope, page_size=PAGE, page_token=token))
            for tool in response.tools:
                yield tool
            token = response.next_page_token
            if not token:
                return

    async def execute(
        self, run: Run, calls: Sequence[ToolCall], allowed: Sequence[str]
    ) -> AsyncGenerator[Sequence[Progress | Outcome], None]:
        """Runs the calls of the present turn; asking again with the same run, turn and call gives the same outcome."""
        originals = {_key(run, call): call.id for call in calls}
        request = tool_service_pb2.ExecuteBatchRequest(
            run_id=run.id,
            session_id=run.session_id,
            agent=run.agent.name,
            calls=[_keyed(run, call) for call in calls],
            allowed_tools=allowed,
            approved_by={_key(run, state.call): state.approval.approvers for state in run.calls if state.approval is not None},
        )
        async for response in self._executor.ExecuteBatch(request):
            items: list[Progress | Outcome] = [_progress(progress, originals) for progress in response.progress]
            items += [_outcome(result, originals) for result in response.results]
            yield items

    async def cancel(self, run: Run, calls: Sequence[ToolCall]) -> None:
        """Stops calls under way; their outcomes still arrive on the stream."""
        keys = [_key(run, call) for call in calls]
        await self._executor.CancelExecutions(tool_service_pb2.CancelExecutionsRequest(run_id=run.id, call_ids=keys))


def _may_destroy(traits: tool_pb2.ToolTraits) -> bool:
    return traits.destructive if traits.HasField("destructive") else not traits.read_only


def _key(run: Run, call: ToolCall) -> str:
    return f"{run.turn}/{call.id}"


def _keyed(run: Run, call: ToolCall) -> chat_pb2.ToolCall:
    body = call.body
    assert isinstance(body, chat_pb2.ToolCall)
    return chat_pb2.ToolCall(id=_key(run, call), name=call.name, arguments=body.arguments)


def _progress(progress: tool_pb2.ToolProgress, originals: dict[str, CallId]) -> Progress:
    fraction = progress.fraction if progress.HasField("fraction") else None
    return Progress(originals[progress.call_id], progress.message, fraction)


def _outcome(result: tool_pb2.ToolResult, originals: dict[str, CallId]) -> Outcome:
    record = tool_pb2.ToolResult()
    record.CopyFrom(result)
    record.call_id = originals[result.call_id]
    record.ClearField("content")
    return Outcome(originals[result.call_id], call_status(result.status), result.content, result.is_error, record)
