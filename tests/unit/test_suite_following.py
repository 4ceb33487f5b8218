"""Following a run: whatever breaks, each event comes once and in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from behest.event.v1 import event_pb2 as event_pb
from chassis.faults import ProviderTimeout, RunNotFound, ServiceUnavailable
from kit.fake_run_service import Break, log_of, told
from suite.following import Backoff, Following, is_terminal


class InstantClock:
    """Waits for nothing and remembers how long it should have."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


class Wire:
    """Opens one stream after another over the same log, each breaking as planned."""

    def __init__(self, log: list[event_pb.Event], breaks: list[Break], fault: type[Exception] = ServiceUnavailable) -> None:
        self.log, self.breaks, self.fault, self.opened = log, list(breaks), fault, 0

    async def open(self, after: int):
        self.opened += 1
        planned = self.breaks.pop(0) if self.breaks else None
        for event in told(self.log, after, planned):
            yield [event]
        if planned is not None and not planned.clean:
            raise self.fault("cut")


BREAKS = st.builds(Break, after_events=st.integers(1, 12), clean=st.booleans(), repeats=st.integers(0, 4), skips=st.booleans())


async def followed(wire: Wire, after: int = 0, clock: InstantClock | None = None) -> list[int]:
    following = Following(wire.open, after, clock or InstantClock(), Backoff(attempts=20))
    return [event.sequence async for event in following.events()]


@pytest.mark.feature("X3")
@pytest.mark.feature("S4")
@given(breaks=st.lists(BREAKS, max_size=8), deltas=st.integers(0, 9), after=st.integers(0, 3))
async def test_any_cuts_repeats_and_skips_give_the_same_events(breaks: list[Break], deltas: int, after: int) -> None:
    log = log_of([str(number) for number in range(deltas)])
    assert await followed(Wire(log, breaks), after) == [event.sequence for event in log if event.sequence > after]


async def test_the_stream_ends_at_the_terminal_event_even_if_more_is_sent() -> None:
    log = log_of(["a"])
    log.append(event_pb.Event(sequence=len(log) + 1, text_delta=event_pb.TextDelta(text="ghost")))
    events = await followed(Wire(log, []))
    assert events[-1] == len(log) - 1 and is_terminal(log[events[-1] - 1])


async def test_one_delta_may_cover_a_pruned_range() -> None:
    log = [event for event in log_of(["a", "b", "c"]) if event.sequence not in (4, 5)]
    assert await followed(Wire(log, [])) == [1, 2, 3, 6, 7, 8]


async def test_a_fault_about_the_request_is_raised_at_once() -> None:
    wire = Wire(log_of(["a"]), [Break(0)], fault=RunNotFound)
    with pytest.raises(RunNotFound):
        await followed(wire)
    assert wire.opened == 1


async def test_it_gives_up_when_connections_in_a_row_bring_nothing() -> None:
    clock = InstantClock()
    with pytest.raises(ServiceUnavailable):
        await followed(Wire(log_of(["a"]), [Break(0)] * 100), clock=clock)
    assert len(clock.waits) == 20


async def test_a_clean_end_without_terminal_event_is_not_taken_for_the_end() -> None:
    wire = Wire(log_of(["a"]), [Break(2, clean=True)])
    assert await followed(wire) == [1, 2, 3, 4, 5, 6]
    assert wire.opened == 2


async def test_progress_resets_the_count_of_failures() -> None:
    log = log_of([str(number) for number in range(60)])
    assert len(await followed(Wire(log, [Break(1)] * 60))) == len(log)


def test_the_wait_never_undercuts_what_the_service_asked_for() -> None:
    assert Backoff().delay(1, retry_after=7.0) >= 7.0
    assert all(Backoff().delay(9, None) <= 2.0 for _ in range(50))


async def test_other_unavailable_reasons_are_survived_too() -> None:
    assert await followed(Wire(log_of(["a"]), [Break(1)], fault=ProviderTimeout)) == [1, 2, 3, 4, 5, 6]
