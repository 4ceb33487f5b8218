"""Every failure that crosses a boundary, as one tree cut by who can act.

    Fault
    ├── CallerFault    the caller changes the request
    ├── StateFault     the caller looks again: the world is not what it assumed
    ├── LimitFault     the caller asks for less, or later
    ├── UpstreamFault  a model provider is in the way
    └── ServiceFault   an operator looks; the caller may retry

One class per reason of proto/behest/fault/v1/fault.proto, `SessionNotFound` for SESSION_NOT_FOUND; a test holds the two together.
How faults travel is rpc/status.py; nothing here knows of gRPC.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast


class Kind(enum.Enum):
    """The canonical code of a failure; values are google.rpc.Code numbers."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request: its path, such as input[0].text, and what is wrong with it."""

    field: str
    description: str


class Fault(Exception):
    """A failure with a kind to map, a reason to switch on, and a sentence that says what to do.

    `metadata` holds the values that matter, never secrets; `retry_after` is in seconds.
    """

    kind: ClassVar[Kind] = Kind.UNKNOWN
    reason: ClassVar[str] = "UNSPECIFIED"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: tuple[Violation, ...] = (),
        service: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = violations
        self.service = service

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            cls.reason = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).upper()
            _BY_REASON[cls.reason] = cls


_BY_REASON: dict[str, type[Fault]] = {}


def fault_class(reason: str) -> type[Fault] | None:
    """The class of a reason, None for one that this version does not know."""
    return _BY_REASON.get(reason)


@functools.lru_cache(maxsize=256)
def unknown_class(kind: Kind, reason: str) -> type[Fault]:
    """A class for a reason that this version does not know: its kind is right and the reason kept."""
    retryable = kind in (Kind.UNAVAILABLE, Kind.ABORTED, Kind.RESOURCE_EXHAUSTED)
    made = cast(type[Fault], type("UnknownFault", (UnknownFault,), {"reason": reason or "UNSPECIFIED", "retryable": retryable}))
    made.kind = kind  # set late, so that it stays out of the registry
    return made


def reasons() -> Mapping[str, type[Fault]]:
    """Every reason and its class."""
    return dict(_BY_REASON)


class UnknownFault(Fault):
    """A failure whose reason this version does not know: of a later one, or of another program."""


class CallerFault(Fault):
    """The caller must change the request."""


class RequestInvalid(CallerFault):
    """A request field is missing, malformed or out of bounds; BadRequest names it."""

    kind = Kind.INVALID_ARGUMENT


class InputEmpty(CallerFault):
    """The input of a run is empty."""

    kind = Kind.INVALID_ARGUMENT


class InputTooLong(CallerFault):
    """The input of a run is longer than the limit."""

    kind = Kind.INVALID_ARGUMENT


class InputDuplicate(CallerFault):
    """The same input was given to the session within the last 60 seconds."""

    kind = Kind.ALREADY_EXISTS


class RequestIdReused(CallerFault):
    """The request id was used before with another payload."""

    kind = Kind.ALREADY_EXISTS


class PageTokenInvalid(CallerFault):
    """A page token is not one that this service gave, or belongs to another query."""

    kind = Kind.INVALID_ARGUMENT


class SessionNotFound(CallerFault):
    """No such session."""

    kind = Kind.NOT_FOUND


class SessionExists(CallerFault):
    """A session with that id exists."""

    kind = Kind.ALREADY_EXISTS


class ExportDamaged(CallerFault):
    """The file to import is no export of a session, or was cut or changed."""

    kind = Kind.INVALID_ARGUMENT


class ExportTooNew(CallerFault):
    """The file to import has a format of a newer version."""

    kind = Kind.FAILED_PRECONDITION


class RunNotFound(CallerFault):
    """No such run."""

    kind = Kind.NOT_FOUND


class SequenceOutOfRange(CallerFault):
    """The asked-for sequence lies beyond the end of the log."""

    kind = Kind.OUT_OF_RANGE


