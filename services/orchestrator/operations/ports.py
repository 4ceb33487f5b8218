"""What the orchestrator needs of its neighbours."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chassis.faults import ServiceUnavailable, ShuttingDown, StorageUnavailable, ToolsExhausted
from orchestrator.domain import events as e
from orchestrator.domain.run import Recorded, Run
from orchestrator.domain.values import (
    Agent,
    Body,
    CallId,
    CallStatus,
    Entry,
    Finish,
    OnBusy,
    Priority,
    RunId,
    Seam,
    SessionId,
    ToolCall,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one run's log."""

    run_id: RunId
    session_id: SessionId
    tenant: str
    driver_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What one model call consumed, and where."""

    provider: str
    model: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Batch:
    """One append: events, the messages and usage that go with them, and the run as it is afterwards.

    `rests_until` lets go of the run till a moment, in seconds since the epoch: it awaits approval.
    """

    expected_sequence: int
    events: tuple[Recorded, ...]
    entries: tuple[Entry, ...]
    usage: tuple[Spent, ...]
    run: Run
    rests_until: float | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run handed to this driver. `sequence` is the last of its log."""

    run_id: RunId
    tenant: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the store tells a driver."""

    assignments: tuple[Assignment, ...]
    wakes: tuple[RunId, ...]


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """What a driver tells the store."""

    driver_id: str
    room: int
    leaving: bool = False


class Journal(Protocol):
    """The store's run log, for drivers. Calls act for the tenant of the call under way."""

    async def append(self, lease: Lease, batch: Batch) -> None:
        """Makes a batch durable. Raises LeaseLost, SequenceConflict, RunEnded; retries on its own while the store is away."""

    async def read(self, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        """The run's session and its log after a sequence."""

    def drive(self, signs: AsyncIterator[SignOfLife]) -> AsyncGenerator[Instruction, None]:
        """Keeps a driver registered for as long as both streams last."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest messages of a session, oldest first, and how many lie before them."""

    entries: tuple[Entry, ...] = ()
    before: int = 0


class Histories(Protocol):
    """The messages of sessions."""

    async def tail(self, session_id: SessionId, count: int) -> Tail:
        """The newest messages."""


@dataclass(frozen=True, slots=True)
class Toolset:
    """The tools an agent may call. `definitions` go to the model as they are; `destructive` names those that may destroy something."""

    names: tuple[str, ...] = ()
    definitions: tuple[Body, ...] = ()
    tokens: int = 0
    destructive: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Progress:
    """A running tool speaks."""

    call_id: CallId
    message: str
    fraction: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A tool call ended. `result` is the whole record without content."""

    call_id: CallId
    status: CallStatus
    content: str
    is_error: bool
    result: Body


class Tools(Protocol):
    """The tool executor."""

    async def visible(self, run_id: RunId, agent: Agent) -> Toolset:
        """The tools that the agent names and the executor has."""

    def execute(self, run: Run, calls: Sequence[ToolCall], allowed: Sequence[str]) -> AsyncGenerator[Sequence[Progress | Outcome], None]:
        """Runs the calls of the present turn; asking again with the same run, turn and call gives the same outcome.

        The run says who approved them.
        """

    async def cancel(self, run: Run, calls: Sequence[ToolCall]) -> None:
        """Stops calls under way; their outcomes still arrive on the stream."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A model request. `key` is the same whenever the same attempt is made."""

    key: str
    model: str
    run: Run
    entries: tuple[Entry, ...]
    system: tuple[str, ...]
    tools: Toolset
    first_call: bool
    continuing: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `entry` is None when the model said nothing."""

    entry: Entry | None
    calls: tuple[ToolCall, ...]
    finish: Finish
    finish_raw: str
    usage: Usage
    provider: str
    model: str
    warnings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TextOutput:
    """Text, as it comes."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningOutput:
    """Reasoning, as it comes."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStartedOutput:
    """A tool call begins."""

    call_id: CallId
    tool: str


@dataclass(frozen=True, slots=True)
class CallDeltaOutput:
    """Arguments, as they come."""

    call_id: CallId
    arguments: str


@dataclass(frozen=True, slots=True)
class SpentOutput:
    """What the call has consumed so far, as far as it is known; replaces the previous one and is replaced by the Answer's."""

    spent: Spent


Output = TextOutput | ReasoningOutput | CallStartedOutput | CallDeltaOutput | Seam | SpentOutput | Answer


class Models(Protocol):
    """The provider gateway."""

    def stream(self, ask: Ask) -> AsyncGenerator[Sequence[Output], None]:
        """The answer as it is produced, ending with an Answer. Raises the gateway's faults."""


class Scribe(Protocol):
    """Writes messages that no model and no user wrote."""

    def user(self, text: str) -> Entry:
        """A user message."""

    def assistant(self, text: str) -> Entry:
        """An assistant message."""

    def result(self, call: ToolCall, content: str, is_error: bool) -> Entry:
        """A tool message."""

    def digest(self, content: str) -> str:
        """SHA-256 of a text, hexadecimal."""

    def exact_digest(self, call: ToolCall) -> str:
        """SHA-256 of a call's arguments byte by byte, hexadecimal."""

    def stopped(self, call: ToolCall, status: CallStatus) -> Body:
        """The record of a call that its run's end stopped."""


@dataclass(frozen=True, slots=True)
class Order:
    """An accepted order on its way to the store. `fork_session_id` is where it goes if it is to fork a busy session."""

    run_id: RunId
    session_id: SessionId
    create_session: bool
    created: e.RunCreated
    at: float
    title: str
    request_id: str
    payload_digest: str
    input_digest: str
    on_busy: OnBusy
    fork_session_id: SessionId
    priority: Priority
    driver_id: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of an order. `row` is the run's row as the store gives it; epoch is zero when this driver does not have it."""

    run_id: RunId
    session_id: SessionId
    row: Body
    epoch: int
    existed: bool


NOWHERE = -1
"""Where no log ends: a command expected there is only found, if the same request recorded it before."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a command is recorded: with which request id and digest of its payload, and where the log must end, if it matters.

    A run that awaits approval goes on with the command unless it `keeps_waiting`.
    """

    request_id: str = ""
    payload_digest: str = ""
    expected: int | None = None
    keeps_waiting: bool = False


@dataclass(frozen=True, slots=True)
class RunPage:
    """Rows of runs, newest first."""

    rows: tuple[Body, ...]
    next_page_token: str


class Runs(Protocol):
    """The store's runs, for callers. Calls act for the tenant of the call under way."""

    async def open(self, order: Order) -> Opened:
        """Opens a run. Raises the store's faults."""

    async def get(self, run_id: RunId) -> tuple[Body, bool]:
        """A run's row and whether it has ended."""

    async def read(self, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        """A run's session and its log after a sequence. Raises RunNotFound, and what keeps the store from answering."""

    async def command(self, run_id: RunId, event: e.Command, terms: Terms) -> tuple[int, Body]:
        """Records a command: its sequence and the run's row. Raises RunNotFound, RunEnded, SequenceConflict, RequestIdReused."""


class Scope(enum.Enum):
    """Whose events to follow."""

    RUN = "run"
    SESSION = "session"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to follow from. `after` is a sequence for a run, a position for others; `id` is empty for the tenant."""

    scope: Scope
    id: str
    after: int
    replay_only: bool = False


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which rows to list."""

    session_id: str
    states: tuple[int, ...]
    page_size: int
    page_token: str
    ever_awaited_approval: bool = False


class Follows(Protocol):
    """The store's logs, for callers: what they get is what the store gave, unread."""

    def follow(self, place: Place) -> AsyncGenerator[Sequence[Body], None]:
        """Events in order, without gap or duplicate, over any number of interruptions shorter than the neighbour patience."""

    async def list_runs(self, query: RunQuery) -> RunPage:
        """A page of rows, newest first."""


@dataclass(slots=True)
class Ports:
    """The neighbours that driving a run needs."""

    journal: Journal
    histories: Histories
    models: Models
    tools: Tools
    scribe: Scribe


AWAY = (ServiceUnavailable, ShuttingDown, StorageUnavailable, ToolsExhausted)
"""Faults of a neighbour that may come back: asking again with the same key is harmless, and within the patience it is done."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to bear with neighbours, and how long to leave a model alone whose answer broke, in seconds."""

    neighbour: float = 60.0
    stopping: float = 2.0
    backoff: float = 0.1
    longest_backoff: float = 2.0
    retry: float = 0.5
    longest_retry: float = 8.0
