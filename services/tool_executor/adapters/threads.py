"""A bounded number of threads for functions that block. A hung function keeps its thread: Python cannot kill it, so it is counted."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from chassis.faults import ToolsExhausted

T = TypeVar("T")
Job = tuple[Callable[[], Any], "asyncio.Future[Any]", "ToolSeat"]


class ToolThreads:
    """Daemon threads, begun when needed and kept: one that hangs does not keep the process from ending."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stuck = 0
        self._seats = asyncio.Semaphore(limit)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._count = 0
        self._idle = 0

    async def reserve(self, timeout: float) -> ToolSeat:
        """A seat, as soon as one is free; raises ToolsExhausted after so many seconds, or at once when all threads hang."""
        if self.stuck >= self.limit:
            raise self._exhausted("all of them hang in tools that timed out; find the tool in the log and restart the executor")
        try:
            async with asyncio.timeout(timeout):
                await self._seats.acquire()
        except TimeoutError:
            raise self._exhausted(f"none became free within {timeout:g} s, {self.stuck} hang") from None
        return ToolSeat(self)

    def close(self) -> None:
        """Lets idle threads end. Those that hang are left to the end of the process."""
        for _ in range(self._count):
            self._jobs.put(None)

    def put(self, job: Job) -> None:
        """Gives work to a thread, a new one if none is idle."""
        self._jobs.put(job)
        if self._idle == 0:
            self._count += 1
            threading.Thread(target=_serve, args=(self._jobs, asyncio.get_running_loop()), name=f"tool-{self._count}", daemon=True).start()
        else:
            self._idle -= 1

    def returned(self) -> None:
        """A thread is done with its work."""
        self._idle += 1

    def give_back(self) -> None:
        """A seat is free again."""
        self._seats.release()

    def _exhausted(self, why: str) -> ToolsExhausted:
        message = f"no thread is free for a tool that blocks: of {self.limit} (tool_executor.threads), {why}"
        return ToolsExhausted(message, metadata={"threads": str(self.limit), "stuck": str(self.stuck)}, retry_after=1.0)


class ToolSeat:
    """One thread kept free. See the port."""

    def __init__(self, threads: ToolThreads) -> None:
        self._threads = threads
        self._used = False

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Runs work in the thread, with the context variables of the caller."""
        self._used = True
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._noticed)
        context = contextvars.copy_context()
        self._threads.put((lambda: context.run(work), future, self))
        return future

    def release(self) -> None:
        """Gives the seat back when it was not used."""
        if not self._used:
            self._used = True
            self._threads.give_back()

    def done(self, future: asyncio.Future[Any], result: object) -> None:
        """Called on the loop when the thread is done."""
        self._threads.returned()
        self._threads.give_back()
        if future.cancelled():
            self._threads.stuck -= 1
        elif not future.done():
            future.set_result(result)

    def _noticed(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self._threads.stuck += 1


def _serve(jobs: queue.SimpleQueue[Job | None], loop: asyncio.AbstractEventLoop) -> None:
    while (job := jobs.get()) is not None:
        work, future, seat = job
        result = work()
        try:
            loop.call_soon_threadsafe(seat.done, future, result)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return
        del job, work, future, seat, result  # an idle thread keeps nothing of its last call
