"""What was seen while the harness ran, and what was read back at the end: everything that the rules judge, and nothing else.

A history is plain data that can be written to a file and judged again. Events, messages and rows are kept as the bytes that came
over the wire, since followers are promised the same bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from behest.event.v1 import event_pb2

T = TypeVar("T")

TERMINAL = ("run_completed", "run_failed", "run_cancelled")
DELTAS = ("text_delta", "reasoning_delta", "tool_call_delta")
STATES = {"run_completed": 3, "run_failed": 4, "run_cancelled": 5}
"""The RunState that each terminal event leaves behind."""


@dataclass(frozen=True, slots=True)
class Order:
    """A run that a client asked for. `run_id` is empty when no answer said which it became. Times are seconds since the epoch."""

    request_id: str
    text: str
    sent_at: float
    answered_at: float
    run_id: str = ""
    session_id: str = ""
    on_busy: int = 0
    max_tool_calls: int = 0
    max_iterations: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A cancel or an input that was acknowledged. `sequence` is that of the recorded input, 0 for a cancel."""

    run_id: str
    kind: str
    request_id: str
    text: str
    sequence: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class Letter:
    """A command that Kafka acknowledged to have. `run_id` is empty for one that starts a run."""

    id: str
    kind: str
    text: str
    run_id: str
    sent_at: float


@dataclass(frozen=True, slots=True)
class Append:
    """Events that the store acknowledged to a driver which the harness played: they begin at `first`."""

    run_id: str
    first: int
    events: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """What a follower got after a sequence. `complete`: it ended with status OK, which says that nothing will come any more."""

    run_id: str
    after: int
    events: tuple[bytes, ...]
    complete: bool
    by: str = ""


@dataclass(frozen=True, slots=True)
class SessionStream:
    """What a follower of a whole session got after a position."""

    session_id: str
    after: int
    events: tuple[bytes, ...]
    by: str = ""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A line of the log that tools write themselves: an attempt at a call began or ended."""

    key: str
    tool: str
    phase: str
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it was read back: its row (behest.run.v1.Run) and its log."""

    row: bytes
    log: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it was read back: its messages (StoredMessage), its events in the order of commits, and its usage (chat.v1.Usage).

    The first `forked_at` messages are those of the session that it was forked from, if it was.
    """

    messages: tuple[bytes, ...]
    events: tuple[bytes, ...]
    usage: bytes
    forked_from: str = ""
    forked_at: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record of the topic of run events."""

    topic: str
    partition: int
    offset: int
    key: str
    id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Trait:
    """What a tool says of itself."""

    repeatable: bool
    read_only: bool


@dataclass(frozen=True, slots=True)
class Defect:
    """Something that no fault excuses: a process that ended by itself, a call that was answered with INTERNAL."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class History:
    """All of it. `receipts` are the executions (behest.tool.v1.Execution) of all calls that began, by key; empty bytes: none.

    `records` is None when there was no Kafka; `dead_letters` are the ids of commands that were put aside. `clock_error` is by how
    many seconds the machine's wall clock was set meanwhile.
    """

    orders: tuple[Order, ...] = ()
    commands: tuple[Command, ...] = ()
    appends: tuple[Append, ...] = ()
    streams: tuple[Stream, ...] = ()
    session_streams: tuple[SessionStream, ...] = ()
    invocations: tuple[Invocation, ...] = ()
    runs: Mapping[str, RunRecord] = field(default_factory=dict)
    sessions: Mapping[str, SessionRecord] = field(default_factory=dict)
    receipts: Mapping[str, bytes] = field(default_factory=dict)
    tools: Mapping[str, Trait] = field(default_factory=dict)
    records: tuple[Record, ...] | None = None
    letters: tuple[Letter, ...] = ()
    dead_letters: tuple[str, ...] = ()
    defects: tuple[Defect, ...] = ()
    clock_error: float = 0.0


@lru_cache(maxsize=1 << 18)
def event_of(raw: bytes) -> event_pb2.Event:
    """The event of these bytes; not to be changed."""
    return event_pb2.Event.FromString(raw)


@lru_cache(maxsize=1 << 18)
def unplaced(raw: bytes) -> bytes:
    """An event as it is before the store has given it a position."""
    event = event_pb2.Event.FromString(raw)
    event.ClearField("position")
    return event.SerializeToString(deterministic=True)


def kind_of(raw: bytes) -> str:
    """The kind of the event of these bytes."""
    return str(event_of(raw).WhichOneof("kind"))


def events_of(history: History, run_id: str, *kinds: str) -> list[event_pb2.Event]:
    """A run's events as they were read back, or those of some kinds."""
    record = history.runs.get(run_id)
    events = [event_of(raw) for raw in record.log] if record else []
    return [event for event in events if not kinds or event.WhichOneof("kind") in kinds]


def ended(history: History, run_id: str) -> bool:
    """Whether a run's log has a terminal event."""
    return bool(events_of(history, run_id, *TERMINAL))


def save(history: History, path: Path) -> None:
    """Writes a history to a file."""
    with gzip.open(path, "wt") as file:
        json.dump(_plain(history), file)


def load(path: Path) -> History:
    """The history that a file holds."""
    with gzip.open(path, "rt") as file:
        return _typed(History, json.load(file))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _typed(kind: Any, value: Any) -> Any:
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(of[0], value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _typed(hints[name], each) for name, each in value.items()})
    if origin is tuple:
        return tuple(_typed(of[0], each) for each in value)
    if origin is not None:
        return {key: _typed(of[1], each) for key, each in value.items()}
    return base64.b64decode(value) if kind is bytes else value
