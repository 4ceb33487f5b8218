"""Executions as messages of the contract, for callers and for those who hear of them. Pure."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_pb2
from tool_executor.domain.execution import Execution, Result, Status


def result_out(execution: Execution, replayed: bool) -> tool_pb2.ToolResult:
    """What became of a call; RUNNING while it is under way."""
    result = execution.result or Result(Status.RUNNING)
    return tool_pb2.ToolResult(
        call_id=execution.call.id,
        tool=execution.call.name,
        status=tool_pb2.ExecutionStatus.ValueType(result.status),
        is_error=result.is_error and result.status is not Status.RUNNING,
        content=result.content,
        duration_ms=execution.duration * 1000,
        attempt=execution.attempt,
        full_bytes=result.full_bytes,
        truncated=result.truncated,
        replayed=replayed,
        effect_unknown=result.effect_unknown,
    )


def execution_out(execution: Execution) -> tool_pb2.Execution:
    """The record of an execution."""
    call = execution.call
    return tool_pb2.Execution(
        key=execution.key,
        run_id=execution.run_id,
        session_id=execution.session_id,
        call=chat_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments),
        tool_version=execution.tool_version,
        result=result_out(execution, replayed=False),
        started_at=_timestamp(execution.started_at),
        ended_at=None if execution.ended_at is None else _timestamp(execution.ended_at),
        approved_by=execution.approved_by,
    )


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e6) * 1000)
    return stamp
