"""Domain events to contract events and back. Pure; nothing is lost on the way and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.fault.v1 import fault_pb2
from behest.provider.v1 import provider_pb2
from behest.tool.v1 import tool_pb2
from orchestrator.domain import events as e
from orchestrator.domain.history import estimate
from orchestrator.domain.run import Recorded
from orchestrator.domain.values import (
    Agent,
    CallId,
    CallStatus,
    Entry,
    Failure,
    Finish,
    HistoryLimits,
    Limits,
    MessageId,
    Role,
    Seam,
    ToolCall,
    Usage,
)
from orchestrator.wire_approvals import (
    permission_from_proto,
    requested_from_proto,
    requested_to_proto,
    resolved_from_proto,
    resolved_to_proto,
    seconds_of,
    set_time,
)


def sha256(data: bytes) -> str:
    """The digest of some bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def usage_to_proto(usage: Usage) -> chat_pb2.Usage:
    """Usage on the wire."""
    return chat_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_nano_usd=usage.cost_nano_usd,
        cost_known=usage.cost_known,
        calls=usage.calls,
    )


def usage_from_proto(usage: chat_pb2.Usage) -> Usage:
    """Usage in the domain."""
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.cost_nano_usd,
        usage.cost_known,
        usage.calls,
    )


def limits_from_proto(limits: agent_pb2.Limits) -> Limits:
    """Limits with the defaults of features.md R5 where nothing is set."""
    default = Limits()
    continuations = limits.max_continuations or default.max_continuations
    return Limits(
        limits.max_iterations or default.max_iterations,
        limits.max_total_tokens or default.max_total_tokens,
        limits.max_cost_nano_usd or default.max_cost_nano_usd,
        limits.max_wall_ms or default.max_wall_ms,
        limits.max_tool_calls or default.max_tool_calls,
        max(0, continuations),
    )


def agent_from_proto(agent: agent_pb2.Agent) -> Agent:
    """An agent in the domain; the body keeps what the domain does not read."""
    history = HistoryLimits()
    return Agent(
        name=agent.name,
        version=agent.version,
        model=agent.model,
        fallback_models=tuple(agent.fallback_models),
        instructions=agent.instructions,
        context=tuple(agent.context),
        tools=tuple(agent.tools),
        limits=limits_from_proto(agent.limits),
        history=HistoryLimits(agent.history.max_messages or history.max_messages, agent.history.max_tokens or history.max_tokens),
        loop_exempt_tools=frozenset(agent.loop_exempt_tools),
        permissions=tuple(map(permission_from_proto, agent.permissions)),
        body=agent,
    )


def entry_from_proto(message_id: str, message: chat_pb2.Message) -> Entry:
    """A message as the history sees it."""
    calls = tuple(CallId(call.id) for call in message.tool_calls)
    size = estimate(message.ByteSize())
    return Entry(MessageId(message_id), Role(message.role), size, calls, message.tool_call_id, message)


def call_from_proto(call: chat_pb2.ToolCall, destructive: bool = False) -> ToolCall:
    """A tool call in the domain. Arguments that say the same in another layout have the same digest."""
    return ToolCall(CallId(call.id), call.name, sha256(_canonical(call.arguments)), call, destructive)


def _canonical(arguments: bytes) -> bytes:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return arguments


def finish(number: int) -> Finish:
    """A finish reason; those of newer versions are UNKNOWN."""
    return Finish(number) if number in Finish.__members__.values() else Finish.UNKNOWN


def call_status(number: int) -> CallStatus:
    """How an execution ended; what this version does not know is UNKNOWN."""
    return CallStatus(number) if number in CallStatus.__members__.values() else CallStatus.UNKNOWN


def failure_to_proto(failure: Failure) -> fault_pb2.Fault:
    """A failure on the wire."""
    return fault_pb2.Fault(
        reason=failure.reason,
        message=failure.message,
        metadata=failure.metadata,
        service=failure.service,
        retryable=failure.retryable,
    )


def failure_from_proto(fault: fault_pb2.Fault) -> Failure:
    """A failure in the domain."""
    return Failure(fault.reason, fault.message, dict(fault.metadata), fault.service, fault.retryable)


