"""The connections of a mux channel: at least one to each replica behind the target, kept and replaced while the channel is open."""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import grpc.aio
import structlog

from behest.mux.v1.mux_service_pb2_grpc import MuxServiceStub
from chassis.faults import DeadlineExceeded, ServiceUnavailable
from chassis.rpc.addresses import Seat, digest, read_target
from chassis.rpc.call import Call
from chassis.rpc.link import Link

CONNECT_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # between attempts to reach a replica that cannot be reached
SETTLED_SECONDS = 2.0  # a connection that lasted so long was a good one
LOOKUP_SECONDS = 5.0  # between look-ups of a name: so long a new replica waits for its first call

Dial = Callable[[str], grpc.aio.Channel]


@dataclass(slots=True, eq=False)
class Replica:
    """One address and the connections to it."""

    seat: Seat
    links: list[Link] = field(default_factory=list)
    connecting: asyncio.Task[Link | str] | None = None
    pause: float = FIRST_PAUSE
    retry_at: float = 0.0
    since: float = 0.0  # when it was reached

    def reached(self, link: Link, now: float) -> None:
        """Takes a new connection in."""
        self.links.append(link)
        self.since = now

    def missed(self, now: float) -> None:
        """Notes that it could not be reached, or was lost: the next attempt waits, longer each time."""
        if self.since and now - self.since > SETTLED_SECONDS:
            self.pause = FIRST_PAUSE
        self.since = 0.0
        self.retry_at = now + random.uniform(self.pause / 2, self.pause)  # noqa: S311 — spreads attempts, protects nothing
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way with it."""
        return not self.links and (self.connecting is None or self.connecting.done())


_open_calls = attrgetter("open_calls")


class Links:
    """Connections to the replicas behind a target. Connects when it is first asked, and from then on by itself."""

    def __init__(self, target: str, dial: Dial, streams: int) -> None:
        self.target = target
        self._read = read_target(target)
        self._dial = dial
        self._streams = streams
        self._replicas: dict[str, Replica] = {}
        self._ready: list[Replica] = []  # those with connections
        self._links: list[Link] = []  # all connections that take calls
        self._turn = 0
        self._looked_up = -LOOKUP_SECONDS
        self._round: asyncio.Task[Link | str] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._change = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def pick(self, key: str = "") -> Link | None:
        """The least busy connection, in turn, or for a key one to the replica it belongs to; None when there is none."""
        links = self._links
        if key and len(self._ready) > 1:
            number = digest(key)
            links = max(self._ready, key=lambda replica: replica.seat.bid(number)).links
        if len(links) < 2:
            return links[0] if links else None
        self._turn = (self._turn + 1) % len(links)
        return min(links[self._turn :] + links[: self._turn], key=_open_calls)

    async def connect(self, call: Call, key: str = "") -> Link:
        """A connection, the first that is made; raises ServiceUnavailable when no replica can be reached."""
        if self._closed:
            raise ServiceUnavailable(f"the channel to {self.target} is closed; open another")
        if self._round is None or self._round.done():
            self._round = self.spawn(self._reach_any())
        connecting = self._round
        try:
            async with asyncio.timeout(call.remaining()):
                link = await asyncio.shield(connecting)
        except TimeoutError:
            raise DeadlineExceeded(f"no connection to {self.target} before the deadline of {call.method}; allow more time") from None
        except asyncio.CancelledError:
            if connecting.cancelled():
                raise ServiceUnavailable(f"the channel to {self.target} was closed; open another") from None
            raise
        if isinstance(link, str):
            raise ServiceUnavailable(link, metadata={"target": self.target})
        return self.pick(key) or link

    async def _reach_any(self) -> Link | str:
        """The first connection made, or why there is none."""
        why = await self._look_up()
        attempts = {self._attempt(replica) for replica in self._replicas.values()}
        if self._keeping is None:
            self._keeping = self.spawn(self._keep())
        while attempts:
            done, attempts = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
            for outcome in (task.result() for task in done):
                if isinstance(outcome, Link):
                    return outcome
                why = outcome
        return why

    async def _look_up(self) -> str:
        """Learns the replicas, keeping those known when the name cannot be looked up; says why it could not."""
        self._looked_up = time.monotonic()
        try:
            addresses = await self._read.addresses()
        except OSError as error:
            return f"{self.target} cannot be looked up: {error.strerror or error}; is the name right?"
        for address in addresses:
            if address not in self._replicas:
                self._replicas[address] = Replica(Seat(address))
        for address in [each for each, replica in self._replicas.items() if each not in addresses and replica.idle]:
            del self._replicas[address]
        return f"{self.target} names no address"

    async def _keep(self) -> None:
        """Connects to replicas that lack connections, and learns of new ones."""
        while True:
            now = time.monotonic()
            if self._read.host and now - self._looked_up >= LOOKUP_SECONDS:
                await self._look_up()
            wanted = -(-self._streams // max(1, len(self._replicas)))
            lacking = [replica for replica in self._replicas.values() if len(replica.links) < wanted]
            for replica in lacking:
                if now >= replica.retry_at:
                    self._attempt(replica)
            await self._wait_for_change(lacking, now)

    async def _wait_for_change(self, lacking: list[Replica], now: float) -> None:
        waits = [replica.retry_at - now for replica in lacking if replica.retry_at > now]
        if self._read.host:
            waits.append(self._looked_up + LOOKUP_SECONDS - now)
        self._change.clear()
        try:
            async with asyncio.timeout(max(0.01, min(waits)) if waits else None):
                await self._change.wait()
        except TimeoutError:
            pass

    def _attempt(self, replica: Replica) -> asyncio.Task[Link | str]:
        """The attempt to reach a replica that is under way, or a new one."""
        if replica.connecting is None or replica.connecting.done():
            replica.connecting = self.spawn(self._reach(replica))
        return replica.connecting

    async def _reach(self, replica: Replica) -> Link | str:
        channel = self._dial(replica.seat.address)
        try:
            exchange: Any = MuxServiceStub(channel).Exchange()  # type: ignore[call-arg] # no iterator: it is written to
            async with asyncio.timeout(CONNECT_SECONDS):
                await exchange.wait_for_connection()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else f"no connection within {CONNECT_SECONDS:g} s"
            self._lost(replica)
            await channel.close(None)
            return f"{self.target} cannot be reached: {why}; is it running there?"
        except asyncio.CancelledError:
            await channel.close(None)
            raise
        link = Link(exchange, self.target, lambda link: self._retire(replica, link))
        replica.reached(link, time.monotonic())
        self._sort()
        self.spawn(self._run(replica, link, channel))
        return link

    async def _run(self, replica: Replica, link: Link, channel: grpc.aio.Channel) -> None:
        try:
            await link.run()
        finally:
            self._retire(replica, link)
            await channel.close(None)

    def _retire(self, replica: Replica, link: Link) -> None:
        """Sends nothing new on it."""
        if link in replica.links:
            replica.links.remove(link)
            self._lost(replica)
            self._sort()
            if not self._closed:
                structlog.get_logger().debug("connection gone", target=self.target, address=replica.seat.address)

    def _lost(self, replica: Replica) -> None:
        replica.missed(time.monotonic())
        self._change.set()

    def _sort(self) -> None:
        self._ready = [replica for replica in self._replicas.values() if replica.links]
        self._links = [link for replica in self._ready for link in replica.links]
        self._change.set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs work until it ends or the channel is closed, outside of the call under way."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancels what is under way and closes the connections."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
