"""Ours: the session store with a crowd that follows one run while its driver writes as fast as a streaming model makes it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from tests.bench.contenders.store import DRIVER, TEXT, StoreContender, open_store
from tests.bench.meters import Meter, resident_bytes
from tests.bench.worker import Sample

from behest.event.v1.event_pb2 import Event, RunCompleted, TextDelta
from behest.run.v1.run_pb2 import RUN_STATE_COMPLETED, Run
from behest.session.v1.journal_service_pb2 import AppendRequest, FollowRequest, RunPatch

PACE = 0.025  # seconds between two appends: how long deltas are gathered


class FollowedStore(StoreContender):
    """One run, its driver, and so many followers."""

    async def measure(self, followers: int, appends: int) -> Sample:
        """Seconds that the driver's run took, CPU for each delivered event, memory; raises when a follower misses or repeats an event."""
        run, epoch = await self._open_run()
        before = resident_bytes(os.getpid())
        crowd = [asyncio.create_task(self._follow(run.id)) for _ in range(followers)]
        await asyncio.sleep(0)
        meter = Meter([os.getpid()])
        wall = await self._drive(run, epoch, appends)
        seen = await asyncio.gather(*crowd)
        spent = meter.spent()
        assert all(sequences == list(range(1, appends + 3)) for sequences in seen), "a follower missed or repeated an event"
        delivered = max(1, followers) * (appends + 2)
        return {"wall": wall, "cpu": spent.cpu / delivered, "memory": float(max(0, resident_bytes(os.getpid()) - before))}

    async def _follow(self, run_id: str) -> list[int]:
        call = self._journal.Follow(FollowRequest(run_id=run_id), timeout=120)
        return [event.sequence async for response in call for event in response.events]

    async def _drive(self, run: Run, epoch: int, appends: int) -> float:
        began = time.perf_counter()
        for sequence in range(1, appends + 1):
            await self._append(run, epoch, sequence, text_delta=TextDelta(turn=1, text=TEXT))
            await asyncio.sleep(PACE)
        await self._append(run, epoch, appends + 1, run_completed=RunCompleted())
        return time.perf_counter() - began

    async def _append(self, run: Run, epoch: int, sequence: int, **kind: TextDelta | RunCompleted) -> None:
        event = Event(run_id=run.id, session_id=run.session_id, tenant="default", sequence=sequence + 1, **kind)  # type: ignore[arg-type]
        event.time.GetCurrentTime()
        request = AppendRequest(run_id=run.id, driver_id=DRIVER, epoch=epoch, expected_sequence=sequence, events=[event])
        if "run_completed" in kind:
            request.patch.CopyFrom(RunPatch(state=RUN_STATE_COMPLETED))
        await self._journal.Append(request)


@contextlib.asynccontextmanager
async def open_followed(folder: str) -> AsyncIterator[StoreContender]:
    """The store on a file."""
    async with open_store(folder, name="followed", contender=FollowedStore) as followed:
        yield followed
