"""The drivers attached to this process: keeping their leases, handing them runs, noticing when they are gone.

Who drives what is decided in the tables (leasing.py). What is remembered here are hints: who listens, and how much room each has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable
from functools import partial

import structlog

from chassis.faults import Fault, ShuttingDown
from chassis.world import World
from session_store.domain.bounds import check_id, refuse
from session_store.domain.run import Assignment, Run
from session_store.domain.session import DriverId, RunId
from session_store.operations.attachment import Attachment, Notice
from session_store.operations.broadcast import Broadcaster
from session_store.operations.leasing import SignOfLife, expire, hand_out, leave, register, renew
from session_store.operations.ports import Lease, Storage, Tables

TICK_SECONDS = 0.25
GRACE_SECONDS = 1.0  # a broken stream's driver has so long to come back before its runs go to others
PURGE_SECONDS = 60.0
PURGE_ROWS = 1000
COMPLAINT_SECONDS = 10.0  # between two log lines about a storage that stays away


class Fleet:
    """Keeps drivers and runs together. `keep` must run beside the calls."""

    def __init__(self, storage: Storage, broadcaster: Broadcaster, world: World, lease_seconds: float) -> None:
        self._storage = storage
        self._broadcaster = broadcaster
        self._world = world
        self._lease_seconds = lease_seconds
        self._attached: dict[DriverId, Attachment] = {}
        self._broken: dict[str, tuple[DriverId, float]] = {}
        self._backlog = True
        self._kicked = asyncio.Event()
        self._closed = False
        self._last_number = 0
        self._purged_at = world.clock.monotonic()
        self._complained_at = self._purged_at - COMPLAINT_SECONDS

    async def drive(self, signs: AsyncIterator[SignOfLife]) -> AsyncGenerator[Notice, None]:
        """Notices for a driver, for as long as it gives signs of life."""
        first = await anext(signs, None)
        if first is None:
            return
        attachment, held = await self._attach(first)
        if first.leaving:
            await self._leave(attachment)
            return
        reader = asyncio.create_task(self._read(attachment, signs))
        try:
            yield Notice(tuple(held), lease_ms=round(self._lease_seconds * 1000))
            async for notice in attachment.notices():
                yield notice
        finally:
            self._detach(attachment)
            reader.cancel()
            await asyncio.wait([reader])

    def given(self, run: Run) -> None:
        """Notes that a run was opened for its driver: if the driver does not write to it, it is told."""
        attachment = self._attached.get(run.driver_id)
        if attachment is not None:
            attachment.given(Assignment(run.id, run.tenant, run.epoch, run.sequence), self._world.clock.monotonic())

    def heard(self, driver_id: DriverId, run_id: RunId, ended: bool) -> None:
        """Notes that a driver wrote to a run."""
        attachment = self._attached.get(driver_id)
        if attachment is not None:
            attachment.answered(run_id, ended)

    def wake(self, driver_id: DriverId, run_id: RunId) -> None:
        """Tells a driver of a command. One that is attached to another process is told when that process next looks at the log."""
        attachment = self._attached.get(driver_id)
        if attachment is not None:
            attachment.wake(run_id)

    def kick(self) -> None:
        """Says that there are runs to hand out."""
        self._kicked.set()

    def close(self) -> None:
        """Sends all drivers away, now and from now on; their leases go on for those who come back in time."""
        self._closed = True
        for attachment in self._attached.values():
            attachment.close(_shutting_down())

    async def keep(self) -> None:
        """Hands out runs, expires leases and purges, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_ticking())
            tasks.create_task(self._keep_handing_out())

    async def _attach(self, sign: SignOfLife) -> tuple[Attachment, list[Assignment]]:
        check_id("driver_id", sign.driver_id)
        if self._closed:
            raise _shutting_down()
        attachment = Attachment(sign.driver_id, self._world.ids.new())
        lease, now = self._lease(attachment), self._world.clock.now()
        held = await self._storage.write(lambda tables: register(tables, lease, now))
        earlier = self._attached.get(sign.driver_id)
        if earlier is not None:
            earlier.close()
        self._attached[sign.driver_id] = attachment
        for assignment in held:
            attachment.given(assignment, self._world.clock.monotonic())
        await self._heed(attachment, sign)
        if self._closed:
            attachment.close(_shutting_down())
        return attachment, [assignment for assignment in held if assignment.run_id not in sign.released]

    async def _read(self, attachment: Attachment, signs: AsyncIterator[SignOfLife]) -> None:
        try:
            async for sign in signs:
                if sign.driver_id != attachment.driver_id:
                    raise refuse("driver_id", f"changed from {attachment.driver_id!r} to {sign.driver_id!r}; open a stream per driver")
                if sign.leaving:
                    await self._leave(attachment)
                    break
                await self._renew(attachment, sign)
        except Exception as error:  # noqa: BLE001 — told to the driver by its stream
            attachment.close(error)
        attachment.close()

    async def _renew(self, attachment: Attachment, sign: SignOfLife) -> None:
        lease, now = self._lease(attachment), self._world.clock.now()
        taken = await self._storage.write(lambda tables: renew(tables, lease, now, sign.released))
        self._take_back(taken)
        attachment.has_room(sign.room)
        if self._backlog and attachment.free:
            self.kick()

    async def _heed(self, attachment: Attachment, sign: SignOfLife) -> None:
        if sign.released:
            await self._renew(attachment, sign)
        attachment.has_room(sign.room)
        self.kick()

    async def _leave(self, attachment: Attachment) -> None:
        self._attached.pop(attachment.driver_id, None)
        self._take_back(await self._storage.write(lambda tables: leave(tables, attachment.driver_id)))

    def _take_back(self, run_ids: Iterable[RunId]) -> None:
        taken = list(run_ids)
        for attachment in self._attached.values():
            attachment.lost(taken)
        if taken:
            self.kick()

    def _detach(self, attachment: Attachment) -> None:
        attachment.close()
        if self._attached.get(attachment.driver_id) is attachment:
            del self._attached[attachment.driver_id]
            self._broken[attachment.stream_id] = (attachment.driver_id, self._world.clock.monotonic())

    def _lease(self, attachment: Attachment) -> Lease:
        return Lease(attachment.driver_id, attachment.stream_id, self._world.clock.now() + self._lease_seconds)

    async def _keep_handing_out(self) -> None:
        while True:
            await self._kicked.wait()
            self._kicked.clear()
            await self._tolerant(self._hand_out())

    async def _tolerant(self, step: Awaitable[None]) -> None:
        """Goes on after a fault: the storage may come back."""
        try:
            await step
        except Fault as fault:
            self._complain(fault)
        except Exception:  # noqa: BLE001 — a defect in one round must not end the rounds: runs would wait for ever
            structlog.get_logger().exception("keeping leases failed; trying again")

    def _complain(self, fault: Fault) -> None:
        moment = self._world.clock.monotonic()
        if moment - self._complained_at >= COMPLAINT_SECONDS:
            self._complained_at = moment
            structlog.get_logger().warning("keeping leases failed; trying again", reason=fault.reason, problem=fault.message)

    async def _hand_out(self) -> None:
        room = {driver_id: attachment.free for driver_id, attachment in self._attached.items() if attachment.free}
        if not room:
            self._backlog = True
            return
        now = self._world.clock.now()
        handed = await self._storage.write(lambda tables: hand_out(tables, room, now))
        self._backlog = handed.more
        for driver_id, assignments in handed.by_driver.items():
            attachment = self._attached.get(driver_id)
            if attachment is not None:
                attachment.push(assignments, self._world.clock.monotonic())

    async def _keep_ticking(self) -> None:
        while True:
            await self._tolerant(self._tick())
            await self._world.clock.sleep(TICK_SECONDS)

    async def _tick(self) -> None:
        now, moment = self._world.clock.now(), self._world.clock.monotonic()
        number, silent, due = await self._storage.read(lambda tables: _survey(tables, now))
        if self._broadcaster.heard_of(self._last_number):  # the number of the tick before: what was published since was not missed
            await self._wake_all()
        self._last_number = number
        if silent:
            self._take_back(await self._storage.write(lambda tables: expire(tables, now)))
        await self._give_up_broken(moment - GRACE_SECONDS)
        for attachment in list(self._attached.values()):
            attachment.push_again(moment - GRACE_SECONDS, moment)
        if due:
            self.kick()
        await self._purge(now, moment)

    async def _wake_all(self) -> None:
        """Another process wrote: any run driven from here may have a command."""
        for attachment in list(self._attached.values()):
            for held in await self._storage.read(partial(_held, driver_id=attachment.driver_id)):
                attachment.wake(held.run_id)

    async def _give_up_broken(self, before: float) -> None:
        for stream_id, (driver_id, since) in list(self._broken.items()):
            if since <= before:
                self._take_back(await self._storage.write(partial(leave, driver_id=driver_id, stream_id=stream_id)))
                del self._broken[stream_id]

    async def _purge(self, now: float, moment: float) -> None:
        if moment - self._purged_at >= PURGE_SECONDS:
            self._purged_at = moment
            while await self._storage.write(lambda tables: tables.requests.purge(now, PURGE_ROWS)) == PURGE_ROWS:
                pass


def _survey(tables: Tables, now: float) -> tuple[int, bool, bool]:
    """The last batch, whether a lease has ended, whether a run lacks a driver."""
    return tables.batches.last_number(), bool(tables.leases.expired(now)), bool(tables.runs.unassigned(1))


def _held(tables: Tables, driver_id: DriverId) -> list[Assignment]:
    return tables.runs.held_by(driver_id)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the session store is shutting down; attach to another replica or again soon", retry_after=0.5)
