"""Slices of a history as lines that a person reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from chaos.history import History, event_of

LONGEST = 200
AROUND = 4


def line(message: Message) -> str:
    """A message on one line, cut."""
    return cut(json_format.MessageToJson(message, indent=None, preserving_proto_field_name=True))


def cut(text: str) -> str:
    """A text of bounded length."""
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def event_line(raw: bytes) -> str:
    """An event on one line: sequence, time, kind, content."""
    event = event_of(raw)
    kind = event.WhichOneof("kind")
    content = line(getattr(event, kind)) if kind else "{}"
    return f"{event.sequence:>5} {event.time.ToJsonString()[11:23]} {kind} {content}"


def around(raws: Sequence[bytes], place: int) -> tuple[str, ...]:
    """Events near a place, counted from 0."""
    return tuple(event_line(raw) for raw in raws[max(0, place - AROUND) : place + AROUND + 1])


def tail(history: History, run_id: str, count: int = 8) -> tuple[str, ...]:
    """The last events of a run, without deltas."""
    record = history.runs.get(run_id)
    return tuple(event_line(raw) for raw in record.log[-count:]) if record else ()


def words(*values: Any) -> str:
    """Values in a row."""
    return " ".join(map(str, values))


def several(lines: Iterable[str], most: int = 12) -> tuple[str, ...]:
    """At most so many lines, and how many were left out."""
    kept = list(lines)
    return tuple(kept) if len(kept) <= most else (*kept[:most], f"… and {len(kept) - most} more")
