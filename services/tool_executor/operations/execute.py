"""Runs calls, each at most once: prepare, claim, run, keep the receipt. The rules of claims are domain/ledger.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from chassis.faults import DeadlineExceeded, ExecutionKeyReused, ShuttingDown, StorageUnavailable, ToolsExhausted
from chassis.waypoints import waypoint
from chassis.world import World
from tool_executor.domain import execution as results
from tool_executor.domain.arguments import ArgumentsRefused, read_arguments, recorded
from tool_executor.domain.context import ToolContext
from tool_executor.domain.cutting import Bounds
from tool_executor.domain.execution import Execution, Result, Status
from tool_executor.domain.ledger import Standing, Verdict
from tool_executor.operations.feed import Ended, Feed
from tool_executor.operations.flight import GRACE_SECONDS, Flight, Order, Outcome
from tool_executor.operations.outcome import result_of
from tool_executor.operations.ports import Deleted, Executions, Output, Seat, Threads
from tool_executor.operations.registry import Entry, Registry

ELSEWHERE_POLL_SECONDS = 0.1
KEEP_RETRY_SECONDS = (0.1, 0.5, 2.0, 5.0, 10.0)  # with what a storage itself waits, 45 s: longer than a database takes to fail over

_log = structlog.get_logger("tool_executor")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one executor does at most."""

    executions: int = 1024
    parallel: int = 4
    output: Bounds = Bounds()


@dataclass(frozen=True, slots=True)
class Ready:
    """A call that may run: its tool and its arguments as the function takes them."""

    entry: Entry
    bound: Mapping[str, Any]

    @property
    def claims(self) -> bool:
        """Whether it must be claimed before it runs: whatever is not read_only."""
        return not self.entry.tool.traits.read_only


Prepared = Ready | Result