def seam_from_proto(seam: provider_pb2.Seam) -> Seam:
    """A seam in the domain."""
    return Seam(failure_from_proto(seam.fault), seam.provider, seam.model, seam.text_characters)


def event_to_proto(recorded: Recorded) -> event_pb2.Event:
    """An event on the wire, without its envelope's run, session and tenant, which the store knows."""
    name, convert = _OUT[type(recorded.event)]
    event = event_pb2.Event(sequence=recorded.sequence)
    set_time(event.time, recorded.time)
    body = convert(recorded.event)
    getattr(event, name).CopyFrom(body)
    if isinstance(recorded.event, e.RunCreated):
        event.traceparent = recorded.event.traceparent
    return event


def event_from_proto(event: event_pb2.Event) -> Recorded:
    """An event in the domain; kinds of newer versions come as Unrecognised."""
    kind = event.WhichOneof("kind")
    convert = _IN.get(kind or "")
    domain = convert(getattr(event, kind)) if convert and kind else e.Unrecognised(event)
    if isinstance(domain, e.RunCreated) and event.traceparent:
        domain = replace(domain, traceparent=event.traceparent)
    return Recorded(event.sequence, seconds_of(event.time), domain)


def _created_out(event: e.RunCreated) -> event_pb2.RunCreated:
    return event_pb2.RunCreated(
        agent=_body(event.agent.body, agent_pb2.Agent),
        input=_body(event.input, chat_pb2.Message),
        input_message_id=event.input_message_id,
        tool_choice=_body(event.tool_choice, chat_pb2.ToolChoice),
        response_format=_body(event.response_format, chat_pb2.ResponseFormat),
        metadata=dict(event.metadata),
    )


def _created_in(event: event_pb2.RunCreated) -> e.RunCreated:
    return e.RunCreated(
        agent_from_proto(event.agent),
        event.input,
        MessageId(event.input_message_id),
        event.tool_choice if event.HasField("tool_choice") else None,
        event.response_format if event.HasField("response_format") else None,
        tuple(sorted(event.metadata.items())),
    )


def _body(body: Any, kind: type[Any]) -> Any:
    assert body is None or isinstance(body, kind)
    return body


def _call_out(event: e.ToolCallCompleted) -> event_pb2.ToolCallCompleted:
    call = _body(event.call.body, chat_pb2.ToolCall)
    return event_pb2.ToolCallCompleted(turn=event.turn, call=call, destructive=event.call.destructive)


def _finished_out(event: e.ModelFinished) -> event_pb2.ModelFinished:
    return event_pb2.ModelFinished(
        turn=event.turn,
        attempt=event.attempt,
        finish_reason=int(event.finish),  # type: ignore[arg-type]  # the enums share their numbers
        finish_reason_raw=event.finish_raw,
        provider=event.provider,
        model=event.model,
        warnings=[provider_pb2.Warning(field=field, message=message) for field, message in event.warnings],
        first_output_ms=event.first_output_ms,
        duration_ms=event.duration_ms,
    )


def _finished_in(event: event_pb2.ModelFinished) -> e.ModelFinished:
    return e.ModelFinished(
        event.turn,
        event.attempt,
        finish(event.finish_reason),
        event.finish_reason_raw,
        event.provider,
        event.model,
        tuple((w.field, w.message) for w in event.warnings),
        event.first_output_ms,
        event.duration_ms,
    )


def _execution_out(event: e.ToolExecutionFinished) -> event_pb2.ToolExecutionFinished:
    return event_pb2.ToolExecutionFinished(
        turn=event.turn,
        result=_body(event.result, tool_pb2.ToolResult),
        content_digest=event.content_digest,
        message_id=event.message_id,
    )


def _execution_in(event: event_pb2.ToolExecutionFinished) -> e.ToolExecutionFinished:
    result = event.result
    return e.ToolExecutionFinished(
        event.turn, CallId(result.call_id), call_status(result.status), event.content_digest, MessageId(event.message_id), result
    )


