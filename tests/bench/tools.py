"""The trivial tool as the executor offers it, once as a tool that only reads and once as one whose calls need receipts."""

from __future__ import annotations

from tool_executor.tools import tool


@tool(read_only=True)
async def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool(read_only=False, idempotent=False)
async def book(a: int, b: int) -> int:
    """Adds two numbers, as if that changed the world."""
    return a + b
