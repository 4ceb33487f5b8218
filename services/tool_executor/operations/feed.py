"""What a caller hears while its calls run: progress, which may be dropped, and ends, which may not."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from tool_executor.domain.execution import Execution

MAX_PROGRESS = 256
MAX_PROGRESS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """A line from a tool that is still running."""

    call_id: str
    message: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that ended, and whether this is a receipt from before."""

    execution: Execution
    replayed: bool


@dataclass(frozen=True, slots=True)
class Happened:
    """What happened since the caller last looked."""

    progress: tuple[Progress, ...]
    ended: tuple[Ended, ...]


class Feed:
    """The ear of one stream. When a listener is slow, the oldest progress is dropped."""

    def __init__(self) -> None:
        self._progress: deque[Progress] = deque(maxlen=MAX_PROGRESS)
        self._ended: list[Ended] = []
        self._failure: Exception | None = None
        self._wake = asyncio.Event()

    def progressed(self, progress: Progress) -> None:
        """Adds progress."""
        self._progress.append(progress)
        self._wake.set()

    def ended(self, ended: Ended) -> None:
        """Adds an end."""
        self._ended.append(ended)
        self._wake.set()

    def failed(self, failure: Exception) -> None:
        """Makes `next` raise, once everything that happened before was heard."""
        self._failure = self._failure or failure
        self._wake.set()

    async def next(self) -> Happened:
        """Whatever happened, as soon as there is something. Raises what the executor itself failed with."""
        await self._wake.wait()
        if self._failure is not None and not self._ended:
            raise self._failure
        happened = Happened(tuple(self._progress), tuple(self._ended))
        self._progress.clear()
        self._ended.clear()
        if self._failure is None:
            self._wake.clear()
        return happened
