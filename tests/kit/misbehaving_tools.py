"""Tools that do what tools should not."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from tool_executor import tool


@tool
async def raises() -> str:
    """Raise."""
    raise RuntimeError("boom")


@tool
async def exits() -> str:
    """Try to end the process."""
    raise SystemExit(3)


@tool
def interrupts() -> str:
    """Pretend to be Ctrl-C."""
    raise KeyboardInterrupt


@tool
async def cancels_itself() -> str:
    """Pretend to be cancelled."""
    raise asyncio.CancelledError


@tool
def recurses() -> str:
    """Call itself for ever."""
    return recurses()


@tool(timeout=0.2)
async def hangs() -> str:
    """Never return."""
    await asyncio.Event().wait()
    return ""


@tool(timeout=0.2)
def hangs_in_a_thread() -> str:
    """Never return, in a thread."""
    threading.Event().wait(5)
    return ""


@tool
async def returns_fifty_megabytes() -> str:
    """Return far too much."""
    return "x" * 50_000_000


@tool
async def returns_an_object() -> Any:
    """Return what is no JSON."""
    return object()


@tool
async def returns_itself() -> dict[str, Any]:
    """Return a circle."""
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    return circle


@tool
async def returns_half_a_character() -> str:
    """Return what UTF-8 cannot hold."""
    return "a\ud800\x00b"


@tool
async def returns_a_deep_list() -> list[Any]:
    """Return a hundred thousand lists, each in the next."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@tool
async def blocks_the_loop() -> str:
    """Block the event loop for longer than a lease."""
    time.sleep(2.3)
    return "blocked"