class AgentNotFound(CallerFault):
    """No such agent."""

    kind = Kind.NOT_FOUND


class ToolNotFound(CallerFault):
    """No such tool."""

    kind = Kind.NOT_FOUND


class ToolInvalid(CallerFault):
    """A tool definition is malformed."""

    kind = Kind.INVALID_ARGUMENT


class ExecutionNotFound(CallerFault):
    """No such execution."""

    kind = Kind.NOT_FOUND


class ExecutionKeyReused(CallerFault):
    """The execution key was used before with other arguments."""

    kind = Kind.ALREADY_EXISTS


class ModelNotFound(CallerFault):
    """No such model or provider is configured."""

    kind = Kind.NOT_FOUND


class CapabilityMissing(CallerFault):
    """The model lacks what the request needs; metadata names it."""

    kind = Kind.FAILED_PRECONDITION


class FieldNotExpressible(CallerFault):
    """The provider cannot express a field of the request; metadata names its path."""

    kind = Kind.UNIMPLEMENTED


class BudgetExhausted(CallerFault):
    """A cap in money, tokens or requests is reached; metadata names it, `retry_after` says when there is more."""

    kind = Kind.RESOURCE_EXHAUSTED


class MethodNotFound(CallerFault):
    """The method does not exist here."""

    kind = Kind.UNIMPLEMENTED


class StateFault(Fault):
    """The world is not what the caller assumed."""


class SessionBusy(StateFault):
    """The session has a run under way and the caller asked to be rejected."""

    kind = Kind.FAILED_PRECONDITION
    retryable = True


class SessionChanged(StateFault):
    """The session changed since it was read."""

    kind = Kind.ABORTED
    retryable = True


class RunEnded(StateFault):
    """The run has ended."""

    kind = Kind.FAILED_PRECONDITION


class SequenceConflict(StateFault):
    """The log moved on; the expected sequence is not its end."""

    kind = Kind.ABORTED
    retryable = True


class LeaseLost(StateFault):
    """The lease belongs to another driver now; the caller must stop driving."""

    kind = Kind.FAILED_PRECONDITION


class DoomLoop(StateFault):
    """The model repeated itself after a warning."""

    kind = Kind.ABORTED


class ContextSourceFailed(StateFault):
    """A context source failed; metadata names it."""

    kind = Kind.FAILED_PRECONDITION


class ContextOverflow(StateFault):
    """The history cannot be made to fit the model's window."""

    kind = Kind.FAILED_PRECONDITION


class RunCancelled(StateFault):
    """The run was cancelled."""

    kind = Kind.CANCELLED


class LimitFault(Fault):
    """A limit is reached."""


class RunsExhausted(LimitFault):
    """All places for runs are taken."""

    kind = Kind.RESOURCE_EXHAUSTED
    retryable = True


class IterationsExhausted(LimitFault):
    """The run used up its iterations."""

    kind = Kind.RESOURCE_EXHAUSTED


class TokensExhausted(LimitFault):
    """The run used up its tokens."""

    kind = Kind.RESOURCE_EXHAUSTED


class MoneyExhausted(LimitFault):
    """The run used up its money."""

    kind = Kind.RESOURCE_EXHAUSTED


class TimeExhausted(LimitFault):
    """The run used up its wall time."""

    kind = Kind.DEADLINE_EXCEEDED


class ToolCallsExhausted(LimitFault):
    """The run used up its tool calls."""

    kind = Kind.RESOURCE_EXHAUSTED


class ToolsExhausted(LimitFault):
    """All places for tools or executions are taken."""

    kind = Kind.RESOURCE_EXHAUSTED
    retryable = True


class MessageTooLarge(LimitFault):
    """A message is larger than the transport allows."""

    kind = Kind.RESOURCE_EXHAUSTED


class UpstreamFault(Fault):
    """A model provider refused, failed or stalled."""


class ProviderCredentialsRefused(UpstreamFault):
    """The provider refused the credentials."""

    kind = Kind.UNAUTHENTICATED


