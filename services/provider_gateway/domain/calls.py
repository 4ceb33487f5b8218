"""What is told of a model call once it has ended: who, where, how long, how much. Nothing of what was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chassis.faults import Fault
from provider_gateway.domain.answers import FinishReason, Usage


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that came to nothing, and whom it asked. `duration` is in seconds."""

    fault: Fault
    duration: float
    provider: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class EndedCall:
    """One call of the gateway, however often it was attempted.

    `started_at` is in seconds since the epoch, `duration` and `first_output` in seconds since then; `usage` is None when none was reported.
    `finish` is None when the call failed, and `fault` when it was answered.
    """

    id: str
    tenant: str
    traceparent: str
    request_id: str
    metadata: Mapping[str, str]
    provider: str
    model: str
    streamed: bool
    started_at: float
    duration: float
    first_output: float | None
    response_id: str
    finish: FinishReason | None
    usage: Usage | None
    fault: Fault | None
    failed: tuple[FailedAttempt, ...]
