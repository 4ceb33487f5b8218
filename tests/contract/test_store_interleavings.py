"""Whatever runs are opened, cancelled, ended and orphaned on two replicas, and in whatever order: one active run a session, order kept,
limits held, counts right, nobody stuck. Each example is a list of deeds; what must hold is looked at after each, over the public calls."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from behest.run.v1 import run_pb2
from behest.session.v1 import session_service_pb2 as session_pb
from chassis import faults
from kit.store import (
    BACKENDS,
    CountingIds,
    Driver,
    ManualClock,
    Store,
    as_tenant,
    cancelling,
    ending,
    open_store,
    open_store_on,
    opening,
    read_log,
    settle,
    ticks,
)
from session_store.domain.run import Run, RunQuery, RunState
from session_store.domain.schedule import Load, RunLimits, TenantLimits
from session_store.domain.session import Tenant
from session_store.operations.ports import Tables

TENANTS = ("a", "b")
LIMITS = RunLimits(running=3, each=TenantLimits(running=2, waiting=6), tenants={Tenant("b"): TenantLimits(running=1, waiting=4)})
EXAMPLES = {"memory": 60, "sqlite": 15, "postgres": 6}
REFUSALS = (faults.SessionBusy, faults.RunsExhausted)
LOST = (faults.LeaseLost, faults.RunEnded, faults.SequenceConflict)
MOST_ROUNDS = 300

tenants = st.sampled_from(TENANTS)
replicas = st.integers(0, 1)
opening_a_run = st.tuples(
    st.just("open"), tenants, st.integers(0, 1), st.sampled_from((2, 1, 2, 3, 4, 2)), st.integers(0, 3), replicas, st.booleans()
)
deeds = st.one_of(
    *[opening_a_run] * 8,
    *[st.tuples(st.just("end"), st.integers(0, 9))] * 2,
    st.tuples(st.just("wait")),
    st.tuples(st.just("cancel"), st.integers(0, 30), replicas),
    st.tuples(st.just("room"), replicas, st.integers(0, 3)),
    st.one_of(st.tuples(st.just("die"), replicas), st.tuples(st.just("delete"), tenants, st.integers(0, 1))),
)


@dataclass
class Opened:
    """A run as its caller remembers it."""

    id: str
    tenant: str
    session_id: str
    cancelled: bool = False


@dataclass
class Scene:
    """Two replicas, a driver at each, and what was done."""

    stores: tuple[Store, Store]
    runs: list[Opened] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)
    hearing: list[asyncio.Task[None]] = field(default_factory=list)
    held: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)  # tenant, run: driver, epoch
    ended: list[tuple[str, str]] = field(default_factory=list)
    names: CountingIds = field(default_factory=lambda: CountingIds("n"))

    def attach(self, at: int) -> None:
        driver = Driver(self.stores[at], f"driver-{self.names.new()}")
        driver.say(room=2)
        self.drivers[at : at + 1] = [driver]
        self.hearing[at : at + 1] = [asyncio.create_task(self._hear(driver))]

    async def _hear(self, driver: Driver) -> None:
        with contextlib.suppress(StopAsyncIteration, faults.Fault, asyncio.CancelledError):
            while True:
                response = await anext(driver._responses)
                self.held |= {(given.tenant, given.run_id): (driver.id, given.epoch) for given in response.assignments}

    async def open(self, tenant: str, session: int, on_busy: int, priority: int, at: int, drives: bool) -> None:
        name, driver_id = self.names.new(), self.drivers[at].id if drives else ""
        fork = f"fork-{name}" if on_busy == run_pb2.BUSY_POLICY_FORK else ""
        request = opening(name, f"s{session}", tenant, on_busy=on_busy, fork_session_id=fork, driver_id=driver_id)
        request.run.priority = priority  # type: ignore[assignment]
        with as_tenant(tenant), contextlib.suppress(*REFUSALS):
            opened = await self.stores[at].journal.OpenRun(request)
            self.runs.append(Opened(name, tenant, opened.run.session_id))
            if opened.epoch:
                self.held[tenant, name] = (driver_id, opened.epoch)

    async def end(self, number: int) -> None:
        if not self.held:
            return
        (tenant, run_id), (driver_id, epoch) = sorted(self.held.items())[number % len(self.held)]
        with as_tenant(tenant), contextlib.suppress(*LOST, faults.RunNotFound):
            log = await read_log(self.stores[0], run_id)
            request = ending(run_id, driver_id, len(log), epoch=epoch, session_id=log[0].session_id, tenant=tenant)
            await self.stores[number % 2].journal.Append(request)
            self.ended.append((tenant, run_id))
        self.held.pop((tenant, run_id), None)

    async def cancel(self, number: int, at: int) -> None:
        if self.runs:
            run = self.runs[number % len(self.runs)]
            with as_tenant(run.tenant), contextlib.suppress(faults.RunEnded, faults.RunNotFound):
                await self.stores[at].journal.RecordCommand(cancelling(run.id))
                run.cancelled = True

    async def room(self, at: int, room: int) -> None:
        self.drivers[at].say(room=room)

    async def die(self, at: int) -> None:
        """The driver falls silent until its lease is over; the other one goes on."""
        self.drivers[at].cut()
        await asyncio.wait([self.hearing[at]])
        for _ in range(4):
            self.drivers[1 - at].say(room=1)
            await self.wait(1.0)
        self.attach(at)

    async def delete(self, tenant: str, session: int) -> None:
        request = session_pb.DeleteSessionRequest(session_id=f"s{session}")
        with as_tenant(tenant), contextlib.suppress(faults.SessionBusy, faults.SessionNotFound):
            await self.stores[0].sessions.DeleteSession(request)
            self.runs = [run for run in self.runs if (run.tenant, run.session_id) != (tenant, f"s{session}")]

    async def wait(self, seconds: float = 0.25) -> None:
        await ticks(self.stores[0], 1, seconds)
        await settle(self.stores[1])

    async def unended(self) -> list[Run]:
        rows, _ = await self._survey()
        return [run for of_tenant in rows.values() for run in of_tenant if not run.state.ended]

    async def look(self) -> None:
        """What must hold at any moment."""
        rows, loads = await self._survey()
        running = {tenant: [run for run in rows[tenant] if run.state is RunState.RUNNING] for tenant in TENANTS}
        running_of_all = sum(map(len, running.values()))
        assert running_of_all <= LIMITS.running
        for tenant in TENANTS:
            most, waiting = LIMITS.of(Tenant(tenant)), sum(run.state is RunState.QUEUED for run in rows[tenant])
            assert len(running[tenant]) <= most.running and waiting <= most.waiting
            assert len({run.session_id for run in running[tenant]}) == len(running[tenant]), "two runs of one session run at once"
            assert {run.id for run in rows[tenant]} == {run.id for run in self.runs if run.tenant == tenant}
            counted = loads[tenant]
            assert (counted.running, counted.waiting, counted.running_of_all) == (len(running[tenant]), waiting, running_of_all)

    async def _survey(self) -> tuple[dict[str, list[Run]], dict[str, Load]]:
        """The runs of all tenants and what the store counts, at one moment."""
        anything = RunQuery()

        def work(tables: Tables) -> tuple[dict[str, list[Run]], dict[str, Load]]:
            rows = {tenant: tables.runs.page(Tenant(tenant), anything, None, 1000) for tenant in TENANTS}
            return rows, {tenant: tables.runs.load(Tenant(tenant)) for tenant in TENANTS}

        return await self.stores[1].storage.read(work)

    async def carry_out(self) -> None:
        """Everything that was accepted comes to its end, whatever was done before."""
        for _ in range(MOST_ROUNDS):
            if not await self.unended():
                return
            for driver in self.drivers:
                driver.say(room=5)
            await self.wait()
            while self.held:
                await self.end(0)
            await self.look()
        raise AssertionError(f"stuck: {await self.unended()}")

    async def judge(self) -> None:
        """What must hold at the end."""
        for run in self.runs:
            with as_tenant(run.tenant):
                kinds = [event.WhichOneof("kind") for event in await read_log(self.stores[1], run.id)]
                session = await self.stores[0].sessions.GetSession(session_pb.GetSessionRequest(session_id=run.session_id))
            assert kinds[0] == "run_created" and kinds[-1] == "run_completed"
            assert set(kinds[1:-1]) <= {"cancel_requested"}
            assert not session.session.active_run_id
        created = {(run.tenant, run.id): place for place, run in enumerate(self.runs)}
        for tenant, session_id in {(run.tenant, run.session_id) for run in self.runs}:
            waited = {run.id for run in self.runs if (run.tenant, run.session_id) == (tenant, session_id) and not run.cancelled}
            order = [created[name] for name in self.ended if name in created and name[0] == tenant and name[1] in waited]
            assert order == sorted(order), "runs of one session did not end in the order of their creation"


@contextlib.asynccontextmanager
async def open_scene(backend: str, folder: Path) -> AsyncIterator[Scene]:
    """Two stores on one storage; where it can be opened twice, as two processes do it."""
    clock = ManualClock()
    async with contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(open_store(backend, folder, clock, CountingIds("x"), LIMITS))
        if backend == "memory":
            again = open_store_on(here.storage, clock, CountingIds("y"), LIMITS)
        else:
            again = open_store(backend, folder, clock, CountingIds("y"), LIMITS)
        scene = Scene((here, await stack.enter_async_context(again)))
        scene.attach(0)
        scene.attach(1)
        await settle(here)
        try:
            yield scene
        finally:
            for driver in scene.drivers:
                driver.cut()
            await asyncio.wait(scene.hearing)


async def play(backend: str, story: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_scene(backend, Path(folder)) as scene:
            for name, *values in story:
                await getattr(scene, str(name))(*values)
                await scene.look()
            await scene.carry_out()
            await scene.judge()


@pytest.mark.feature("R6")
@pytest.mark.feature("R22")
@pytest.mark.feature("S6")
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_any_interleaving_on_two_replicas_keeps_sessions_limits_and_order(backend: str) -> None:
    @settings(max_examples=EXAMPLES[backend], deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(deeds, min_size=30, max_size=60))
    def stories(story: list[tuple[object, ...]]) -> None:
        asyncio.run(play(backend, story))

    stories()
