"""Tools for tests of the executor. Those with effects count them in a file, which survives whoever is killed."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tool_executor import ToolContext, ToolFailed, tool

GATES: dict[str, threading.Event] = defaultdict(threading.Event)
"""Opened by a test to let a waiting tool go on."""

STARTED: list[str] = []
"""Names of waiting tools, in the order in which they began."""

RUNNING: set[str] = set()
MOST_AT_ONCE: list[int] = []


def reset() -> None:
    GATES.clear()
    STARTED.clear()
    RUNNING.clear()
    MOST_AT_ONCE.clear()


async def _wait_for(gate: str) -> None:
    STARTED.append(gate)
    RUNNING.add(gate)
    MOST_AT_ONCE.append(len(RUNNING))
    try:
        while not GATES[gate].is_set():
            await asyncio.sleep(0.002)
    finally:
        RUNNING.discard(gate)


@tool(read_only=True)
async def echo(value: Any = None) -> Any:
    """Get the value back."""
    return value


@tool(read_only=True)
async def wait_reading(gate: str) -> str:
    """Wait until the gate opens, changing nothing."""
    await _wait_for(gate)
    return f"{gate} passed"


@tool
async def wait_writing(gate: str) -> str:
    """Wait until the gate opens, in a tool that may change things."""
    await _wait_for(gate)
    return f"{gate} passed"


@tool(idempotent=True)
async def wait_idempotent(gate: str, context: ToolContext) -> str:
    """Wait until the gate opens, in a tool that may run twice."""
    await _wait_for(gate)
    return f"attempt {context.attempt}"


@tool(timeout=0.05)
async def slow() -> str:
    """Take longer than allowed."""
    await asyncio.sleep(30)
    return "never"


@tool(timeout=0.05)
async def stubborn() -> str:
    """Do not stop when told."""
    while not GATES["stubborn"].is_set():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue
    return "at last"


@tool(timeout=0.05, read_only=True)
def hang(gate: str) -> str:
    """Block a thread."""
    GATES[gate].wait(30)
    return "at last"


@tool(read_only=True)
def blocking(gate: str) -> str:
    """Block a thread until the gate opens."""
    GATES[gate].wait(30)
    return f"{gate} passed"


@tool(read_only=True)
def in_thread() -> str:
    """Get the name of the thread."""
    return threading.current_thread().name


@tool
def append_line(path: str, line: str) -> str:
    """Append a line to a file: an effect that can be counted."""
    with Path(path).open("a") as file:
        file.write(line + "\n")
    return "appended"


@tool
async def append_then_wait(path: str) -> str:
    """Append a line to a file, then never end."""
    with Path(path).open("a") as file:
        file.write("effect\n")
    await asyncio.Event().wait()
    return "never"


@tool
async def append_then_pass(path: str, seconds: float) -> str:
    """Append a line to a file, then end after so long."""
    with Path(path).open("a") as file:
        file.write("effect\n")
    await asyncio.sleep(seconds)
    return "passed"


@tool(idempotent=True)
async def append_idempotent(path: str, wait: bool, context: ToolContext) -> str:
    """Append a line to a file, then on the first attempt never end."""
    with Path(path).open("a") as file:
        file.write(f"attempt {context.attempt}\n")
    if wait and context.attempt == 1:
        await asyncio.Event().wait()
    return f"attempt {context.attempt}"


@tool(read_only=True)
async def fail(how: Literal["politely", "exception", "exit", "interrupt", "quotes", "unreadable", "cancel"]) -> str:
    """Fail."""
    raise _FAILURES[how]


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


_FAILURES: dict[str, BaseException] = {
    "politely": ToolFailed("the city is unknown; name another"),
    "exception": ValueError("wrong"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "quotes": ValueError('a "quote", a \\ and a \n newline \x00 \ud800 ' + "é" * 10_000),
    "unreadable": Unreadable(),
    "cancel": asyncio.CancelledError(),
}


@tool(read_only=True)
def fail_in_thread(how: Literal["politely", "exception", "exit"]) -> str:
    """Fail in a thread."""
    raise _FAILURES[how]


@tool(read_only=True)
async def large(lines: int, width: int) -> str:
    """Return many lines."""
    return "\n".join(f"{number}:{'é' * width}" for number in range(lines))


@tool(read_only=True)
async def speak(times: int, text: str, context: ToolContext) -> str:
    """Report progress."""
    for number in range(times):
        context.progress(f"{number} {text}", number / times)
        await asyncio.sleep(0)
    return "said"


@tool(read_only=True)
def speak_in_thread(context: ToolContext) -> str:
    """Report progress from a thread."""
    for number in range(100_000):
        context.progress(f"line {number}")
    return "said"


@tool(read_only=True)
async def about(context: ToolContext) -> dict[str, Any]:
    """Tell what the context says."""
    return {
        "call_id": context.call_id,
        "key": context.key,
        "tenant": context.tenant,
        "run_id": context.run_id,
        "session_id": context.session_id,
        "attempt": context.attempt,
        "remaining": context.deadline - time.monotonic(),
    }


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


class Address(TypedDict):
    street: str
    number: int


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)] = 0


@tool(read_only=True, name="typed-things")
async def typed(
    color: Color,
    point: Point,
    address: Address,
    person: Person,
    maybe: int | None = None,
    tags: list[str] | None = None,
    counts: dict[str, int] | None = None,
    mode: Literal["fast", "slow"] = "fast",
) -> dict[str, Any]:
    """Take all sorts of things.

    :param mode: How fast.
    """
    assert isinstance(color, Color) and isinstance(point, Point) and isinstance(person, Person)
    return {
        "color": color,
        "point": point,
        "person": person,
        "address": address,
        "maybe": maybe,
        "tags": tags,
        "counts": counts,
        "mode": mode,
    }


@tool(read_only=True)
async def odd(kind: Literal["object", "bytes", "text bytes", "nan", "generator", "circular", "none", "surrogate"]) -> Any:
    """Return odd things."""
    circular: list[Any] = []
    circular.append(circular)
    values = {
        "object": object(),
        "bytes": b"\xff\xfe",
        "text bytes": "né".encode(),
        "nan": [float("nan"), 1.0],
        "generator": (n for n in range(3)),
        "circular": circular,
        "none": None,
        "surrogate": "a\ud800b",
    }
    return values[kind]


def unmarked(text: str) -> str:
    """Get the text in upper case.

    :param text: What to shout.
    """
    return json.dumps(text.upper())


if __name__ == "__main__":
    sys.exit("a module of tools")
