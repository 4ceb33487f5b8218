"""Ended executions as CloudEvents, one record each, handed to a Publisher."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from behest.tool.v1 import tool_pb2
from chassis.kafka.cloud_events import event_type, own_headers, rfc3339, shared_headers, source_of
from chassis.kafka.publishing import Publisher, Record
from tool_executor.domain.execution import Execution
from tool_executor.wire import execution_out

SERVICE = "tool-executor"
MESSAGE = tool_pb2.Execution.DESCRIPTOR.full_name
ENDED = event_type("execution_ended")

_GET = "/behest.tool.v1.ToolService/GetExecution"


class ExecutionPublications:
    """Publications to a topic. Without `content`, arguments and results stay here: what ran, when and how it ended is told."""

    def __init__(self, publisher: Publisher, topic: str, content: bool) -> None:
        self._publisher = publisher
        self._topic = topic
        self._content = content

    async def publish(self, executions: Sequence[Execution]) -> None:
        """Returns when the brokers have all."""
        await self._publisher.publish([execution_record(execution, self._topic, self._content) for execution in executions])


def execution_record(execution: Execution, topic: str, content: bool) -> Record:
    """The record of an ended execution. Its id is the execution's key, so a repetition is known as one."""
    told = execution_out(execution)
    if not content:
        told.call.arguments, told.result.content = b"", ""
    tenant, subject = execution.tenant, f"executions/{execution.key}"
    headers = [
        *shared_headers(source_of(SERVICE, tenant), MESSAGE, subject, tenant, execution.session_id),
        *own_headers(execution.key, ENDED.encode(), rfc3339(told.ended_at.seconds, told.ended_at.nanos)),
    ]
    key = execution.session_id or execution.run_id or execution.key
    return Record(topic, key.encode(), told.SerializeToString(), headers, f"{_GET}?key={quote(execution.key)}")
