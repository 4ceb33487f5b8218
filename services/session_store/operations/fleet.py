"""The drivers attached to this process: keeping their leases, handing them runs, noticing when they are gone.

Who drives what is decided in the tables (leasing.py). What is remembered here are hints: who listens, and how much room each has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial

import structlog

from chassis.faults import Fault, ShuttingDown
from chassis.waypoints import waypoint
from chassis.world import World
from session_store.domain.bounds import check_id, refuse
from session_store.domain.run import Assignment, Run
from session_store.domain.schedule import RunLimits
from session_store.domain.session import DriverId, RunId, Tenant
from session_store.operations.attachment import Attachment, Notice
from session_store.operations.broadcast import Broadcaster
from session_store.operations.leasing import SignOfLife, expire, hand_out, leave, register, renew
from session_store.operations.ports import Heard, Hint, Lease, News, Storage, Tables
from session_store.operations.silence import Silence
from session_store.operations.telling import DUE

TICK_SECONDS = 0.25
GRACE_SECONDS = 1.0  # a broken stream's driver has so long to come back before its runs go to others
PURGE_SECONDS = 60.0
PURGE_ROWS = 1000
COMPLAINT_SECONDS = 10.0  # between two log lines about a storage that stays away


class Fleet:
    """Keeps drivers and runs together. `keep` must run beside the calls."""

    def __init__(self, storage: Storage, broadcaster: Broadcaster, world: World, lease_seconds: float, limits: RunLimits) -> None:
        self._storage = storage
        self._broadcaster = broadcaster
        self._world = world
        self._lease_seconds = lease_seconds
        self._limits = limits
        self._attached: dict[DriverId, Attachment] = {}
        self._broken: dict[str, tuple[DriverId, float]] = {}
        self._backlog = True
        self._overdue = False
        self._after = Tenant("")
        self._kicked = asyncio.Event()
        self._closed = False
        self._missed = False
        self._last_number = 0
        self._silence = Silence[Lease](lease_seconds)
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

    @property
    def has_room(self) -> bool:
        """Whether a driver that is attached here can take a run. May be asked from any thread."""
        return any(attachment.free for attachment in tuple(self._attached.values()))

    def hear(self, heard: Heard) -> None:
        """Takes note of what other processes did."""
        for hint in heard.hints:
            if self._broadcaster.hear(hint):
                self._heed_hint(hint)
        if heard.missed:
            self._missed = True
            self._broadcaster.lag()

    def _heed_hint(self, hint: Hint) -> None:
        match hint.news:
            case News.OPENED if hint.epoch:
                self._given(hint.driver_id, Assignment(hint.run_id, hint.tenant, hint.epoch, 1))
            case News.APPENDED | News.ENDED | News.RESTED:
                left = hint.news is not News.APPENDED
                self.heard(hint.driver_id, hint.run_id, left=left)
                if left:
                    self.place_freed()
            case News.COMMANDED:
                self.wake(hint.driver_id, hint.run_id)
            case News.DUE if self.has_room:
                self.kick()

    def given(self, run: Run) -> None:
        """Notes that a run was opened for its driver: if the driver does not write to it, it is told."""
        self._given(run.driver_id, Assignment(run.id, run.tenant, run.epoch, run.sequence))

    def _given(self, driver_id: DriverId, assignment: Assignment) -> None:
        attachment = self._attached.get(driver_id)
        if attachment is not None:
            attachment.given(assignment, self._world.clock.monotonic())

    def heard(self, driver_id: DriverId, run_id: RunId, left: bool) -> None:
        """Notes that a driver wrote to a run, and whether it does not have it any more."""
        attachment = self._attached.get(driver_id)
        if attachment is not None:
            attachment.answered(run_id, left)

    def wake(self, driver_id: DriverId, run_id: RunId) -> None:
        """Tells a driver of a command. One that is attached to another process is told when that hears of it, or next looks at the log."""
        attachment = self._attached.get(driver_id)
        if attachment is not None:
            attachment.wake(run_id)

    def kick(self, overdue: bool = False) -> None:
        """Says that there are runs to hand out, overdue ones if so said: those need no room."""
        self._overdue = self._overdue or overdue
        self._kicked.set()

    def place_freed(self) -> None:
        """Says that a place is free, which a waiting run may get."""
        if self._backlog:
            self.kick()

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
        lease = self._lease(attachment)
        held = await self._storage.write(lambda tables: register(tables, lease))
        waypoint("store.lease.attached")
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
        lease = self._lease(attachment)
        await self._take(lambda tables: renew(tables, lease, sign.released))
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
        await self._take(lambda tables: leave(tables, attachment.driver_id))

    async def _take(self, work: Callable[[Tables], list[RunId]]) -> None:
        """Takes runs from drivers, and sees to it that they are handed out, here or by whoever has room."""
        taken = await self._storage.write(work, tell=lambda taken: (DUE,) if taken and not self.has_room else ())
        if taken:
            waypoint("store.lease.taken")
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
        room = {driver_id: attachment.free for driver_id, attachment in self._attached.items() if attachment.listens}
        if not any(room.values()) and not (room and self._overdue):
            self._backlog = True
            return
        now, after, self._overdue = self._world.clock.now(), self._after, False
        handed = await self._storage.write(lambda tables: hand_out(tables, room, now, self._limits, after))
        self._backlog, self._after = handed.more, handed.after
        if handed.again:
            self.kick(overdue=True)
        if handed.by_driver:
            waypoint("store.lease.handed")
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
        number, leases, missing, due, overdue = await self._storage.read(lambda tables: _survey(tables, now))
        silent = self._silence.look({lease.driver_id: lease for lease in leases}, now, moment)
        # The number of the tick before: what was published or heard of since was not missed. After a gap there is nothing to wait for.
        if self._broadcaster.heard_of(number if self._missed else self._last_number):
            await self._remind_all()
        self._missed, self._last_number = False, number
        if silent or missing:
            await self._take(lambda tables: expire(tables, silent))
        await self._give_up_broken(moment - GRACE_SECONDS)
        for attachment in list(self._attached.values()):
            attachment.push_again(moment - GRACE_SECONDS, moment)
        if due or overdue:
            self.kick(overdue)
        await self._purge(now, moment)

    async def _remind_all(self) -> None:
        """Another process wrote, and what is not known: any run driven from here may have a command, or be unknown to its driver."""
        for attachment in list(self._attached.values()):
            attachment.remind(await self._storage.read(partial(_held, driver_id=attachment.driver_id)))

    async def _give_up_broken(self, before: float) -> None:
        for stream_id, (driver_id, since) in list(self._broken.items()):
            if since <= before:
                await self._take(partial(leave, driver_id=driver_id, stream_id=stream_id))
                del self._broken[stream_id]

    async def _purge(self, now: float, moment: float) -> None:
        if moment - self._purged_at >= PURGE_SECONDS:
            self._purged_at = moment
            while await self._storage.write(lambda tables: tables.requests.purge(now, PURGE_ROWS)) == PURGE_ROWS:
                pass


def _survey(tables: Tables, now: float) -> tuple[int, list[Lease], bool, bool, bool]:
    """The last batch, all leases, whether a run's driver has none, whether a run lacks a driver, whether one is to be ended or woken."""
    due, overdue = tables.runs.is_due(), bool(tables.runs.overdue(now, 1) or tables.runs.rested(now, 1))
    return tables.batches.last_number(), tables.leases.all(), bool(tables.leases.missing()), due, overdue


def _held(tables: Tables, driver_id: DriverId) -> list[Assignment]:
    return tables.runs.held_by(driver_id)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the session store is shutting down; attach to another replica or again soon", retry_after=0.5)
