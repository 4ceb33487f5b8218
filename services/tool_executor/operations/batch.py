"""The calls of one turn, in an order that keeps effects apart, heard as one stream."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Collection, Sequence

from tool_executor.domain.execution import never_started
from tool_executor.domain.stages import stages
from tool_executor.operations.execute import Executor, Prepared, Ready
from tool_executor.operations.feed import Feed, Happened
from tool_executor.operations.flight import Flight, Order

Waiting = tuple[Order, Prepared]


class Batches:
    """Runs batches on an executor. A batch lives as long as its stream; what it has begun lives on without it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._open: set[Batch] = set()

    async def run(self, orders: Sequence[Order]) -> AsyncGenerator[Happened, None]:
        """What happens to the calls, until each has ended. Raises what the executor itself fails with."""
        batch = Batch(self._executor, orders)
        self._open.add(batch)
        try:
            while batch.open:
                yield await batch.next()
        finally:
            batch.leave()
            self._open.discard(batch)

    def cancel(self, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
        """Stops calls of a run, those under way and those that wait in an open batch; returns their ids."""
        waiting = [call_id for batch in self._open for call_id in batch.cancel(tenant, run_id, call_ids)]
        return sorted({*waiting, *self._executor.cancel(tenant, run_id, call_ids)})


class Batch:
    """One batch."""

    def __init__(self, executor: Executor, orders: Sequence[Order]) -> None:
        self._executor = executor
        prepared = [(order, executor.prepare(order)) for order in orders]
        self._stages = deque(deque(group) for group in stages([(call, _may_run_beside(call[1])) for call in prepared]))
        self._cancelled: set[str] = set()
        self._feed = Feed()
        self._flights: list[Flight] = []
        self._under_way = 0

    @property
    def open(self) -> bool:
        """Whether anything is yet to happen."""
        return bool(self._stages)

    async def next(self) -> Happened:
        """What happens next, stage after stage."""
        waiting = self._stages[0]
        self._under_way += self._start(waiting, self._executor.limits.parallel - self._under_way)
        happened = await self._feed.next()
        self._under_way -= len(happened.ended)
        if not waiting and not self._under_way:
            self._stages.popleft()
        return happened

    def leave(self) -> None:
        """Stops listening."""
        for flight in self._flights:
            flight.leave(self._feed)

    def cancel(self, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
        """Marks calls that wait here, so that they end without having begun; returns their ids."""
        waiting = [order for stage in self._stages for order, _ in stage if order.tenant == tenant and order.run_id == run_id]
        marked = [order.call.id for order in waiting if not call_ids or order.call.id in call_ids]
        self._cancelled.update(marked)
        return marked

    def _start(self, waiting: deque[Waiting], room: int) -> int:
        count = min(room, len(waiting))
        for _ in range(count):
            order, prepared = waiting.popleft()
            if order.call.id in self._cancelled:
                prepared = never_started(order.call.name)
            self._flights.append(self._executor.start(order, prepared, self._feed))
        return count


def _may_run_beside(prepared: Prepared) -> bool:
    """Whether a call may run beside others; one that is refused runs nothing."""
    return not isinstance(prepared, Ready) or prepared.entry.tool.traits.concurrency_safe
