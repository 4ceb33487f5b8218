"""Receipts of unclaimed executions, written behind: many in one transaction, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from chassis.faults import StorageUnavailable
from tool_executor.domain.execution import Execution

MAX_UNWRITTEN = 10_000
LINGER_SECONDS = 0.05  # what a kill may lose is only receipts of tools that changed nothing
RETRY_SECONDS = 1.0

_log = structlog.get_logger("tool_executor")


class Unwritten:
    """What waits to be written. `running` must be entered beside its users."""

    def __init__(self, write: Callable[[Sequence[Execution]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: dict[tuple[str, str], Execution] = {}
        self._wake = asyncio.Event()

    def find(self, tenant: str, key: str) -> Execution | None:
        """The receipt that waits."""
        return self._waiting.get((tenant, key))

    async def add(self, ended: Execution) -> None:
        """Has the receipt written, soon; when the backlog is full, now."""
        if len(self._waiting) >= MAX_UNWRITTEN:
            await self._write([ended])
            return
        self._waiting.setdefault((ended.tenant, ended.key), ended)
        self._wake.set()

    async def flush(self) -> None:
        """Writes what waits, in one transaction."""
        waiting = list(self._waiting.values())
        if not waiting:
            return
        await self._write(waiting)
        for execution in waiting:
            self._waiting.pop((execution.tenant, execution.key), None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes behind while the body runs, and all that is left at its end."""
        writing = asyncio.create_task(self._write_behind())
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            await self._flush_last()

    async def _write_behind(self) -> None:
        """A storage that fails is tried again."""
        told = ""
        while True:
            await self._wake.wait()
            await asyncio.sleep(LINGER_SECONDS)
            self._wake.clear()
            try:
                await self.flush()
                told = ""
            except Exception as problem:  # noqa: BLE001 - whatever it is, the receipts wait and are tried again
                if str(problem) != told:
                    _log.warning("receipts wait to be written", count=len(self._waiting), problem=str(problem))
                told = str(problem)
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _flush_last(self) -> None:
        """When that fails at the very end, says what is lost instead of hiding why the ledger was closed."""
        try:
            await self.flush()
        except StorageUnavailable as fault:
            _log.error("receipts of read-only tools are lost", count=len(self._waiting), problem=fault.message)
