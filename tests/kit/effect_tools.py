"""Tools whose effects are counted outside of the suite: a line in a file per effect, which no crash takes back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tool_executor import tool

FILE = Path(os.environ.get("BEHEST_TEST_EFFECTS", "effects.txt"))


@tool(concurrency_safe=True)
async def record(label: str, wait_ms: int = 0) -> str:
    """Write a line that says it was done, then take some time."""
    with FILE.open("a") as file:
        file.write(f"{label}\n")
        file.flush()
        os.fsync(file.fileno())
    await asyncio.sleep(wait_ms / 1000)
    return f"recorded {label}"


@tool
async def fail(message: str) -> str:
    """Fail."""
    raise ValueError(message)


@tool
async def huge(size: int) -> str:
    """Return so many bytes."""
    return "x" * size