def _progress_out(event: e.ToolExecutionProgress) -> event_pb2.ToolExecutionProgress:
    progress = tool_pb2.ToolProgress(call_id=event.call_id, message=event.message, fraction=event.fraction)
    return event_pb2.ToolExecutionProgress(turn=event.turn, progress=progress)


def _progress_in(event: event_pb2.ToolExecutionProgress) -> e.ToolExecutionProgress:
    progress = event.progress
    fraction = progress.fraction if progress.HasField("fraction") else None
    return e.ToolExecutionProgress(event.turn, CallId(progress.call_id), progress.message, fraction)


def _built_out(event: e.ContextBuilt) -> event_pb2.ContextBuilt:
    sources = [event_pb2.ContextSource(name=s.name, items=s.items, tokens=s.tokens) for s in event.sources]
    return event_pb2.ContextBuilt(turn=event.turn, sources=sources, dropped_messages=event.dropped_messages)


def _built_in(event: event_pb2.ContextBuilt) -> e.ContextBuilt:
    sources = tuple(e.SourceShare(s.name, s.items, s.tokens) for s in event.sources)
    return e.ContextBuilt(event.turn, sources, event.dropped_messages)


def _completed_out(event: e.RunCompleted) -> event_pb2.RunCompleted:
    return event_pb2.RunCompleted(
        message_id=event.message_id,
        finish_reason=int(event.finish),  # type: ignore[arg-type]  # the enums share their numbers
        usage=usage_to_proto(event.usage),
        turns=event.turns,
    )


def _completed_in(event: event_pb2.RunCompleted) -> e.RunCompleted:
    return e.RunCompleted(MessageId(event.message_id), finish(event.finish_reason), usage_from_proto(event.usage), event.turns)


def _input_in(event: event_pb2.InputReceived) -> e.InputReceived:
    return e.InputReceived(entry_from_proto(event.message_id, event.input), event.interrupt)


def _input_out(event: e.InputReceived) -> event_pb2.InputReceived:
    return event_pb2.InputReceived(input=_body(event.entry.body, chat_pb2.Message), message_id=event.entry.id, interrupt=event.interrupt)


def _seam_out(event: e.ModelSeam) -> event_pb2.ModelSeam:
    seam, fault = event.seam, failure_to_proto(event.seam.failure)
    body = provider_pb2.Seam(fault=fault, provider=seam.provider, model=seam.model, text_characters=seam.text_characters)
    return event_pb2.ModelSeam(turn=event.turn, seam=body)


def _ids(ids: Any) -> tuple[MessageId, ...]:
    return tuple(MessageId(i) for i in ids)


