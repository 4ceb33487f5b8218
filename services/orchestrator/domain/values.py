"""The values that runs are made of. Bodies are whole contract messages that pass through unread, so that nothing is lost."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from chassis.faults import Fault

RunId = NewType("RunId", str)
SessionId = NewType("SessionId", str)
MessageId = NewType("MessageId", str)
CallId = NewType("CallId", str)

OWN_SERVICE = "orchestrator"
"""Where failures come from that no neighbour caused."""

Body = object
"""Something the domain carries for others and never looks into."""


class Role(enum.IntEnum):
    """Who speaks; numbers as in behest.chat.v1.Role."""

    SYSTEM = 1
    USER = 2
    ASSISTANT = 3
    TOOL = 4


class Finish(enum.IntEnum):
    """Why a model stopped; numbers as in behest.chat.v1.FinishReason."""

    UNSPECIFIED = 0
    STOP = 1
    TOOL_CALLS = 2
    LENGTH = 3
    CONTENT_FILTER = 4
    REFUSAL = 5
    ERROR = 6
    UNKNOWN = 7


class CallStatus(enum.IntEnum):
    """How a tool execution ended; numbers as in behest.tool.v1.ExecutionStatus."""

    SUCCEEDED = 2
    FAILED = 3
    ARGUMENTS_INVALID = 4
    TOOL_NOT_FOUND = 5
    TIMED_OUT = 6
    CANCELLED = 7
    UNKNOWN = 8
    DENIED = 9


class Action(enum.IntEnum):
    """What happens to a call of a tool; numbers as in behest.agent.v1.PermissionAction."""

    ALLOW = 1
    DENY = 2
    ASK = 3


class OnBusy(enum.IntEnum):
    """What to do when the session has a run under way; numbers as in behest.run.v1.BusyPolicy."""

    REJECT = 1
    QUEUE = 2
    INTERRUPT = 3
    FORK = 4


class Priority(enum.IntEnum):
    """How early a run gets a driver; numbers as in behest.run.v1.RunPriority."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, and money in billionths of a US dollar."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano_usd: int = 0
    cost_known: bool = False
    calls: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cost_nano_usd + other.cost_nano_usd,
            other.cost_known if not self.calls else self.cost_known and other.cost_known,
            self.calls + other.calls,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may consume: features.md R5."""

    max_iterations: int = 10
    max_total_tokens: int = 1_000_000
    max_cost_nano_usd: int = 10_000_000_000
    max_wall_ms: int = 600_000
    max_tool_calls: int = 100
    max_continuations: int = 3


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How much of a session's history a model sees: features.md C2."""

    max_messages: int = 50
    max_tokens: int = 64_000


@dataclass(frozen=True, slots=True)
class Permission:
    """A rule for calls of tools: features.md A2. `tool` may end with a star; `needed` and `expires_ms` are for calls that wait."""

    tool: str
    action: Action
    needed: int = 1
    expires_ms: int = 86_400_000
    destructive_only: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """Who acts. `body` is the whole definition."""

    name: str
    version: str = ""
    model: str = ""
    fallback_models: tuple[str, ...] = ()
    instructions: str = ""
    context: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    history: HistoryLimits = field(default_factory=HistoryLimits)
    loop_exempt_tools: frozenset[str] = frozenset()
    permissions: tuple[Permission, ...] = ()
    body: Body = None

    def models(self) -> tuple[str, ...]:
        """The models to try, in order."""
        return (self.model, *self.fallback_models)

    def may_call(self, tool: str) -> bool:
        """Whether it names the tool, or a prefix of it with a star."""
        return any(matches(pattern, tool) for pattern in self.tools)


def matches(pattern: str, tool: str) -> bool:
    """Whether a pattern names a tool, or with a star at its end a prefix of its name."""
    return tool == pattern or (pattern.endswith("*") and tool.startswith(pattern[:-1]))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's request to run a tool. `digest` is the SHA-256 of the arguments, hexadecimal.

    `destructive` says that the tool may destroy something; it is only known where an agent's permissions may ask.
    """

    id: CallId
    name: str
    digest: str
    body: Body = None
    destructive: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as the history sees it. `calls` are the ids an assistant asks for, `answers` the id a tool message answers."""

    id: MessageId
    role: Role
    tokens: int
    calls: tuple[CallId, ...] = ()
    answers: str = ""
    body: Body = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed, as an event tells it."""

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    service: str = ""
    retryable: bool = False

    @classmethod
    def of(cls, fault: Fault, service: str = OWN_SERVICE) -> Failure:
        """The record of a fault."""
        return cls(fault.reason, fault.message, dict(fault.metadata), fault.service or service, fault.retryable)


@dataclass(frozen=True, slots=True)
class Seam:
    """A place within a model's answer: its target failed after so many characters of text, and another one goes on."""

    failure: Failure
    provider: str
    model: str
    text_characters: int
