"""One execution under way: who listens, and how it is told to stop. It belongs to the executor, not to a caller."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from tool_executor.domain.context import Stop
from tool_executor.domain.cutting import clip
from tool_executor.domain.execution import Execution, Status, ToolCall
from tool_executor.domain.tool import GLOBAL, Scope
from tool_executor.operations.feed import MAX_PROGRESS_BYTES, Ended, Feed, Progress
from tool_executor.operations.ports import Output, Seat

MAX_UNHEARD_PROGRESS = 64
GRACE_SECONDS = 1.0

Outcome = Output | BaseException


@dataclass(frozen=True, slots=True)
class Order:
    """A call to execute, with everything that the caller says about it.

    `allowed` None allows every tool. `timeout` is in seconds, `deadline` a moment of the monotonic clock; None is no limit of its own.
    """

    tenant: str
    key: str
    call: ToolCall
    run_id: str = ""
    session_id: str = ""
    scope: Scope = GLOBAL
    allowed: frozenset[str] | None = None
    timeout: float | None = None
    deadline: float | None = None
    approved_by: str = ""


class Flight:
    """An execution under way."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.stop = Stop()
        self.stopped_for: Status | None = None
        self.abandoned = False
        self.execution: Execution | None = None
        self.work: asyncio.Future[Outcome] | None = None
        self.reserving: asyncio.Future[Seat] | None = None
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._feeds: list[Feed] = []
        self._said: deque[Progress] = deque(maxlen=MAX_UNHEARD_PROGRESS)
        self._saying = False

    def join(self, feed: Feed) -> None:
        """Lets a feed hear what happens from now on."""
        self._feeds.append(feed)

    def leave(self, feed: Feed) -> None:
        """Lets a feed hear no more. The execution goes on."""
        if feed in self._feeds:
            self._feeds.remove(feed)

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._feeds)

    def land(self, ended: Ended) -> None:
        """Tells everybody the end."""
        self._say()
        for feed in self._feeds:
            feed.ended(ended)

    def crash(self, failure: Exception) -> None:
        """Tells everybody that the executor failed."""
        for feed in self._feeds:
            feed.failed(failure)

    def report(self, message: str, fraction: float | None) -> None:
        """Takes progress from the tool, in any thread; wakes the loop once for however much there is."""
        shown = None if fraction is None else min(1.0, max(0.0, float(fraction)))
        self._said.append(Progress(self.order.call.id, clip(str(message), MAX_PROGRESS_BYTES), shown))
        if not self._saying and not self._loop.is_closed():
            self._saying = True
            self._loop.call_soon_threadsafe(self._say)

    def _say(self) -> None:
        self._saying = False
        while self._said:
            progress = self._said.popleft()
            for feed in self._feeds:
                feed.progressed(progress)

    async def watch(self, work: asyncio.Future[Outcome], timeout: float) -> None:
        """Returns when the work ended, or was told to stop and did or did not obey within a second."""
        self.work = work
        work.add_done_callback(self._finish)
        timer = self._loop.call_later(timeout, self.tell, Status.TIMED_OUT)
        try:
            await self._over
        finally:
            timer.cancel()

    def tell(self, why: Status) -> None:
        """Tells the work to stop; before it began, keeps it from beginning. The first reason stays."""
        if self.stopped_for is not None or (self.work is not None and self.work.done()):
            return
        self.stopped_for = why
        self.stop.told = True
        if self.reserving is not None:
            self.reserving.cancel()
        if self.work is not None:
            self.work.cancel()
            self._loop.call_later(GRACE_SECONDS, self._abandon)

    def _finish(self, _: object = None) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _abandon(self) -> None:
        if not self._over.done():
            self.abandoned = True
            self._finish()
