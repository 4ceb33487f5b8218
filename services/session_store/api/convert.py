"""Sessions, messages and usage between the wire and the domain. Pure: a value in, a value out, or RequestInvalid."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message as Proto
from google.protobuf.timestamp_pb2 import Timestamp

from behest.chat.v1 import chat_pb2
from behest.session.v1 import session_pb2, session_service_pb2
from session_store.domain import usage as sums
from session_store.domain.bounds import check_id, check_labels, check_request_id, check_title, refuse
from session_store.domain.session import Message, MessageId, Session, SessionChange, SessionId, SessionQuery, StoredMessage, Tenant
from session_store.domain.usage import ModelUsage, Usage
from session_store.operations.sessions import Repeatable

_NANOS = 1_000_000_000
_MASK_PATHS = ("title", "metadata")


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch as a timestamp, to the microsecond."""
    micros = round(seconds * 1_000_000)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def seconds(value: Timestamp) -> float:
    """A timestamp as seconds since the epoch."""
    return value.seconds + value.nanos / _NANOS


def digest(request: Proto) -> str:
    """What makes a request the same when it is repeated."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def repeatable(request_id: str, request: Proto) -> Repeatable:
    """The request's id and digest."""
    check_request_id(request_id)
    return Repeatable(request_id, digest(request) if request_id else "")


def new_session(tenant: Tenant, request: session_service_pb2.CreateSessionRequest) -> Session:
    """The session to create; an empty id means one to be made."""
    if request.session_id:
        check_id("session_id", request.session_id)
    check_title("title", request.title)
    check_labels("metadata", request.metadata)
    return Session(tenant, SessionId(request.session_id), 0.0, 0.0, request.title, dict(request.metadata))


def session_query(request: session_service_pb2.ListSessionsRequest) -> SessionQuery:
    """Which sessions are asked for."""
    check_labels("metadata", request.metadata)
    return SessionQuery(
        seconds(request.created_after) if request.HasField("created_after") else None,
        seconds(request.created_before) if request.HasField("created_before") else None,
        dict(request.metadata),
    )


def session_change(request: session_service_pb2.UpdateSessionRequest) -> SessionChange:
    """What an update changes."""
    paths = tuple(request.update_mask.paths) or _MASK_PATHS
    for path in paths:
        if path not in _MASK_PATHS:
            raise refuse("update_mask", f"names {path!r}; only title and metadata can be changed")
    check_title("session.title", request.session.title)
    check_labels("session.metadata", request.session.metadata)
    title = request.session.title if "title" in paths else None
    return SessionChange(title, dict(request.session.metadata) if "metadata" in paths else None, request.session.version)


def session(value: Session) -> session_pb2.Session:
    """A session for the wire."""
    return session_pb2.Session(
        id=value.id,
        title=value.title,
        metadata=value.metadata,
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
        message_count=value.message_count,
        active_run_id=value.active_run_id,
        version=value.version,
        forked_from_session_id=value.forked_from,
        forked_at_position=value.forked_at,
    )


def bodies(messages: Sequence[chat_pb2.Message]) -> list[bytes]:
    """Messages as they are stored."""
    if not messages:
        raise refuse("messages", "is empty; give at least one")
    for index, message in enumerate(messages):
        check_role(f"messages[{index}]", message)
    return [message.SerializeToString() for message in messages]


def named_messages(messages: Iterable[session_pb2.StoredMessage]) -> tuple[Message, ...]:
    """Messages whose ids their sender chose."""
    named = []
    for index, stored in enumerate(messages):
        check_id(f"messages[{index}].id", stored.id)
        check_role(f"messages[{index}].message", stored.message)
        named.append(Message(MessageId(stored.id), stored.message.SerializeToString()))
    return tuple(named)


def check_role(field: str, message: chat_pb2.Message) -> None:
    """Refuses a message that nobody speaks."""
    if message.role == chat_pb2.ROLE_UNSPECIFIED:
        raise refuse(f"{field}.role", "is unset; say who speaks")


def stored_message(value: StoredMessage) -> session_pb2.StoredMessage:
    """A stored message for the wire."""
    return session_pb2.StoredMessage(
        id=value.id,
        position=value.position,
        run_id=value.run_id,
        created_at=timestamp(value.created_at),
        message=chat_pb2.Message.FromString(value.body),
    )


def model_usage(row: session_pb2.UsageRow) -> ModelUsage:
    """What a model consumed."""
    u = row.usage
    tokens = (u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens)
    if min(*tokens, u.cost_nano_usd, u.calls) < 0:
        raise refuse("usage", f"of {row.provider}/{row.model} has a negative number; usage only grows")
    return ModelUsage(row.provider, row.model, Usage(*tokens, u.cost_nano_usd, u.cost_known, u.calls))


def usage_response(rows: Sequence[ModelUsage]) -> session_service_pb2.GetUsageResponse:
    """Sums for the wire."""
    return session_service_pb2.GetUsageResponse(rows=usage_rows(rows), total=usage(sums.total(rows)))


def usage_rows(rows: Sequence[ModelUsage]) -> list[session_pb2.UsageRow]:
    """Sums by model for the wire."""
    return [session_pb2.UsageRow(provider=row.provider, model=row.model, usage=usage(row.usage)) for row in rows]


def usage(value: Usage) -> chat_pb2.Usage:
    """A sum for the wire."""
    return chat_pb2.Usage(
        input_tokens=value.input_tokens,
        output_tokens=value.output_tokens,
        cache_read_tokens=value.cache_read_tokens,
        cache_write_tokens=value.cache_write_tokens,
        reasoning_tokens=value.reasoning_tokens,
        cost_nano_usd=value.cost_nano_usd,
        cost_known=value.cost_known,
        calls=value.calls,
    )
