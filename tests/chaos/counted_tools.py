"""Tools whose effects are counted outside of the system.

Each attempt writes a line as it begins and as it ends, which no crash takes back.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from tool_executor import ToolContext, tool

FILE = os.environ.get("BEHEST_CHAOS_INVOCATIONS", "invocations.jsonl")


def _note(context: ToolContext, name: str, phase: str) -> None:
    line = {"key": context.key, "tool": name, "phase": phase, "attempt": context.attempt, "at": time.time()}
    descriptor = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _do(context: ToolContext, name: str, wait_ms: int) -> str:
    _note(context, name, "begin")
    if wait_ms:
        context.progress(f"{name} is under way", 0.5)
    await asyncio.sleep(wait_ms / 1000)
    _note(context, name, "end")
    return f"{name} {context.key}"


@tool
async def strike(wait_ms: int, context: ToolContext) -> str:
    """Do something that must not be done twice, and nothing beside it."""
    return await _do(context, "strike", wait_ms)


@tool(concurrency_safe=True)
async def charge(wait_ms: int, context: ToolContext) -> str:
    """Do something that must not be done twice."""
    return await _do(context, "charge", wait_ms)


@tool(idempotent=True, concurrency_safe=True)
async def put(wait_ms: int, context: ToolContext) -> str:
    """Do something that may be done twice."""
    return await _do(context, "put", wait_ms)


@tool(read_only=True)
async def look(wait_ms: int, context: ToolContext) -> str:
    """Change nothing."""
    return await _do(context, "look", wait_ms)


@tool(concurrency_safe=True)
def press(wait_ms: int, context: ToolContext) -> str:
    """Do something that must not be done twice, in a thread."""
    _note(context, "press", "begin")
    time.sleep(wait_ms / 1000)
    _note(context, "press", "end")
    return f"press {context.key}"
