"""Calls over several targets: who is asked after whom, what the caller sees of it, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from chassis.faults import (
    BudgetExhausted,
    CapabilityMissing,
    Fault,
    FieldNotExpressible,
    ModelNotFound,
    ProviderBusy,
    ProviderContextOverflow,
    ProviderCredentialsRefused,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderTimeout,
    ProviderUnavailable,
    StreamIncomplete,
)
from kit.provider_double import ANY, REQUEST, STARTED, Bench, Double, events_of, finish, saying
from provider_gateway.domain.answers import ChatEvent, Started, TextDelta
from provider_gateway.domain.breaker import CircuitPolicy
from provider_gateway.domain.chat import ToolDefinition
from provider_gateway.domain.concurrency import ConcurrencyPolicy
from provider_gateway.domain.models import Capabilities, ModelTraits
from provider_gateway.domain.routing import Alias, Choice
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.retries import RetryPolicy

Batches = AsyncGenerator[Sequence[ChatEvent], None]


def failing(name: str, fault: Fault, times: int = 10**9, after: Sequence[ChatEvent] = ()) -> Double:
    async def play(number: int) -> Batches:
        if number < times:
            if after:
                yield after
            raise fault
        async for batch in saying("from ", name):
            yield batch

    return Double(play, name)


def well(name: str) -> Double:
    return Double(lambda number: saying("from ", name), name)


def texts(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.feature("P12")
@pytest.mark.parametrize(
    "fault",
    [
        ProviderUnavailable("x"),
        ProviderRateLimited("x", retry_after=30),
        StreamIncomplete("x"),
        ProviderCredentialsRefused("x"),
        ModelNotFound("x"),
        FieldNotExpressible("x"),
        BudgetExhausted("x"),
        ProviderContextOverflow("x"),
    ],
)
async def test_another_target_answers_at_once_and_nothing_shows_it(fault: Fault) -> None:
    bench = Bench(failing("a", fault, after=[STARTED]), others=[well("b")])
    events = await events_of(bench.chats(), request=ANY)
    assert texts(events) == "from b"
    assert sum(isinstance(event, Started) for event in events) == 1
    assert (await bench.chats().complete(ANY, None)).message.text() == "from b"
    assert bench.clock.slept == []


@pytest.mark.feature("P12")
async def test_a_request_that_is_refused_as_such_is_given_to_no_other_target() -> None:
    bench = Bench(failing("a", ProviderRequestRefused("x")), others=[well("b")])
    with pytest.raises(ProviderRequestRefused):
        await bench.chats().complete(ANY, None)
    assert bench.others[0].calls == []


@pytest.mark.feature("P12")
async def test_after_output_no_other_target_is_asked() -> None:
    bench = Bench(failing("a", StreamIncomplete("cut"), after=[STARTED, TextDelta("Hel")]), others=[well("b")])
    seen: list[ChatEvent] = []
    with pytest.raises(StreamIncomplete):
        async for batch in bench.chats().stream(ANY, None):
            seen += batch
    assert texts(seen) == "Hel"
    assert bench.others[0].calls == []


@pytest.mark.feature("P12")
async def test_a_conversation_too_long_for_one_model_goes_to_one_with_a_larger_window_only() -> None:
    def window(tokens: int) -> ModelTraits:
        return ModelTraits(Capabilities(context_tokens=tokens))

    bench = Bench(
        failing("a", ProviderContextOverflow("x")),
        traits=window(8000),
        others=[well("b"), well("c")],
        others_traits={"b": window(4000), "c": window(16000)},
    )
    assert (await bench.chats().complete(ANY, None)).message.text() == "from c"
    assert bench.others[0].calls == []


@pytest.mark.feature("P11")
@pytest.mark.feature("P12")
async def test_each_target_is_asked_once_before_any_is_asked_again_and_repetitions_are_bounded_over_all() -> None:
    bench = Bench(failing("a", ProviderUnavailable("a is down")), others=[failing("b", ProviderUnavailable("b is down"))])
    with pytest.raises(ProviderUnavailable) as caught:
        await bench.chats().complete(ANY, None)
    assert len(bench.provider.calls) + len(bench.others[0].calls) == 2 + 2
    assert caught.value.metadata["tried"] == "a/m: PROVIDER_UNAVAILABLE; b/m: PROVIDER_UNAVAILABLE"


@pytest.mark.feature("P11")
async def test_of_several_failures_the_caller_is_told_the_one_that_waiting_mends() -> None:
    bench = Bench(failing("a", ProviderRateLimited("x", retry_after=90)), others=[failing("b", ProviderCredentialsRefused("x"))])
    with pytest.raises(ProviderRateLimited) as caught:
        await bench.chats().complete(ANY, None)
    assert caught.value.retry_after == 90


@pytest.mark.feature("P11")
async def test_a_target_that_asked_to_be_left_alone_is_and_is_waited_for_where_it_is_the_only_one() -> None:
    bench = Bench(failing("a", ProviderRateLimited("x", retry_after=30), times=1), others=[well("b")])
    chats = bench.chats()
    assert (await chats.complete(ANY, None)).message.text() == "from b"
    assert (await chats.complete(ANY, None)).message.text() == "from b"
    assert len(bench.provider.calls) == 1
    assert (await chats.complete(replace(REQUEST, model="a/m"), None)).message.text() == "from a"
    assert bench.clock.slept == [30.0]


@pytest.mark.feature("P11")
async def test_a_target_that_wants_more_time_than_is_heeded_fails_at_once_with_its_wish() -> None:
    bench = Bench(failing("a", ProviderRateLimited("x", retry_after=300)))
    for _ in range(2):
        with pytest.raises(ProviderRateLimited) as caught:
            await bench.chats().complete(replace(REQUEST, model="a/m"), None)
        assert caught.value.retry_after == pytest.approx(300)
    assert len(bench.provider.calls) == 1


@pytest.mark.feature("P14")
async def test_a_target_that_keeps_failing_is_left_alone_and_tried_again_by_one_call() -> None:
    circuit = CircuitPolicy(least_calls=4, first_pause=5)
    bench = Bench(failing("a", ProviderUnavailable("x"), times=5), others=[well("b")], circuit=circuit)
    chats = bench.chats()
    for _ in range(10):
        assert (await chats.complete(ANY, None)).message.text() == "from b"
    assert len(bench.provider.calls) == 4
    with pytest.raises(ProviderUnavailable) as caught:
        await chats.complete(replace(REQUEST, model="a/m"), None)
    assert (caught.value.metadata["circuit"], caught.value.retry_after) == ("open", 5)
    bench.clock.time += 5
    assert (await chats.complete(ANY, None)).message.text() == "from b"
    bench.clock.time += 10
    assert (await chats.complete(ANY, None)).message.text() == "from a"
    assert len(bench.provider.calls) == 6


@pytest.mark.feature("P14")
async def test_what_is_the_callers_fault_does_not_speak_against_the_target() -> None:
    bench = Bench(failing("a", ProviderRequestRefused("x"), times=8), circuit=CircuitPolicy(least_calls=2))
    chats = bench.chats()
    for _ in range(8):
        with pytest.raises(ProviderRequestRefused):
            await chats.complete(replace(REQUEST, model="a/m"), None)
    assert (await chats.complete(replace(REQUEST, model="a/m"), None)).message.text() == "from a"


@pytest.mark.feature("P10")
async def test_targets_without_what_the_request_needs_are_left_out_and_when_none_is_left_each_lack_is_named() -> None:
    plain = ModelTraits(Capabilities())
    request = replace(ANY, tools=(ToolDefinition("t"),))
    bench = Bench(well("a"), traits=plain, others=[well("b")])
    assert (await bench.chats().complete(request, None)).message.text() == "from b"
    assert bench.provider.calls == []
    bench = Bench(well("a"), traits=plain, others=[well("b")], others_traits={"b": plain})
    with pytest.raises(CapabilityMissing, match="a/m lacks tools; b/m lacks tools") as caught:
        await bench.chats().complete(request, None)
    assert caught.value.metadata == {"model": "any", "missing": "tools"}


@pytest.mark.feature("P10")
async def test_calls_spread_by_weight_and_a_repeated_one_goes_the_same_way() -> None:
    alias = Alias((Choice("a/m", 3), Choice("b/m", 1)))
    bench = Bench(well("a"), others=[well("b")], alias=alias)
    chats = bench.chats()
    requests = [replace(ANY, request_id=f"run/{number}") for number in range(400)]
    first = [(await chats.complete(request, None)).message.text() for request in requests]
    assert first == [(await chats.complete(request, None)).message.text() for request in requests]
    assert 0.68 < first.count("from a") / 400 < 0.82


@pytest.mark.feature("P14")
async def test_a_target_that_takes_no_more_makes_calls_wait_their_turn_and_turns_away_what_would_wait_too_long() -> None:
    gate = asyncio.Event()

    async def play(number: int) -> Batches:
        await gate.wait()
        yield [STARTED]
        yield finish("x")

    bench = Bench(Double(play), concurrency=ConcurrencyPolicy(most=2, queue=1, queue_seconds=60))
    chats = bench.chats()
    calls = [asyncio.create_task(chats.complete(REQUEST, None)) for _ in range(4)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(ProviderBusy) as caught:
        await calls[3]
    assert caught.value.retry_after
    assert len(bench.provider.calls) == 2
    gate.set()
    await asyncio.gather(*calls[:3])
    assert len(bench.provider.calls) == 3
    assert [status.in_flight for status in bench.health.statuses("double")] == [0]


@pytest.mark.feature("P14")
@pytest.mark.feature("P16")
async def test_a_call_that_is_given_up_while_it_waits_leaves_no_place_taken() -> None:
    gate = asyncio.Event()

    async def play(number: int) -> Batches:
        await gate.wait()
        yield finish("x")

    bench = Bench(Double(play), concurrency=ConcurrencyPolicy(most=1, queue_seconds=0.01), policy=RetryPolicy(attempts=1))
    chats = bench.chats()
    holder = asyncio.create_task(chats.complete(REQUEST, None))
    while not bench.provider.calls:
        await asyncio.sleep(0)
    with pytest.raises(ProviderBusy, match="none ended in"):
        await chats.complete(REQUEST, None)
    waiting = asyncio.create_task(chats.complete(REQUEST, None))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    gate.set()
    await holder
    assert (await chats.complete(REQUEST, None)).message.text() == "x"
    assert [status.in_flight for status in bench.health.statuses("double")] == [0]


@pytest.mark.feature("P16")
async def test_streams_that_are_left_leave_no_place_taken() -> None:
    async def play(number: int) -> Batches:
        yield [STARTED, TextDelta("a")]
        await asyncio.Event().wait()

    bench = Bench(Double(play))
    chats = bench.chats()
    for _ in range(50):
        async with aclosing(chats.stream(REQUEST, None)) as batches:
            await anext(batches)
    assert bench.provider.closed == 50
    assert [status.in_flight for status in bench.health.statuses("double")] == [0]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.feature("P14")
async def test_only_a_bounded_number_of_targets_is_remembered() -> None:
    bench = Bench(well("double"))
    bench.health._most = 8
    chats = bench.chats()
    for number in range(50):
        await chats.complete(replace(REQUEST, model=f"double/m{number}"), None)
    assert len(bench.health.statuses("double")) <= 8


@pytest.mark.feature("P13")
@pytest.mark.feature("P14")
async def test_a_target_that_hangs_until_the_whole_call_is_over_is_sick_and_one_whose_caller_leaves_is_not() -> None:
    async def play(number: int) -> Batches:
        await asyncio.Event().wait()
        yield []

    bench = Bench(Double(play), limits=TimeLimits(call=0.01), circuit=CircuitPolicy(least_calls=2))
    chats = bench.chats()
    for _ in range(3):
        calling = asyncio.create_task(chats.complete(REQUEST, None))
        await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait([calling])
    for _ in range(2):
        with pytest.raises(ProviderTimeout):
            await chats.complete(REQUEST, None)
    with pytest.raises(ProviderUnavailable) as caught:
        await chats.complete(REQUEST, None)
    assert caught.value.metadata["circuit"] == "open"
    assert len(bench.provider.calls) == 5


@pytest.mark.feature("P14")
async def test_those_who_gave_up_waiting_are_not_in_the_way_of_others() -> None:
    gate = asyncio.Event()

    async def play(number: int) -> Batches:
        await gate.wait()
        yield finish("x")

    bench = Bench(Double(play), concurrency=ConcurrencyPolicy(most=1, queue=1, queue_seconds=60))
    chats = bench.chats()
    holder = asyncio.create_task(chats.complete(REQUEST, None))
    while not bench.provider.calls:
        await asyncio.sleep(0)
    for _ in range(3):
        waiting = asyncio.create_task(chats.complete(REQUEST, None))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    last = asyncio.create_task(chats.complete(REQUEST, None))
    await asyncio.sleep(0)
    gate.set()
    assert (await last).message.text() == "x"
    assert (await holder).message.text() == "x"


@pytest.mark.feature("P14")
@pytest.mark.feature("P16")
async def test_a_place_that_comes_to_one_who_leaves_at_that_moment_is_passed_on() -> None:
    bench = Bench(well("double"), concurrency=ConcurrencyPolicy(most=1))
    first = await bench.health.enter("double/m")
    second = asyncio.create_task(bench.health.enter("double/m"))
    await asyncio.sleep(0)
    first.answered()
    second.cancel()
    await asyncio.wait([second])
    assert [status.in_flight for status in bench.health.statuses("double")] == [0]
    assert (await bench.chats().complete(replace(REQUEST, model="double/m"), None)).message.text() == "from double"


@pytest.mark.feature("P14")
async def test_a_probe_whose_caller_leaves_is_made_by_the_next_call() -> None:
    async def play(number: int) -> Batches:
        if number < 2:
            raise ProviderUnavailable("x")
        if number == 2:
            await asyncio.Event().wait()
        async for batch in saying("again"):
            yield batch

    bench = Bench(Double(play), circuit=CircuitPolicy(least_calls=2, first_pause=5), policy=RetryPolicy(attempts=1))
    chats = bench.chats()
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            await chats.complete(REQUEST, None)
    bench.clock.time += 5
    probe = asyncio.create_task(chats.complete(REQUEST, None))
    while len(bench.provider.calls) < 3:
        await asyncio.sleep(0)
    probe.cancel()
    await asyncio.wait([probe])
    assert (await chats.complete(REQUEST, None)).message.text() == "again"


@pytest.mark.feature("P14")
async def test_a_probe_that_is_refused_shows_that_the_target_is_there() -> None:
    async def play(number: int) -> Batches:
        raise ProviderUnavailable("x") if number < 2 else ProviderRequestRefused("no")
        yield []

    bench = Bench(Double(play), circuit=CircuitPolicy(least_calls=2, first_pause=5), policy=RetryPolicy(attempts=1))
    chats = bench.chats()
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            await chats.complete(REQUEST, None)
    bench.clock.time += 5
    for _ in range(2):
        with pytest.raises(ProviderRequestRefused):
            await chats.complete(REQUEST, None)
