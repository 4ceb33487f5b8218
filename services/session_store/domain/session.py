"""Sessions and their messages as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

Tenant = NewType("Tenant", str)
SessionId = NewType("SessionId", str)
RunId = NewType("RunId", str)
MessageId = NewType("MessageId", str)
DriverId = NewType("DriverId", str)


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation; a fork had the first `forked_at` messages of `forked_from`.

    `key` is the backend's own number for its row, 0 before it is stored; times are seconds since the epoch.
    """

    tenant: Tenant
    id: SessionId
    created_at: float
    updated_at: float
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    message_count: int = 0
    active_run_id: RunId = RunId("")
    version: int = 1
    forked_from: SessionId = SessionId("")
    forked_at: int = 0
    key: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way into a session. `body` is the serialized message, which the store does not read."""

    id: MessageId
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message where it is kept. `position` counts from 1 without gaps; `run_id` is empty when it was appended directly."""

    id: MessageId
    position: int
    run_id: RunId
    created_at: float
    body: bytes


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """Which sessions to list: created in [created_after, created_before), with all of these labels."""

    created_after: float | None = None
    created_before: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What to change on a session; None leaves a field. `version` other than 0 must be the present one."""

    title: str | None = None
    metadata: Mapping[str, str] | None = None
    version: int = 0