class ProviderPermissionDenied(UpstreamFault):
    """The provider refuses this account or model."""

    kind = Kind.PERMISSION_DENIED


class ProviderRateLimited(UpstreamFault):
    """The provider's rate limit or quota is reached."""

    kind = Kind.RESOURCE_EXHAUSTED
    retryable = True


class ProviderBusy(UpstreamFault):
    """As many calls of the model are under way as it can take."""

    kind = Kind.RESOURCE_EXHAUSTED
    retryable = True


class ProviderUnavailable(UpstreamFault):
    """The provider is overloaded or failed."""

    kind = Kind.UNAVAILABLE
    retryable = True


class ProviderTimeout(UpstreamFault):
    """The provider did not answer in time."""

    kind = Kind.UNAVAILABLE
    retryable = True


class ProviderRequestRefused(UpstreamFault):
    """The provider refused the request."""

    kind = Kind.INVALID_ARGUMENT


class ProviderResponseInvalid(UpstreamFault):
    """The provider answered with something that is not its protocol."""

    kind = Kind.UNAVAILABLE
    retryable = True


class StreamIncomplete(UpstreamFault):
    """The stream ended before the provider's own end marker."""

    kind = Kind.UNAVAILABLE
    retryable = True


class ProviderContextOverflow(UpstreamFault):
    """The conversation is longer than the model's window."""

    kind = Kind.FAILED_PRECONDITION


class ProviderCredentialsMissing(UpstreamFault):
    """The provider's credentials are not configured."""

    kind = Kind.FAILED_PRECONDITION


class ServiceFault(Fault):
    """behest or something it needs is at fault."""


class Internal(ServiceFault):
    """A defect in behest; the id in metadata finds it in the log."""

    kind = Kind.INTERNAL


class ServiceUnavailable(ServiceFault):
    """A service that this one needs cannot be reached."""

    kind = Kind.UNAVAILABLE
    retryable = True


class DeadlineExceeded(ServiceFault):
    """The caller's deadline passed."""

    kind = Kind.DEADLINE_EXCEEDED


class CallCancelled(ServiceFault):
    """The caller went away."""

    kind = Kind.CANCELLED


class ShuttingDown(ServiceFault):
    """The service is shutting down."""

    kind = Kind.UNAVAILABLE
    retryable = True


class SettingsInvalid(ServiceFault):
    """A setting is missing or wrong; the message names it."""

    kind = Kind.FAILED_PRECONDITION


class StorageUnavailable(ServiceFault):
    """The storage cannot be written: locked, full, read-only or away."""

    kind = Kind.UNAVAILABLE
    retryable = True


class SchemaTooNew(ServiceFault):
    """The storage was written by a newer version."""

    kind = Kind.FAILED_PRECONDITION


class SchemaTooOld(ServiceFault):
    """The storage's schema is missing or older than this version; migrate it."""

    kind = Kind.FAILED_PRECONDITION


class KafkaUnavailable(ServiceFault):
    """Kafka cannot be reached, or does not answer."""

    kind = Kind.UNAVAILABLE
    retryable = True


class KafkaAccessRefused(ServiceFault):
    """Kafka refuses our identity, or what it may do."""

    kind = Kind.PERMISSION_DENIED


class TopicMissing(ServiceFault):
    """A topic does not exist in Kafka."""

    kind = Kind.FAILED_PRECONDITION


class ApprovalNotFound(CallerFault):
    """No such approval."""

    kind = Kind.NOT_FOUND


class ApprovalDecided(StateFault):
    """The approval was decided before, or this person has decided about it already."""

    kind = Kind.FAILED_PRECONDITION


class ApprovalExpired(StateFault):
    """Nobody decided in time; the call counts as denied."""

    kind = Kind.FAILED_PRECONDITION


class ApprovalMismatch(StateFault):
    """The decision is about other arguments than those of the call."""

    kind = Kind.FAILED_PRECONDITION


class CommandExpired(StateFault):
    """A command from Kafka is too old to tell whether it was carried out before."""

    kind = Kind.FAILED_PRECONDITION
