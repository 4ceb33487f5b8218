"""Waiting at start: which failures are waited out, what is said meanwhile, and that a stop breaks it off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from chassis.faults import Fault, SchemaTooOld, SettingsInvalid, StorageUnavailable
from chassis.rpc import starting
from chassis.rpc.repeating import REPEAT_SECONDS, Repeating
from chassis.rpc.starting import Stopped, enter_when_possible, unless

pytestmark = pytest.mark.feature("O6")
PASSING = StorageUnavailable("away", retry_after=1.0)


class Opening:
    """Opens once its failures are used up, and knows whether it is open."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.open = False

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Opening]:
        if self.failures:
            raise self.failures.pop(0)
        self.open = True
        try:
            yield self
        finally:
            self.open = False


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "FIRST_PAUSE", 0.001)


async def test_failures_that_pass_are_waited_out_and_told() -> None:
    heard: list[Fault] = []

    async def told(fault: Fault) -> None:
        heard.append(fault)

    again = ExceptionGroup("of a task group", [StorageUnavailable("still away", retry_after=1.0)])
    async with AsyncExitStack() as stack:
        opened = await enter_when_possible(stack, Opening(PASSING, again), "x", told)
        assert opened.open
    assert not opened.open and [fault.message for fault in heard] == ["away", "still away"]


@pytest.mark.parametrize("failure", [SettingsInvalid("x"), SchemaTooOld("x"), StorageUnavailable("a wrong password"), ValueError("x")])
async def test_what_does_not_pass_by_itself_is_raised_at_once(failure: Exception) -> None:
    opening = Opening(failure)
    async with AsyncExitStack() as stack:
        with pytest.raises(type(failure)):
            await enter_when_possible(stack, opening, "x")
    assert not opening.failures


async def test_a_stop_breaks_waiting_off_and_nothing_stays_open() -> None:
    stop, opening = asyncio.Event(), Opening(*[PASSING] * 100_000)

    async def told(_: Fault) -> None:
        stop.set()

    async with AsyncExitStack() as stack:
        with pytest.raises(Stopped):
            async with unless(stop):
                await enter_when_possible(stack, opening, "x", told)
    assert opening.failures and not opening.open


async def test_a_body_that_ends_before_the_stop_is_left_alone() -> None:
    stop = asyncio.Event()
    async with unless(stop):
        await asyncio.sleep(0)
    stop.set()
    await asyncio.sleep(0)


async def test_a_bodys_own_timeout_is_not_taken_for_a_stop() -> None:
    with pytest.raises(TimeoutError):
        async with unless(asyncio.Event()):
            raise TimeoutError


def test_a_cause_is_said_when_it_is_new_and_again_after_half_a_minute() -> None:
    moment = 100.0
    said = Repeating(lambda: moment)
    assert said.is_due("a") and not said.is_due("a")
    assert said.is_due("b") and said.is_due("a")
    moment += REPEAT_SECONDS
    assert said.is_due("a") and not said.is_due("a")
    said.forget()
    assert said.is_due("a")
