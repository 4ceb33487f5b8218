"""Telling followers in this process what was committed. A hint and nothing more: whoever misses it reads the log.

What this process committed comes with its events and is handed on. Of what other processes committed only hints come, if anything:
those who follow the run, session or tenant read the log, and nobody else does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from session_store.domain.batch import Announcement, Batch
from session_store.domain.session import RunId, SessionId, Tenant
from session_store.operations.ports import Hint

BUFFER = 256  # batches that a follower may lag behind before it reads the log instead
BUFFER_BYTES = 1 << 20
WOKEN_AT_ONCE = 8  # followers woken in one turn of the event loop
AHEAD = 4096  # batches known of while one before them is not; then it is taken for missed


@dataclass(frozen=True, slots=True)
class RunScope:
    """One run."""

    tenant: Tenant
    run_id: RunId


@dataclass(frozen=True, slots=True)
class SessionScope:
    """All runs of a session."""

    tenant: Tenant
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class TenantScope:
    """All runs of a tenant."""

    tenant: Tenant


Scope = RunScope | SessionScope | TenantScope


@dataclass(slots=True, eq=False)
class Subscription:
    """What a follower has not taken yet. Bounded: on overflow it forgets all and is `lagging`."""

    lagging: bool = False
    closed: bool = False
    ends_at: int | None = None  # the last sequence of a followed run, once it has ended
    called: bool = False  # it is about to be woken
    _caller: _Caller = field(default_factory=lambda: _Caller())
    _waiting: deque[Batch] = field(default_factory=deque)
    _bytes: int = 0
    _something: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, batch: Batch) -> None:
        """Adds a batch, or lags."""
        if self.lagging:
            return
        self._bytes += len(batch.data)
        if len(self._waiting) >= BUFFER or (self._bytes > BUFFER_BYTES and self._waiting):
            self.lag()
            return
        self._waiting.append(batch)
        self._caller.call(self)

    def lag(self) -> None:
        """Forgets everything: the follower must read the log."""
        self.lagging = True
        self._waiting.clear()
        self._bytes = 0
        self._something.set()  # all at once: those who read together share what they read

    def wake(self) -> None:
        """Lets the follower look at what there is."""
        self.called = False
        self._something.set()

    def close(self) -> None:
        """Wakes the follower to leave."""
        self.closed = True
        self._something.set()

    def catch_up(self) -> None:
        """Says that the log is being read from now on; what comes meanwhile is kept."""
        self.lagging = False

    async def take(self) -> list[Batch]:
        """Everything that waits, at least one batch unless the subscription lags or is closed."""
        while not (self._waiting or self.lagging or self.closed):
            self._something.clear()
            await self._something.wait()
        taken = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return taken


class _Caller:
    """Wakes followers a few at a time, in turns of the event loop, so that a crowd of them does not hold up those who write."""

    def __init__(self) -> None:
        self._called: deque[Subscription] = deque()

    def call(self, subscription: Subscription) -> None:
        """Wakes a follower soon; what comes until then, it finds with the rest."""
        if not subscription.called:
            subscription.called = True
            self._called.append(subscription)
            if len(self._called) == 1:
                asyncio.get_running_loop().call_soon(self._wake_some)

    def _wake_some(self) -> None:
        woken = [self._called[place] for place in range(min(WOKEN_AT_ONCE, len(self._called)))]
        for subscription in woken:
            subscription.wake()
            self._called.popleft()
        if self._called:
            asyncio.get_running_loop().call_soon(self._wake_some)


class Numbers:
    """Which batches this process knows of, in whatever order it hears of them, and up to which it knows of all."""

    def __init__(self) -> None:
        self.last = 0  # all up to it are known
        self._ahead: dict[int, Announcement | None] = {}

    def known(self, number: int) -> bool:
        """Whether a batch was heard of."""
        return number <= self.last or number in self._ahead

    @property
    def crowded(self) -> bool:
        """Whether too much waits for a batch that is not known."""
        return len(self._ahead) > AHEAD

    @property
    def newest(self) -> int:
        """The greatest number known."""
        return max(self._ahead, default=self.last)

    def add(self, number: int, announcement: Announcement | None) -> list[Announcement]:
        """Notes a batch; returns the announcements whose turn has come, in order."""
        if number > self.last:
            self._ahead[number] = announcement
        return self._release()

    def skip_to(self, number: int) -> list[Announcement]:
        """Takes all up to a number for known; returns the announcements whose turn has come, in order."""
        self.last = max(self.last, number)
        passed = sorted(each for each in self._ahead if each <= number)
        announcements = [self._ahead.pop(each) for each in passed]
        return [each for each in announcements if each is not None] + self._release()

    def _release(self) -> list[Announcement]:
        released = []
        while self.last + 1 in self._ahead:
            self.last += 1
            announcement = self._ahead.pop(self.last)
            if announcement is not None:
                released.append(announcement)
        return released


class _Room:
    """Those who follow a scope. `moment` changes whenever there may be something new to read."""

    __slots__ = ("_moments", "members", "moment")

    def __init__(self, moments: Iterator[int]) -> None:
        self.members: dict[Subscription, None] = {}
        self._moments = moments
        self.moment = next(moments)

    def offer(self, announcement: Announcement) -> None:
        self.moment = next(self._moments)
        for subscription in self.members:
            subscription.offer(announcement.batch)

    def end(self, sequence: int) -> None:
        for subscription in self.members:
            subscription.ends_at = sequence

    def lag(self) -> None:
        self.moment = next(self._moments)
        for subscription in self.members:
            subscription.lag()


class Broadcaster:
    """Hands committed batches to the subscriptions of their run, session and tenant.

    Those of a run tell by the sequence whether something is missing. Those of a session or tenant cannot, so they get batches in the order
    of their numbers: one that comes before another process's is kept back until that one is heard of. With `hears` false no such hints
    come, and a number left out makes everybody read at once.
    """

    def __init__(self, hears: bool = False) -> None:
        self.hears = hears
        self._rooms: dict[Scope, _Room] = {}
        self._caller = _Caller()
        self._moments = itertools.count(1)
        self._numbers = Numbers()
        self._closed = False
        self.committed = asyncio.Event()  # set whenever there may be a new batch; cleared by whoever waits for it

    @property
    def scopes(self) -> int:
        """How many scopes have subscriptions."""
        return len(self._rooms)

    def start_after(self, number: int) -> None:
        """Tells which batch was the last before this process began."""
        self._numbers.skip_to(number)

    @contextmanager
    def subscribe(self, scope: Scope) -> Iterator[Subscription]:
        """A subscription that begins now."""
        subscription = Subscription(closed=self._closed, _caller=self._caller)
        room = self._rooms.get(scope)
        if room is None:
            room = self._rooms[scope] = _Room(self._moments)
        room.members[subscription] = None
        try:
            yield subscription
        finally:
            del room.members[subscription]
            if not room.members:
                del self._rooms[scope]

    def moment(self, scope: Scope) -> int:
        """Changes whenever a scope that has subscriptions may have something new: what was read at the same moment is the same."""
        return self._rooms[scope].moment

    def publish(self, announcement: Announcement) -> None:
        """Hands out a batch of this process. To be called in the order of commits."""
        self.committed.set()
        number = announcement.batch.number
        if not self.hears and number > self._numbers.last + 1:
            self.lag()
            self._numbers.skip_to(number - 1)
        released = [announcement] if self._numbers.known(number) else self._numbers.add(number, announcement)
        if self._rooms:
            self._to_run(announcement)
            self._to_session_and_tenant(released)
        self._relieve()

    def _relieve(self) -> None:
        """Stops waiting for a batch that so many came after."""
        if self._numbers.crowded:
            self.heard_of(self._numbers.newest)

    def hear(self, hint: Hint) -> bool:
        """Makes those read whom another process's write concerns. False when it was known already, as one of this process is."""
        if hint.number and self._numbers.known(hint.number):
            return False
        self.committed.set()
        for scope in (RunScope(hint.tenant, hint.run_id), SessionScope(hint.tenant, hint.session_id), TenantScope(hint.tenant)):
            self.lag(scope)
        if hint.number:
            self._to_session_and_tenant(self._numbers.add(hint.number, None))
            self._relieve()
        return True

    def heard_of(self, number: int) -> bool:
        """Tells a number that is in the log; if not all up to it are known, which is returned, everybody reads."""
        missed = number > self._numbers.last
        if missed:
            self.committed.set()
            self.lag()
            self._to_session_and_tenant(self._numbers.skip_to(number))
        return missed

    def _to_run(self, announcement: Announcement) -> None:
        room = self._rooms.get(RunScope(announcement.tenant, announcement.batch.run_id))
        if room is not None:
            room.offer(announcement)
            if announcement.ends:
                room.end(announcement.batch.last)

    def _to_session_and_tenant(self, announcements: Iterable[Announcement]) -> None:
        for announcement in announcements:
            tenant = announcement.tenant
            for scope in (SessionScope(tenant, announcement.batch.session_id), TenantScope(tenant)):
                room = self._rooms.get(scope)
                if room is not None:
                    room.offer(announcement)

    def lag(self, scope: Scope | None = None) -> None:
        """Makes a scope's followers read the log, or everybody."""
        rooms = self._rooms.values() if scope is None else [room for room in [self._rooms.get(scope)] if room is not None]
        for room in rooms:
            room.lag()

    def close(self) -> None:
        """Makes every follower leave, now and from now on."""
        self._closed = True
        for room in self._rooms.values():
            for subscription in room.members:
                subscription.close()
