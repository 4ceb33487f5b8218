"""What can happen in a run, past tense. One class per kind of behest.event.v1.Event."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain.approvals import Decision
from orchestrator.domain.values import Agent, Body, CallId, CallStatus, Entry, Failure, Finish, MessageId, Seam, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class RunCreated:
    """The order was accepted."""

    agent: Agent
    input: Body
    input_message_id: MessageId
    tool_choice: Body = None
    response_format: Body = None
    metadata: tuple[tuple[str, str], ...] = ()
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A driver began."""

    driver_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class RunResumed:
    """Another driver took over."""

    driver_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class SourceShare:
    """What one context source gave."""

    name: str
    items: int
    tokens: int


@dataclass(frozen=True, slots=True)
class ContextBuilt:
    """The model's view was composed."""

    turn: int
    sources: tuple[SourceShare, ...]
    dropped_messages: int


@dataclass(frozen=True, slots=True)
class ModelStarted:
    """The model is being called."""

    turn: int
    attempt: int
    model: str
    continuation: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the reasoning."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """The model began a tool call."""

    turn: int
    call_id: CallId
    tool: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a tool call's arguments."""

    turn: int
    call_id: CallId
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallCompleted:
    """The model completed a tool call."""

    turn: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ModelSeam:
    """The model's target failed in mid-answer, and another one goes on."""

    turn: int
    seam: Seam


@dataclass(frozen=True, slots=True)
class ModelFinished:
    """The model answered."""

    turn: int
    attempt: int
    finish: Finish
    finish_raw: str = ""
    provider: str = ""
    model: str = ""
    warnings: tuple[tuple[str, str], ...] = ()
    first_output_ms: float = 0.0
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """The model call failed."""

    turn: int
    attempt: int
    failure: Failure
    will_retry: bool


@dataclass(frozen=True, slots=True)
class MessagesCommitted:
    """Messages joined the session."""

    turn: int
    message_ids: tuple[MessageId, ...]


@dataclass(frozen=True, slots=True)
class UsageRecorded:
    """Tokens and money were spent."""

    turn: int
    call: Usage
    total: Usage


@dataclass(frozen=True, slots=True)
class ToolExecutionStarted:
    """A tool is about to run."""

    turn: int
    call_id: CallId
    tool: str
    digest: str


@dataclass(frozen=True, slots=True)
class ToolExecutionProgress:
    """More from a running tool."""

    turn: int
    call_id: CallId
    message: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class ToolExecutionFinished:
    """A tool's outcome is known, or known to be unknown. `result` is the whole record, without content."""

    turn: int
    call_id: CallId
    status: CallStatus
    content_digest: str
    message_id: MessageId
    result: Body = None


@dataclass(frozen=True, slots=True)
class DoomLoopDetected:
    """The model repeats itself."""

    turn: int
    pattern: str
    tools: tuple[str, ...]
    warned: bool
    message_id: MessageId = MessageId("")


@dataclass(frozen=True, slots=True)
class InputReceived:
    """Somebody steered the run."""

    entry: Entry
    interrupt: bool


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked the run to stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """A tool call waits for approval. `expires_at` is in seconds since the epoch."""

    turn: int
    approval_id: str
    call_id: CallId
    tool: str
    digest: str
    expires_at: float
    needed: int


@dataclass(frozen=True, slots=True)
class ApprovalResolved:
    """Somebody decided, or the time passed. `outstanding` people must still approve."""

    approval_id: str
    decision: Decision
    principal: str = ""
    reason: str = ""
    outstanding: int = 0


@dataclass(frozen=True, slots=True)
class RunCompleted:
    """The end: carried out."""

    message_id: MessageId
    finish: Finish
    usage: Usage
    turns: int


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The end: failed."""

    failure: Failure
    usage: Usage
    turns: int


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """The end: cancelled."""

    reason: str
    usage: Usage
    turns: int


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A kind that a newer version wrote. It changes nothing."""

    body: Body = None


Terminal = RunCompleted | RunFailed | RunCancelled
Command = InputReceived | CancelRequested | ApprovalResolved
Event = (
    RunCreated
    | RunStarted
    | RunResumed
    | ContextBuilt
    | ModelStarted
    | TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallCompleted
    | ModelSeam
    | ModelFinished
    | ModelFailed
    | MessagesCommitted
    | UsageRecorded
    | ToolExecutionStarted
    | ToolExecutionProgress
    | ToolExecutionFinished
    | DoomLoopDetected
    | InputReceived
    | CancelRequested
    | ApprovalRequested
    | ApprovalResolved
    | RunCompleted
    | RunFailed
    | RunCancelled
    | Unrecognised
)