class Executor:
    """The executions of one process."""

    def __init__(self, registry: Registry, executions: Executions, threads: Threads, world: World, limits: Limits) -> None:
        self.instance = world.ids.new()
        self.limits = limits
        self._registry = registry
        self._executions = executions
        self._threads = threads
        self._clock = world.clock
        self._flights: dict[tuple[str, str], Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._claims = 0
        self._closing = False

    @property
    def holds_claims(self) -> bool:
        """Whether a claim of this process is open, so that its lease must be renewed."""
        return self._claims > 0

    def async_tools_under_way(self) -> list[str]:
        """The names of the tools that run on the event loop at this moment."""
        return sorted({f.order.call.name for f in self._flights.values() if f.work is not None and f.reserving is None})

    def prepare(self, order: Order) -> Prepared:
        """The call ready to run, or the result that says why it is not run."""
        name = order.call.name
        allowed = order.allowed is None or name in order.allowed
        entry = self._registry.look_up(order.tenant, name, order.scope) if allowed else None
        if entry is None:
            return results.tool_not_found(name, self._registry.nearest(order.tenant, name, order.scope, order.allowed))
        try:
            return _bind(entry, order.call.arguments)
        except ArgumentsRefused as refused:
            return results.arguments_invalid(name, refused.problems)

    def start(self, order: Order, prepared: Prepared, feed: Feed) -> Flight:
        """Begins the execution, or joins the one of that key; the feed hears how it ends."""
        where = (order.tenant, order.key)
        flight = self._flights.get(where)
        if flight is None:
            self._admit()
            flight = self._flights[where] = Flight(order)
            self._own(self._fly(flight, prepared))
        elif flight.order.call != order.call:
            raise _reused(order)
        flight.join(feed)
        return flight

    def cancel(self, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
        """Tells the calls of a run, or the direct call of that key, to stop; returns the ids of those that were under way."""
        told = [f for f in self._flights.values() if _is_of(f.order, tenant, run_id, call_ids)]
        for flight in told:
            flight.tell(Status.CANCELLED)
        return [f.order.call.id for f in told]

    async def delete(self, tenant: str, run_ids: Sequence[str]) -> Deleted:
        """Forgets the ended executions of runs."""
        deleted = Deleted()
        for run_id in run_ids:
            deleted += await self._executions.delete(tenant, run_id)
        return deleted

    async def find(self, tenant: str, key: str) -> Execution | None:
        """The record of an execution, also of one under way."""
        flight = self._flights.get((tenant, key))
        if flight is not None and flight.execution is not None:
            return flight.execution
        return await self._executions.find(tenant, key)

    async def drain(self, seconds: float) -> None:
        """Takes no more calls, waits so long for those under way, then stops them: their claims stay without receipts to be judged."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)

    async def close(self) -> None:
        """Stops what is still under way, and tells others that they need not wait for its lease to end."""
        await self.drain(0)
        with contextlib.suppress(StorageUnavailable):
            await self._executions.resign(self.instance)

    def _admit(self) -> None:
        if self._closing:
            raise ShuttingDown("this executor is shutting down; send the same request again, another one takes it", retry_after=0.5)
        if len(self._flights) >= self.limits.executions:
            message = f"{self.limits.executions} executions are under way, which is the limit (tool_executor.max_executions); try again"
            raise ToolsExhausted(message, retry_after=1.0)

    def _own(self, work: Any) -> asyncio.Task[Any]:
        """Tasks here outlive the call that caused them, so no task group of a call can hold them; `close` ends them."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _fly(self, flight: Flight, prepared: Prepared) -> None:
        try:
            flight.land(await self._settle(flight, prepared))
        except asyncio.CancelledError:
            flight.crash(ShuttingDown("this executor went away; send the same request again", retry_after=0.5))
            raise
        except Exception as failure:  # noqa: BLE001 - an unheard failure would vanish with its task; the callers' pipeline maps it
            self._crash(flight, failure)
        finally:
            del self._flights[flight.order.tenant, flight.order.key]

    def _crash(self, flight: Flight, failure: Exception) -> None:
        if not flight.heard:
            _log.error("execution failed unheard", tool=flight.order.call.name, key=flight.order.key, exc_info=failure)
        flight.crash(failure)

    async def _settle(self, flight: Flight, prepared: Prepared) -> Ended:
        if isinstance(prepared, Result):
            return await self._refuse(flight, prepared)
        if self._timeout(flight, prepared) <= 0:
            raise DeadlineExceeded(f"the deadline passed before {flight.order.call.name} began; nothing was run")
        if not prepared.entry.function.threaded:
            return await self._execute(flight, prepared, None)
        seat = await self._reserve(flight, prepared)
        if seat is None:
            return await self._refuse(flight, results.never_started(prepared.entry.tool.name))
        try:
            return await self._execute(flight, prepared, seat)
        finally:
            seat.release()

    async def _reserve(self, flight: Flight, ready: Ready) -> Seat | None:
        """A thread, reserved before the claim so that a call that gets none was never begun; None when it was cancelled meanwhile."""
        reserving: asyncio.Task[Seat] = self._own(self._threads.reserve(self._timeout(flight, ready)))
        flight.reserving = reserving
        await asyncio.wait([reserving])
        return None if reserving.cancelled() else reserving.result()

    async def _refuse(self, flight: Flight, result: Result) -> Ended:
        """Records that nothing was run, unless something was, under the same key."""
        asked = self._asked(flight.order, "", repeatable=True)
        standing = await self._begin(asked, claim=False)
        if standing.verdict not in _MAY_RUN:
            return self._settled(flight.order, standing)
        return await self._end(standing, result, began=self._clock.monotonic(), claimed=standing.verdict is Verdict.TAKE_OVER)

    async def _execute(self, flight: Flight, ready: Ready, seat: Seat | None) -> Ended:
        tool = ready.entry.tool
        asked = flight.execution = self._asked(flight.order, tool.version, tool.traits.repeatable)
        standing = await self._begin(asked, ready.claims)
        if standing.verdict not in _MAY_RUN:
            return self._settled(flight.order, standing)
        claimed = ready.claims or standing.verdict is Verdict.TAKE_OVER
        self._claims += claimed
        try:
            if claimed:
                waypoint("executor.claimed")
            began = self._clock.monotonic()
            flight.execution = standing.execution
            result = await self._run(flight, ready, seat)
            return await self._end(standing, result, began, claimed)
        finally:
            self._claims -= claimed

    def _asked(self, order: Order, version: str, repeatable: bool) -> Execution:
        kept = recorded(order.call.arguments)
        return Execution(
            tenant=order.tenant,
            key=order.key,
            call=order.call if kept is order.call.arguments else replace(order.call, arguments=kept),
            instance=self.instance,
            started_at=self._clock.now(),
            run_id=order.run_id,
            session_id=order.session_id,
            tool_version=version,
            repeatable=repeatable,
            approved_by=order.approved_by,
        )

    async def _begin(self, asked: Execution, claim: bool) -> Standing:
        """The verdict, after waiting for an executor that runs the same call elsewhere: its receipt comes or its lease ends."""
        while True:
            standing = await self._executions.begin(asked, claim)
            if standing.verdict is not Verdict.ELSEWHERE:
                return standing
            await self._clock.sleep(ELSEWHERE_POLL_SECONDS)
            asked = replace(asked, started_at=self._clock.now())

    def _settled(self, order: Order, standing: Standing) -> Ended:
        if standing.verdict is Verdict.REUSED:
            raise _reused(order)
        if standing.verdict is Verdict.UNKNOWN:
            _log.warning("outcome unknown, not run again", tool=order.call.name, key=order.key)
        return Ended(standing.execution, replayed=True)

    async def _end(self, standing: Standing, result: Result, began: float, claimed: bool) -> Ended:
        ended = standing.execution.ended(result, self._clock.now(), self._clock.monotonic() - began)
        if claimed:
            waypoint("executor.executed")
            kept = await self._keep(ended)
            waypoint("executor.receipt")
            return Ended(kept, replayed=False)
        await self._executions.remember(ended)
        return Ended(ended, replayed=False)

    async def _keep(self, ended: Execution) -> Execution:
        """The receipt is the only proof that the tool ended, so a storage that stumbles is given time."""
        for pause in KEEP_RETRY_SECONDS:
            try:
                return await self._executions.finish(ended)
            except StorageUnavailable:
                await self._clock.sleep(pause)
        return await self._executions.finish(ended)

    def _timeout(self, flight: Flight, ready: Ready) -> float:
        """Seconds that the call may take from now; none are left when it is not above 0."""
        order = flight.order
        timeout = min(ready.entry.tool.timeout, order.timeout or ready.entry.tool.timeout)
        return timeout if order.deadline is None else min(timeout, order.deadline - self._clock.monotonic())

    async def _run(self, flight: Flight, ready: Ready, seat: Seat | None) -> Result:
        tool, function = ready.entry.tool, ready.entry.function
        if flight.stopped_for is not None:
            return results.never_started(tool.name)
        timeout = self._timeout(flight, ready)
        if timeout <= 0:
            return results.too_late(tool.name)
        context = self._context(flight, timeout)
        work: asyncio.Future[Outcome]
        if seat is not None:
            work = seat.run(lambda: _contain_blocking(lambda: function.run_blocking(ready.bound, context)))
        else:
            work = self._own(_contain(function.run(ready.bound, context)))
        await flight.watch(work, timeout)
        return await result_of(flight, ready.entry, work, timeout, self.limits.output)

    def _context(self, flight: Flight, timeout: float) -> ToolContext:
        order, execution = flight.order, flight.execution
        return ToolContext(
            call_id=order.call.id,
            key=order.key,
            tenant=order.tenant,
            run_id=order.run_id,
            session_id=order.session_id,
            attempt=execution.attempt if execution else 1,
            deadline=self._clock.monotonic() + timeout,
            report=flight.report,
            stop=flight.stop,
        )


_MAY_RUN = (Verdict.BEGIN, Verdict.TAKE_OVER)


def _bind(entry: Entry, written: bytes) -> Ready:
    arguments = read_arguments(written)
    if problems := entry.arguments.problems(arguments):
        raise ArgumentsRefused(*problems)
    return Ready(entry, entry.function.bind(arguments))


async def _contain(work: Coroutine[Any, Any, Output]) -> Outcome:
    """The outcome of a function, failures included: not even SystemExit of a tool may end the executor."""
    try:
        return await work
    except asyncio.CancelledError:
        raise
    except BaseException as failure:  # noqa: BLE001 - whatever a tool raises is its result
        return failure


def _contain_blocking(work: Callable[[], Output]) -> Outcome:
    try:
        return work()
    except BaseException as failure:  # noqa: BLE001 - whatever a tool raises is its result
        return failure


def _is_of(order: Order, tenant: str, run_id: str, call_ids: Collection[str]) -> bool:
    if order.tenant != tenant:
        return False
    if not order.run_id:
        return order.key == run_id
    return order.run_id == run_id and (not call_ids or order.call.id in call_ids)


def _reused(order: Order) -> ExecutionKeyReused:
    message = f"execution {order.key!r} was begun with another tool or other arguments; use a new call id or request id"
    return ExecutionKeyReused(message, metadata={"key": order.key})
