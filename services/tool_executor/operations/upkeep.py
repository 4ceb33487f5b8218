"""What the executor does by itself: renew the lease of its claims, see what others registered and stop, forget what is old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from chassis.faults import Fault
from chassis.world import Clock
from tool_executor.domain.ledger import LEASE_SECONDS, RENEW_SECONDS
from tool_executor.operations.cancelling import Cancelling
from tool_executor.operations.execute import Executor
from tool_executor.operations.ports import Executions
from tool_executor.operations.tools import Tools

LOOK_AROUND_SECONDS = 1.0  # how soon a tool registered with another executor is seen here, and a call stopped, when no word of it comes
PURGE_SECONDS = 3600.0
LOOK_SECONDS = 1.0
STANDSTILL_SECONDS = 1.0  # a loop that stood still for so long was blocked by a tool: nothing here computes that long

_log = structlog.get_logger("tool_executor")


class Upkeep:
    """The executor's own chores. Failures are logged and tried again; they stop nothing."""

    def __init__(
        self, executor: Executor, executions: Executions, tools: Tools, cancelling: Cancelling, clock: Clock, retention: float
    ) -> None:
        self._executor = executor
        self._executions = executions
        self._tools = tools
        self._cancelling = cancelling
        self._news = (asyncio.Event(), asyncio.Event())
        self._clock = clock
        self._retention = retention

    async def run(self) -> None:
        """Does the chores until it is cancelled."""
        async with asyncio.TaskGroup() as chores:
            chores.create_task(self._every(RENEW_SECONDS, self.renew))
            for news, look in zip(self._news, (self._tools.refresh, self._cancelling.obey), strict=True):
                chores.create_task(self._every(LOOK_AROUND_SECONDS, look, news))
            chores.create_task(self._every(PURGE_SECONDS, self.purge))
            chores.create_task(self.notice_standstills())

    def look_around(self) -> None:
        """Has what others registered and stop looked at now: word of it came."""
        for news in self._news:
            news.set()

    async def renew(self) -> None:
        """Renews the lease while claims are open, so that no other executor takes them for orphans."""
        if self._executor.holds_claims:
            await self._executions.renew(self._executor.instance, self._clock.now() + LEASE_SECONDS)

    async def purge(self) -> None:
        """Forgets records beyond the retention, and the tools of idle runs."""
        records = await self._executions.purge(self._clock.now() - self._retention)
        tools = await self._tools.expire()
        if records or tools:
            _log.info("forgotten", executions=records, tools_of_idle_runs=tools)

    async def notice_standstills(self) -> None:
        """Names the tools that were under way when the event loop stood still, for ever: nothing else tells why all others waited."""
        while True:
            due = self._clock.monotonic() + LOOK_SECONDS
            await self._clock.sleep(LOOK_SECONDS)
            late = self._clock.monotonic() - due
            if late >= STANDSTILL_SECONDS and (tools := self._executor.async_tools_under_way()):
                remedy = "await in it, or make it a plain function, which gets a thread of its own"
                _log.warning("an async tool blocked this process", seconds=round(late, 1), among=tools, remedy=remedy)

    async def _every(self, seconds: float, chore: Callable[[], Awaitable[None]], news: asyncio.Event | None = None) -> None:
        told = ""
        while True:
            try:
                await chore()
                told = ""
            except Fault as fault:
                if fault.message != told:
                    _log.warning("a chore failed and is tried again", chore=chore.__name__, reason=fault.reason, problem=fault.message)
                told = fault.message
            await self._pause(seconds, news)

    async def _pause(self, seconds: float, news: asyncio.Event | None) -> None:
        """Sleeps, until there is news."""
        if news is None:
            return await self._clock.sleep(seconds)
        waits = [asyncio.create_task(self._clock.sleep(seconds)), asyncio.create_task(news.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return news.clear()
