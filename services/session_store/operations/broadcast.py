"""Telling followers in this process what was committed. A hint and nothing more: whoever misses it reads the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from session_store.domain.batch import Announcement, Batch
from session_store.domain.session import RunId, SessionId, Tenant

BUFFER = 256  # batches that a follower may lag behind before it reads the log instead
BUFFER_BYTES = 1 << 20


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
        self._something.set()

    def lag(self) -> None:
        """Forgets everything: the follower must read the log."""
        self.lagging = True
        self._waiting.clear()
        self._bytes = 0
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


class Broadcaster:
    """Hands committed batches to the subscriptions of their run, session and tenant."""

    def __init__(self) -> None:
        self._subscriptions: dict[Scope, dict[Subscription, None]] = {}
        self._last_number = 0
        self._closed = False

    @property
    def scopes(self) -> int:
        """How many scopes have subscriptions."""
        return len(self._subscriptions)

    def start_after(self, number: int) -> None:
        """Tells which batch was the last before this process began."""
        self._last_number = number

    @contextmanager
    def subscribe(self, scope: Scope) -> Iterator[Subscription]:
        """A subscription that begins now."""
        subscription = Subscription(closed=self._closed)
        self._subscriptions.setdefault(scope, {})[subscription] = None
        try:
            yield subscription
        finally:
            members = self._subscriptions[scope]
            del members[subscription]
            if not members:
                del self._subscriptions[scope]

    def publish(self, announcement: Announcement) -> None:
        """Hands out a batch. To be called in the order of commits; a number left out was another process's, so everybody reads."""
        if announcement.batch.number != self._last_number + 1:
            self.lag()
        self._last_number = max(self._last_number, announcement.batch.number)
        if self._subscriptions:
            self._hand_out(announcement)

    def _hand_out(self, announcement: Announcement) -> None:
        tenant, batch = announcement.tenant, announcement.batch
        for subscription in self._subscriptions.get(RunScope(tenant, batch.run_id), ()):
            subscription.offer(batch)
            if announcement.ends:
                subscription.ends_at = batch.last
        for scope in (SessionScope(tenant, batch.session_id), TenantScope(tenant)):
            for subscription in self._subscriptions.get(scope, ()):
                subscription.offer(batch)

    def heard_of(self, number: int) -> bool:
        """Tells the last number in the log; if it was not published here, which is returned, everybody reads."""
        foreign = number > self._last_number
        if foreign:
            self._last_number = number
            self.lag()
        return foreign

    def lag(self, scope: Scope | None = None) -> None:
        """Makes a scope's followers read the log, or everybody."""
        scopes = list(self._subscriptions) if scope is None else [scope]
        for each in scopes:
            for subscription in self._subscriptions.get(each, ()):
                subscription.lag()

    def close(self) -> None:
        """Makes every follower leave, now and from now on."""
        self._closed = True
        for members in self._subscriptions.values():
            for subscription in members:
                subscription.close()
