"""Calls of all kinds at once, cut off at random: responses stay in order, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from behest.session.v1.journal_service_pb2 import DriveRequest, DriveResponse, FollowRequest, FollowResponse, GetRunRequest, GetRunResponse
from chassis.faults import CallCancelled, DeadlineExceeded, RunNotFound
from kit.rpc import CARRIERS, Probe, ProbeStub, open_probe

WORKERS, CALLS = 20, 40


class Chaos:
    """Handlers and callers that pause, fail, stop early and run out of time as a seed decides. `alive` counts what has not ended."""

    def __init__(self, seed: int) -> None:
        self.alive: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self._random = random.Random(seed)

    @contextlib.contextmanager
    def living(self, what: str) -> Iterator[None]:
        self.alive[what] += 1
        try:
            yield
        finally:
            self.alive[what] -= 1

    def maybe(self, chance: float) -> bool:
        return self._random.random() < chance

    async def maybe_pause(self, chance: float) -> None:
        if self.maybe(chance):
            await asyncio.sleep(self._random.random() * 0.01)

    async def get_run(self, request: GetRunRequest) -> GetRunResponse:
        with self.living("get_run"):
            await self.maybe_pause(0.5)
            if self.maybe(0.1):
                raise RunNotFound("by chance")
            if self.maybe(0.05):
                await asyncio.Event().wait()
            return GetRunResponse()

    async def follow(self, request: FollowRequest) -> AsyncIterator[FollowResponse]:
        with self.living("follow"):
            for sequence in range(self._random.randrange(150)):
                await self.maybe_pause(0.03)
                response = FollowResponse()
                response.events.add(sequence=sequence)
                yield response
            if self.maybe(0.2):
                raise RunNotFound("by chance")

    async def drive(self, stream: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        with self.living("drive"):
            async for request in stream:
                await self.maybe_pause(0.05)
                if self.maybe(0.01):
                    return
                yield DriveResponse(lease_ms=request.room)

    async def collect(self, stream: AsyncIterator[DriveRequest]) -> DriveResponse:
        with self.living("collect"):
            return DriveResponse(lease_ms=len([request async for request in stream]))

    async def requests(self) -> AsyncIterator[DriveRequest]:
        with self.living("requests"):
            for number in range(self._random.randrange(80)):
                await self.maybe_pause(0.03)
                yield DriveRequest(room=number)
            if self.maybe(0.05):
                raise LookupError("by chance")

    async def call(self, stub: ProbeStub) -> None:
        timeout = self._random.choice([None, 0.005, 5.0])
        try:
            async with asyncio.timeout(self._random.choice([0.003, 0.02, 30])):
                await self._one(stub, timeout)
            self.outcomes["ok"] += 1
        except (RunNotFound, DeadlineExceeded, CallCancelled, LookupError, TimeoutError) as error:
            self.outcomes[type(error).__name__] += 1

    async def _one(self, stub: Any, timeout: float | None) -> None:
        kind = self._random.randrange(4)
        if kind == 0:
            await stub.GetRun(GetRunRequest(), timeout=timeout or 5)
        elif kind == 1:
            await self._read(stub.Follow(FollowRequest(), timeout=timeout), lambda response: response.events[0].sequence)
        elif kind == 2:
            await self._read(stub.Drive(self.requests(), timeout=timeout), lambda response: response.lease_ms)
        else:
            await stub.Collect(self.requests(), timeout=timeout)

    async def _read(self, stream: Any, number: Any) -> None:
        expected = 0
        async for response in stream:
            assert number(response) == expected
            expected += 1
            if self.maybe(0.01):
                return
            if self.maybe(0.01):
                stream.cancel()
            await self.maybe_pause(0.02)


@pytest.mark.feature("O9")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("carrier", CARRIERS)
async def test_whatever_becomes_of_calls_they_leave_nothing_behind(carrier: str, seed: int) -> None:
    chaos = Chaos(seed)
    async with open_probe(carrier, Probe(chaos.get_run, chaos.follow, chaos.drive, chaos.collect)) as stub:

        async def work() -> None:
            for _ in range(CALLS):
                await chaos.call(stub)

        await asyncio.gather(*(work() for _ in range(WORKERS)))
        gc.collect()
        async with asyncio.timeout(10):
            while any(chaos.alive.values()):
                await stub.Collect(chaos_free())
    assert chaos.outcomes["ok"] > 100
    assert len(chaos.outcomes) >= 4


async def chaos_free() -> AsyncIterator[DriveRequest]:
    for _ in ():
        yield DriveRequest()
