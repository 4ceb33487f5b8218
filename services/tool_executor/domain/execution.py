"""One call of a tool and what became of it. How results come about is operations/execute.py."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tool_executor.domain.arguments import MAX_PROBLEMS, Problem
from tool_executor.domain.cutting import Bounds, clip, cut

MAX_MESSAGE_BYTES = 4096


class Status(enum.IntEnum):
    """How an execution ended; the numbers are those of the contract."""

    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    ARGUMENTS_INVALID = 4
    TOOL_NOT_FOUND = 5
    TIMED_OUT = 6
    CANCELLED = 7
    UNKNOWN = 8


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a model asks for. `arguments` is JSON as it wrote it."""

    id: str
    name: str
    arguments: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Result:
    """How an execution ended and what the model reads. `full_bytes` is the length before the cut."""

    status: Status
    content: str = ""
    full_bytes: int = 0
    truncated: bool = False
    effect_unknown: bool = False

    @property
    def is_error(self) -> bool:
        """Whether the model should read it as a failure."""
        return self.status is not Status.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Execution:
    """The record of one call. `result` is None while it runs. Times are seconds since the epoch, `duration` is in seconds."""

    tenant: str
    key: str
    call: ToolCall
    instance: str
    started_at: float
    run_id: str = ""
    session_id: str = ""
    tool_version: str = ""
    repeatable: bool = True
    attempt: int = 1
    approved_by: str = ""
    result: Result | None = None
    ended_at: float | None = None
    duration: float = 0.0

    def ended(self, result: Result, at: float, duration: float) -> Execution:
        """The execution with its end."""
        return Execution(  # every call ends once; replace() costs several times as much
            self.tenant,
            self.key,
            self.call,
            self.instance,
            self.started_at,
            self.run_id,
            self.session_id,
            self.tool_version,
            self.repeatable,
            self.attempt,
            self.approved_by,
            result,
            at,
            duration,
        )


def success(text: str, bounds: Bounds) -> Result:
    """What a tool returned, cut to the bounds."""
    kept = cut(text, bounds)
    return Result(Status.SUCCEEDED, kept.text, kept.full_bytes, kept.truncated)


def failure(status: Status, error: str, message: str, **details: object) -> Result:
    """A failure as the model reads it: a JSON object with error, message and details, always valid and always short."""
    written = json.dumps({"error": error, "message": clip(message, MAX_MESSAGE_BYTES), **details}, ensure_ascii=False)
    content = written.encode("utf-8", "replace").decode("utf-8")
    return Result(status, content, len(content.encode()))


def arguments_invalid(tool: str, problems: Sequence[Problem]) -> Result:
    """Tells the model what is wrong with its arguments, and where."""
    listed = [{"path": clip(p.path, 200), "reason": clip(p.reason, 400)} for p in problems[:MAX_PROBLEMS]]
    message = f"{tool} was not run: its arguments are invalid. Correct them and call it again."
    return failure(Status.ARGUMENTS_INVALID, "arguments_invalid", message, problems=listed)


def tool_not_found(tool: str, nearest: Sequence[str]) -> Result:
    """Tells the model that there is no such tool, and what comes nearest."""
    hint = f" Did you mean {' or '.join(nearest)}?" if nearest else " Call one of the tools you were given."
    return failure(Status.TOOL_NOT_FOUND, "tool_not_found", f"There is no tool {clip(tool, 100)!r}; nothing was run.{hint}")


def failed(message: str) -> Result:
    """The tool failed by its own account."""
    return failure(Status.FAILED, "failed", message)


def timed_out(tool: str, seconds: float, repeatable: bool) -> Result:
    """The tool took too long."""
    return _interrupted(Status.TIMED_OUT, "timed_out", f"{tool} did not finish within {seconds:g} s and was stopped.", repeatable)


def cancelled(tool: str, repeatable: bool) -> Result:
    """The tool was stopped while it ran."""
    return _interrupted(Status.CANCELLED, "cancelled", f"{tool} was cancelled while it ran.", repeatable)


def never_started(tool: str) -> Result:
    """The call was cancelled before the tool began."""
    return failure(Status.CANCELLED, "cancelled", f"{tool} was cancelled before it began; nothing was run.")


def too_late(tool: str) -> Result:
    """The time was up between the claim and the beginning."""
    return failure(Status.TIMED_OUT, "timed_out", f"the time was up before {tool} began; nothing was run.")


def unknown(tool: str) -> Result:
    """The tool began, and whoever ran it died."""
    message = f"{tool} began, but whether it finished is unknown: the process that ran it went away."
    return _interrupted(Status.UNKNOWN, "unknown", f"{message} It was not run again.", repeatable=False)


def _interrupted(status: Status, error: str, message: str, repeatable: bool) -> Result:
    if repeatable:
        return failure(status, error, f"{message} Calling it again is safe.")
    warned = failure(status, error, f"{message} It may have taken effect; find out before you call it again.")
    return replace(warned, effect_unknown=True)
