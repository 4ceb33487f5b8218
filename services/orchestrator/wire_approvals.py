"""What approvals are made of, to the contract's words and back. Pure; a part of wire.py."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from behest.agent.v1 import agent_pb2
from behest.event.v1 import event_pb2
from orchestrator.domain import events as e
from orchestrator.domain.approvals import Decision
from orchestrator.domain.values import Action, CallId, Permission

NANOSECONDS = 1_000_000_000


def set_time(stamp: Timestamp, seconds: float) -> None:
    """Sets a moment, in seconds since the epoch, to the microsecond."""
    stamp.seconds, stamp.nanos = divmod(int(seconds * 1_000_000) * 1000, NANOSECONDS)


def seconds_of(stamp: Timestamp) -> float:
    """A moment in seconds since the epoch."""
    return stamp.seconds + stamp.nanos / NANOSECONDS


def permission_from_proto(rule: agent_pb2.Permission) -> Permission:
    """A rule; an action that this version does not know is taken for the careful one that it knows: deny."""
    action = Action(int(rule.action)) if int(rule.action) in Action.__members__.values() else Action.DENY
    default = Permission(rule.tool, action)
    needed, expires_ms = rule.approvals_needed or default.needed, rule.expires_ms or default.expires_ms
    return Permission(rule.tool, action, needed, expires_ms, rule.destructive_only)


def requested_to_proto(event: e.ApprovalRequested) -> event_pb2.ApprovalRequested:
    """The request for an approval on the wire."""
    requested = event_pb2.ApprovalRequested(
        turn=event.turn,
        approval_id=event.approval_id,
        call_id=event.call_id,
        tool=event.tool,
        arguments_digest=event.digest,
        approvals_needed=event.needed,
    )
    set_time(requested.expires_at, event.expires_at)
    return requested


def requested_from_proto(event: event_pb2.ApprovalRequested) -> e.ApprovalRequested:
    """The request for an approval in the domain."""
    expires_at, needed = seconds_of(event.expires_at), event.approvals_needed
    return e.ApprovalRequested(event.turn, event.approval_id, CallId(event.call_id), event.tool, event.arguments_digest, expires_at, needed)


def resolved_to_proto(event: e.ApprovalResolved) -> event_pb2.ApprovalResolved:
    """A decision on the wire."""
    return event_pb2.ApprovalResolved(
        approval_id=event.approval_id,
        decision=int(event.decision),  # type: ignore[arg-type]  # the enums share their numbers
        principal=event.principal,
        reason=event.reason,
        outstanding=event.outstanding,
    )


def resolved_from_proto(event: event_pb2.ApprovalResolved) -> e.ApprovalResolved:
    """A decision; one that this version does not know lets nothing run."""
    decision = Decision(int(event.decision)) if int(event.decision) in Decision.__members__.values() else Decision.DENY
    return e.ApprovalResolved(event.approval_id, decision, event.principal, event.reason, event.outstanding)
