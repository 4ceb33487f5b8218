"""Following logs: replay from the tables, then live from the broadcaster, joined by sequence or position."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

from chassis.faults import SequenceOutOfRange, ShuttingDown
from session_store.domain.batch import Batch, last_position, number_of
from session_store.domain.bounds import refuse
from session_store.operations.appending import run_not_found
from session_store.operations.broadcast import Broadcaster, RunScope, Scope, SessionScope, Subscription
from session_store.operations.opening import session_not_found
from session_store.operations.pages import SharedReads
from session_store.operations.ports import Storage, Tables

PAGE = 256  # batches read at once
PAGE_BYTES = 256 * 1024
FROM_NOW = -1


@dataclass(frozen=True, slots=True)
class Delivery:
    """Batches in order. Of the first, events up to `after` (a sequence or a position, as followed) were delivered before."""

    batches: tuple[Batch, ...]
    after: int


@dataclass(frozen=True, slots=True)
class _Page:
    batches: list[Batch]
    last: int  # the end of what is followed, as a sequence or position
    ended: bool = False


class Follows:
    """Follows logs for any number of callers. Those at the same place share their reads."""

    def __init__(self, storage: Storage, broadcaster: Broadcaster) -> None:
        self._storage = storage
        self._broadcaster = broadcaster
        self._reads: SharedReads[_Page] = SharedReads()

    async def follow(self, scope: Scope, after: int, replay_only: bool) -> AsyncGenerator[Delivery, None]:
        """Everything after a sequence (of a run) or position (of a session or tenant), in order, once; a run's ends after its last event.

        Raises RunNotFound, SessionNotFound, SequenceOutOfRange, and ShuttingDown when the service leaves before the log ends.
        """
        if after < (0 if isinstance(scope, RunScope) else FROM_NOW):
            raise refuse("after", f"is {after}; use the last {'sequence' if isinstance(scope, RunScope) else 'position'} seen, or 0")
        with self._broadcaster.subscribe(scope) as subscription:
            place = _Place(scope, after)
            while not place.ended:
                subscription.catch_up()
                async for delivery in self._replay(place):
                    yield delivery
                if replay_only or place.ended:
                    return
                async for delivery in _live(subscription, place):
                    yield delivery
                if subscription.closed and not place.ended:
                    raise ShuttingDown("the session store is shutting down; follow again after the last event you have", retry_after=1.0)

    async def _replay(self, place: _Place) -> AsyncGenerator[Delivery, None]:
        while True:
            page = await self._page(place.scope, place.after)
            if place.after == FROM_NOW:
                place.after = page.last
            if place.after > page.last:
                raise _beyond(place.after, page.last)
            delivery = place.advance(page.batches)
            if delivery is not None:
                yield delivery
            if delivery is None or place.after >= page.last:
                place.ended = page.ended and place.after >= page.last
                return

    async def _page(self, scope: Scope, after: int) -> _Page:
        """Shared only with those who asked since the last news of the scope: an earlier read may not have seen what it told of."""
        key = scope, after, self._broadcaster.moment(scope)
        return await self._reads.get(key, lambda: self._storage.read(partial(_page_of, scope=scope, after=after), scope.tenant))


class _Place:
    """How far a follower is."""

    def __init__(self, scope: Scope, after: int) -> None:
        self.scope = scope
        self.after = after
        self.ended = False
        self._by_sequence = isinstance(scope, RunScope)

    def end_of(self, batch: Batch) -> int:
        return batch.last if self._by_sequence else batch.position

    def advance(self, batches: list[Batch]) -> Delivery | None:
        """What of batches is new."""
        fresh = tuple(batch for batch in batches if self.end_of(batch) > self.after)
        if not fresh:
            return None
        delivery = Delivery(fresh, self.after)
        self.after = self.end_of(fresh[-1])
        return delivery

    def misses(self, batches: list[Batch]) -> bool:
        """Whether something lies between what was delivered and these batches. Positions have gaps, so only sequences can tell."""
        return self._by_sequence and bool(batches) and batches[0].first > self.after + 1


async def _live(subscription: Subscription, place: _Place) -> AsyncGenerator[Delivery, None]:
    """Delivers until the follower lags, is closed or is at the end."""
    while not subscription.lagging and not subscription.closed:
        batches = await subscription.take()
        if place.misses(batches):
            subscription.lag()
            return
        delivery = place.advance(batches)
        if delivery is not None:
            yield delivery
        if subscription.ends_at is not None and place.after >= subscription.ends_at:
            place.ended = True
            return


def _page_of(tables: Tables, scope: Scope, after: int) -> _Page:
    if isinstance(scope, RunScope):
        return _run_page(tables, scope, after)
    return _position_page(tables, scope, after)


def _run_page(tables: Tables, scope: RunScope, after: int) -> _Page:
    standing = tables.runs.standing(scope.tenant, scope.run_id)
    if standing is None:
        raise run_not_found(scope.run_id)
    batches = tables.batches.of_run(standing.key, after, PAGE, PAGE_BYTES) if after < standing.sequence else []
    return _Page(batches, standing.sequence, standing.state.ended)


def _position_page(tables: Tables, scope: Scope, after: int) -> _Page:
    last = last_position(tables.batches.last_number())
    if isinstance(scope, SessionScope):
        session = tables.sessions.find(scope.tenant, scope.session_id)
        if session is None:
            raise session_not_found(scope.session_id)
        batches = [] if after == FROM_NOW else tables.batches.of_session(session.key, number_of(after), PAGE, PAGE_BYTES)
    else:
        batches = [] if after == FROM_NOW else tables.batches.of_tenant(scope.tenant, number_of(after), PAGE, PAGE_BYTES)
    return _Page(batches, last)


def _beyond(after: int, last: int) -> SequenceOutOfRange:
    return SequenceOutOfRange(
        f"after is {after}, but the log ends at {last}; follow from a sequence or position that was delivered",
        metadata={"after": str(after), "last": str(last)},
    )