_P = event_pb2
_OUT: dict[type[Any], tuple[str, Callable[[Any], Any]]] = {
    e.RunCreated: ("run_created", _created_out),
    e.RunStarted: ("run_started", lambda v: _P.RunStarted(driver_id=v.driver_id, epoch=v.epoch)),
    e.RunResumed: ("run_resumed", lambda v: _P.RunResumed(driver_id=v.driver_id, epoch=v.epoch)),
    e.ContextBuilt: ("context_built", _built_out),
    e.ModelStarted: (
        "model_started",
        lambda v: _P.ModelStarted(turn=v.turn, attempt=v.attempt, model=v.model, continuation=v.continuation),
    ),
    e.TextDelta: ("text_delta", lambda v: _P.TextDelta(turn=v.turn, text=v.text)),
    e.ReasoningDelta: ("reasoning_delta", lambda v: _P.ReasoningDelta(turn=v.turn, text=v.text)),
    e.ToolCallStarted: ("tool_call_started", lambda v: _P.ToolCallStarted(turn=v.turn, call_id=v.call_id, tool=v.tool)),
    e.ToolCallDelta: ("tool_call_delta", lambda v: _P.ToolCallDelta(turn=v.turn, call_id=v.call_id, arguments=v.arguments)),
    e.ToolCallCompleted: ("tool_call_completed", _call_out),
    e.ModelSeam: ("model_seam", _seam_out),
    e.ModelFinished: ("model_finished", _finished_out),
    e.ModelFailed: (
        "model_failed",
        lambda v: _P.ModelFailed(turn=v.turn, attempt=v.attempt, fault=failure_to_proto(v.failure), will_retry=v.will_retry),
    ),
    e.MessagesCommitted: ("messages_committed", lambda v: _P.MessagesCommitted(turn=v.turn, message_ids=v.message_ids)),
    e.UsageRecorded: (
        "usage_recorded",
        lambda v: _P.UsageRecorded(turn=v.turn, call=usage_to_proto(v.call), total=usage_to_proto(v.total)),
    ),
    e.ToolExecutionStarted: (
        "tool_execution_started",
        lambda v: _P.ToolExecutionStarted(turn=v.turn, call_id=v.call_id, tool=v.tool, arguments_digest=v.digest),
    ),
    e.ToolExecutionProgress: ("tool_execution_progress", _progress_out),
    e.ToolExecutionFinished: ("tool_execution_finished", _execution_out),
    e.DoomLoopDetected: (
        "doom_loop_detected",
        lambda v: _P.DoomLoopDetected(turn=v.turn, pattern=v.pattern, tools=v.tools, warned=v.warned, message_id=v.message_id),
    ),
    e.InputReceived: ("input_received", _input_out),
    e.CancelRequested: ("cancel_requested", lambda v: _P.CancelRequested(reason=v.reason)),
    e.ApprovalRequested: ("approval_requested", requested_to_proto),
    e.ApprovalResolved: ("approval_resolved", resolved_to_proto),
    e.RunCompleted: ("run_completed", _completed_out),
    e.RunFailed: (
        "run_failed",
        lambda v: _P.RunFailed(fault=failure_to_proto(v.failure), usage=usage_to_proto(v.usage), turns=v.turns),
    ),
    e.RunCancelled: ("run_cancelled", lambda v: _P.RunCancelled(reason=v.reason, usage=usage_to_proto(v.usage), turns=v.turns)),
}

_IN: dict[str, Callable[[Any], e.Event]] = {
    "run_created": _created_in,
    "run_started": lambda p: e.RunStarted(p.driver_id, p.epoch),
    "run_resumed": lambda p: e.RunResumed(p.driver_id, p.epoch),
    "context_built": _built_in,
    "model_started": lambda p: e.ModelStarted(p.turn, p.attempt, p.model, p.continuation),
    "text_delta": lambda p: e.TextDelta(p.turn, p.text),
    "reasoning_delta": lambda p: e.ReasoningDelta(p.turn, p.text),
    "tool_call_started": lambda p: e.ToolCallStarted(p.turn, CallId(p.call_id), p.tool),
    "tool_call_delta": lambda p: e.ToolCallDelta(p.turn, CallId(p.call_id), p.arguments),
    "tool_call_completed": lambda p: e.ToolCallCompleted(p.turn, call_from_proto(p.call, p.destructive)),
    "model_seam": lambda p: e.ModelSeam(p.turn, seam_from_proto(p.seam)),
    "model_finished": _finished_in,
    "model_failed": lambda p: e.ModelFailed(p.turn, p.attempt, failure_from_proto(p.fault), p.will_retry),
    "messages_committed": lambda p: e.MessagesCommitted(p.turn, _ids(p.message_ids)),
    "usage_recorded": lambda p: e.UsageRecorded(p.turn, usage_from_proto(p.call), usage_from_proto(p.total)),
    "tool_execution_started": lambda p: e.ToolExecutionStarted(p.turn, CallId(p.call_id), p.tool, p.arguments_digest),
    "tool_execution_progress": _progress_in,
    "tool_execution_finished": _execution_in,
    "doom_loop_detected": lambda p: e.DoomLoopDetected(p.turn, p.pattern, tuple(p.tools), p.warned, MessageId(p.message_id)),
    "input_received": _input_in,
    "cancel_requested": lambda p: e.CancelRequested(p.reason),
    "approval_requested": requested_from_proto,
    "approval_resolved": resolved_from_proto,
    "run_completed": _completed_in,
    "run_failed": lambda p: e.RunFailed(failure_from_proto(p.fault), usage_from_proto(p.usage), p.turns),
    "run_cancelled": lambda p: e.RunCancelled(p.reason, usage_from_proto(p.usage), p.turns),
}
