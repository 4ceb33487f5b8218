"""Executions as rows of PostgreSQL, many at a time: one array for each column, so one statement does for one and for a hundred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chassis.postgres import Row
from tool_executor.domain.execution import Execution, Result, Status, ToolCall

RUNNING = int(Status.RUNNING)

_TYPES = {
    "tenant": "text",
    "key": "text",
    "call_id": "text",
    "tool": "text",
    "arguments": "bytea",
    "instance": "text",
    "started_at": "float8",
    "run_id": "text",
    "session_id": "text",
    "tool_version": "text",
    "repeatable": "bool",
    "attempt": "int",
    "approved_by": "text",
    "status": "smallint",
    "content": "text",
    "full_bytes": "bigint",
    "truncated": "bool",
    "effect_unknown": "bool",
    "ended_at": "float8",
    "duration": "float8",
}
END = ("status", "content", "full_bytes", "truncated", "effect_unknown", "ended_at", "duration")
COLUMNS = ", ".join(_TYPES)

_ESCAPE, _NUL, _ITSELF = "\ue000", "\ue000\ue001", "\ue000\ue002"


def unnest(*columns: str) -> str:
    """The arrays of these columns as rows, $1 the first."""
    return f"unnest({', '.join(f'${place}::{_TYPES[column]}[]' for place, column in enumerate(columns, 1))})"


def arrays(executions: Sequence[Execution], *columns: str) -> list[list[Any]]:
    """One array for each column, all of them unless some are named."""
    rows = [_row(execution) for execution in executions]
    return [[row[column] for row in rows] for column in columns or _TYPES]


def execution_of(row: Row) -> Execution:
    """The execution of a row of COLUMNS."""
    result = Result(Status(row["status"]), loaded(row["content"]), row["full_bytes"], row["truncated"], row["effect_unknown"])
    return Execution(
        tenant=row["tenant"],
        key=loaded(row["key"]),
        call=ToolCall(loaded(row["call_id"]), loaded(row["tool"]), row["arguments"]),
        instance=row["instance"],
        started_at=row["started_at"],
        run_id=loaded(row["run_id"]),
        session_id=loaded(row["session_id"]),
        tool_version=row["tool_version"],
        repeatable=row["repeatable"],
        attempt=row["attempt"],
        approved_by=loaded(row["approved_by"]),
        result=None if row["status"] == RUNNING else result,
        ended_at=row["ended_at"],
        duration=row["duration"],
    )


def stored(text: str) -> str:
    """Any text as PostgreSQL takes it, which is without NUL: models and tools do say it."""
    if "\0" in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ITSELF).replace("\0", _NUL)
    return text


def loaded(text: str) -> str:
    """The text that was stored."""
    return text.replace(_NUL, "\0").replace(_ITSELF, _ESCAPE) if _ESCAPE in text else text


def _row(execution: Execution) -> dict[str, Any]:
    call, result = execution.call, execution.result or Result(Status.RUNNING)
    return {
        "tenant": execution.tenant,
        "key": stored(execution.key),
        "call_id": stored(call.id),
        "tool": stored(call.name),
        "arguments": call.arguments,
        "instance": execution.instance,
        "started_at": execution.started_at,
        "run_id": stored(execution.run_id),
        "session_id": stored(execution.session_id),
        "tool_version": execution.tool_version,
        "repeatable": execution.repeatable,
        "attempt": execution.attempt,
        "approved_by": stored(execution.approved_by),
        "status": int(result.status),
        "content": stored(result.content),
        "full_bytes": result.full_bytes,
        "truncated": result.truncated,
        "effect_unknown": result.effect_unknown,
        "ended_at": execution.ended_at,
        "duration": execution.duration,
    }
