"""A second target asked beside the first: who wins, who is cancelled, what it costs, and that nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.faults import Fault, ProviderRequestRefused, ProviderUnavailable, StreamIncomplete
from kit.provider_double import ANY, REQUEST, STARTED, Bench, Double, events_of, finish
from provider_gateway.domain.answers import ChatEvent, Finished, Started, TextDelta, Usage
from provider_gateway.domain.chat import Sampling
from provider_gateway.domain.models import Capabilities, ModelTraits
from provider_gateway.domain.routing import Alias, Choice, Hedge
from provider_gateway.operations.retries import RetryPolicy
from provider_gateway.operations.spending import Expense, Reservation

Batches = AsyncGenerator[Sequence[ChatEvent], None]
AT_ONCE = Hedge(after=0.0)
NEVER = asyncio.Event


def slow(name: str, gate: asyncio.Event) -> Double:
    """Gives no output before the gate opens."""

    async def play(number: int) -> Batches:
        yield [STARTED]
        await gate.wait()
        for batch in ([TextDelta(f"from {name}")], finish(f"from {name}")):
            yield batch

    return Double(play, name)


def failing(name: str, fault: Fault, gate: asyncio.Event | None = None) -> Double:
    async def play(number: int) -> Batches:
        if gate is not None:
            await gate.wait()
        yield [STARTED]
        raise fault

    return Double(play, name)


def opened() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


def bench(*doubles: Double, hedge: Hedge = AT_ONCE, **fields: Any) -> Bench:
    choices = tuple(Choice(f"{double.name}/m", tier=tier + 1) for tier, double in enumerate(doubles))
    return Bench(doubles[0], others=doubles[1:], alias=Alias(choices, hedge=hedge), **fields)


def texts(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def in_flight(bench_: Bench, name: str) -> int:
    return sum(status.in_flight for status in bench_.health.statuses(name))


@pytest.mark.feature("P14")
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_first_output_wins_and_the_other_request_is_closed(streamed: bool) -> None:
    a, b = slow("a", NEVER()), slow("b", opened())
    both = bench(a, b)
    if streamed:
        events = await events_of(both.chats(), request=ANY)
        assert texts(events) == "from b"
        assert sum(isinstance(event, Started) for event in events) == 1
    else:
        assert (await both.chats().complete(ANY, None)).message.text() == "from b"
    assert (a.closed, b.closed) == (1, 1)
    assert (in_flight(both, "a"), in_flight(both, "b")) == (0, 0)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.feature("P14")
async def test_a_target_that_answers_in_time_is_asked_alone() -> None:
    a, b = slow("a", opened()), slow("b", opened())
    assert texts(await events_of(bench(a, b, hedge=Hedge(after=60)).chats(), request=ANY)) == "from a"
    assert b.calls == []


@pytest.mark.feature("P14")
async def test_after_output_no_second_target_is_asked_however_long_the_rest_takes() -> None:
    gate = asyncio.Event()

    async def play(number: int) -> Batches:
        yield [STARTED, TextDelta("from ")]
        await gate.wait()
        yield [TextDelta("a")]
        yield finish("from a")

    b = slow("b", opened())
    both = bench(Double(play, "a"), b, hedge=Hedge(after=0.01))
    seen: list[ChatEvent] = []
    async for batch in both.chats().stream(ANY, None):
        seen += batch
        if not gate.is_set():
            await asyncio.sleep(0.03)
            gate.set()
    assert texts(seen) == "from a"
    assert b.calls == []


@pytest.mark.feature("P14")
async def test_one_that_fails_leaves_the_race_to_the_other() -> None:
    gate = asyncio.Event()
    a, b = slow("a", gate), failing("b", ProviderUnavailable("x"))
    both = bench(a, b)

    async def open_later() -> None:
        while not b.closed:
            await asyncio.sleep(0)
        gate.set()

    opening = asyncio.create_task(open_later())
    assert texts(await events_of(both.chats(), request=ANY)) == "from a"
    await opening
    assert len(a.calls) == 1


@pytest.mark.feature("P14")
async def test_when_both_fail_the_others_are_asked() -> None:
    down = ProviderUnavailable("x")
    three = bench(failing("a", down), failing("b", down), slow("c", opened()))
    assert (await three.chats().complete(ANY, None)).message.text() == "from c"


@pytest.mark.feature("P14")
async def test_a_refused_request_ends_the_race() -> None:
    a, b = slow("a", NEVER()), failing("b", ProviderRequestRefused("no"))
    both = bench(a, b)
    with pytest.raises(ProviderRequestRefused):
        await both.chats().complete(ANY, None)
    assert (a.closed, in_flight(both, "a")) == (1, 0)


@pytest.mark.feature("P14")
async def test_a_winner_that_breaks_off_is_the_end_of_the_stream() -> None:
    async def play(number: int) -> Batches:
        yield [STARTED, TextDelta("Hel")]
        raise StreamIncomplete("cut")

    a, b = slow("a", NEVER()), Double(play, "b")
    seen: list[ChatEvent] = []
    with pytest.raises(StreamIncomplete):
        async for batch in bench(a, b).chats().stream(ANY, None):
            seen += batch
    assert (texts(seen), a.closed, b.closed) == ("Hel", 1, 1)


@pytest.mark.feature("P11")
@pytest.mark.feature("P14")
async def test_no_second_target_is_asked_on_an_empty_retry_budget() -> None:
    gate, policy = asyncio.Event(), RetryPolicy(budget_burst=0.5)
    a, b = slow("a", gate), slow("b", opened())
    both = bench(a, b, policy=policy)
    answering = asyncio.create_task(both.chats().complete(ANY, None))
    while not a.calls:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    gate.set()
    assert (await answering).message.text() == "from a"
    assert b.calls == []


@pytest.mark.feature("P16")
async def test_leaving_a_race_closes_both_requests() -> None:
    a, b = slow("a", NEVER()), slow("b", NEVER())
    both = bench(a, b)
    async with aclosing(both.chats().stream(ANY, None)) as batches:
        reading = asyncio.create_task(anext(batches))
        while not b.calls:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
    assert (a.closed, b.closed) == (1, 1)
    assert (in_flight(both, "a"), in_flight(both, "b")) == (0, 0)
    assert len(asyncio.all_tasks()) == 1


@dataclass
class Ledger:
    """Keeps what was reserved and how each reservation ended."""

    open: int = 0
    ends: list[tuple[str, Usage | None, str]] = field(default_factory=list)

    @asynccontextmanager
    async def reserve(self, expense: Expense) -> AsyncIterator[Reservation]:
        self.open += 1
        told: list[Usage] = []

        class Own:
            def used(self, usage: Usage) -> None:
                told.append(usage)

            def produced(self, characters: int) -> None:
                pass

        end = "answered"
        try:
            yield Own()
        except BaseException as error:
            end = type(error).__name__
            raise
        finally:
            self.open -= 1
            self.ends.append((expense.provider, told[-1] if told else None, end))


@pytest.mark.feature("P15")
@pytest.mark.feature("P16")
async def test_winner_and_loser_are_both_settled() -> None:
    ledger = Ledger()
    await events_of(bench(slow("a", NEVER()), slow("b", opened()), spending=ledger).chats(), request=ANY)
    assert ledger.open == 0
    assert sorted(ledger.ends) == [("a", None, "CancelledError"), ("b", Usage(1, 2), "answered")]


@pytest.mark.feature("P15")
async def test_each_failed_attempt_is_settled_before_the_next_begins() -> None:
    ledger = Ledger()
    double = failing("double", ProviderUnavailable("x"))
    with pytest.raises(ProviderUnavailable):
        await Bench(double, spending=ledger).chats().complete(REQUEST, None)
    assert (ledger.open, [end for _, _, end in ledger.ends]) == (0, ["ProviderUnavailable"] * 3)


@pytest.mark.feature("P15")
async def test_a_piece_that_goes_on_is_reserved_with_what_it_goes_on_with_as_input() -> None:
    reserved: list[tuple[str, int, int | None]] = []

    class Noting(Ledger):
        def reserve(self, expense: Expense) -> Any:
            reserved.append((expense.provider, expense.input_tokens, expense.output_tokens))
            return super().reserve(expense)

    async def cut(number: int) -> Batches:
        yield [STARTED, TextDelta("x" * 400)]
        raise StreamIncomplete("cut")

    able = ModelTraits(Capabilities(continuing=True))
    alias = Alias((Choice("a/m"), Choice("b/m", tier=2)), continues=True)
    two = Bench(Double(cut, "a"), others=[slow("b", opened())], alias=alias, traits=able, others_traits={"b": able}, spending=Noting())
    await events_of(two.chats(), request=replace(ANY, sampling=Sampling(max_output_tokens=1000)))
    (_, input_first, output_first), (_, input_second, output_second) = reserved
    assert (input_second - input_first, output_first, output_second) == (100 + 4, 1000, 900)


@pytest.mark.feature("P14")
async def test_with_a_percentile_it_is_the_targets_own_pace_that_counts_once_it_is_known() -> None:
    gate = opened()
    a, b = slow("a", gate), slow("b", opened())
    both = bench(a, b, hedge=Hedge(after=600, percentile=95))
    chats = both.chats()
    for _ in range(20):
        await events_of(chats, request=ANY)
    assert b.calls == []
    gate.clear()
    assert texts(await events_of(chats, request=ANY)) == "from b"


Step = Callable[[], Fault | None]


@pytest.mark.feature("P12")
@pytest.mark.feature("P14")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["speaks", "fails", "breaks", "hangs"])), min_size=2, max_size=3),
    st.integers(0, 3),
)
async def test_whatever_the_order_of_things_one_answer_is_delivered_and_nothing_is_left(
    manner: list[tuple[int, str]], patience: int
) -> None:
    def double(name: str, turns: int, kind: str) -> Double:
        async def play(number: int) -> Batches:
            for _ in range(turns):
                yield []
                await asyncio.sleep(0)
            if kind == "hangs":
                await asyncio.sleep(0.02)
            if kind == "fails":
                raise ProviderUnavailable(name)
            yield [STARTED, TextDelta(name)]
            if kind == "breaks":
                raise StreamIncomplete(name)
            yield [TextDelta(name)]
            yield finish(name * 2)

        return Double(play, name)

    doubles = [double(f"d{number}", turns, kind) for number, (turns, kind) in enumerate(manner)]
    bench_ = bench(*doubles, hedge=Hedge(after=patience / 1000))
    seen: list[ChatEvent] = []
    fault: Fault | None = None
    try:
        async for batch in bench_.chats().stream(replace(ANY), None):
            seen += batch
    except Fault as raised:
        fault = raised
    said = texts(seen)
    assert said in {"", *(each.name for each in doubles), *(each.name * 2 for each in doubles)}
    assert (fault is None) is isinstance(seen[-1] if seen else None, Finished)
    assert all(each.closed == len(each.calls) for each in doubles)
    assert all(in_flight(bench_, each.name) == 0 for each in doubles)
    assert len(asyncio.all_tasks()) == 1
