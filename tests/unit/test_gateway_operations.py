"""Attempts, limits, windows and prices, around a provider that a test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    CapabilityMissing,
    Fault,
    ProviderCredentialsRefused,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    RequestInvalid,
    StreamIncomplete,
)
from kit.provider_double import REQUEST, STARTED, Bench, Double, answer, events_of, finish, saying
from provider_gateway.domain.answers import (
    ChatEvent,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.models import Capabilities, ModelTraits, Price
from provider_gateway.operations.buffer import FULL, EventBuffer, merged
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.retries import RetryPolicy

Batches = AsyncGenerator[Sequence[ChatEvent], None]


def failing_first(times: int, fault: Fault, after: Sequence[ChatEvent] = ()) -> Double:
    async def play(number: int) -> Batches:
        if number < times:
            if after:
                yield after
            raise fault
        async for batch in saying("Hello ", "world"):
            yield batch

    return Double(play)


def texts(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.feature("P11")
async def test_a_retryable_failure_is_retried_and_leaves_no_trace() -> None:
    bench = Bench(failing_first(2, ProviderUnavailable("x"), after=[STARTED]))
    events = await events_of(bench.chats())
    assert texts(events) == "Hello world"
    assert sum(isinstance(event, Started) for event in events) == 1
    assert bench.clock.slept == [0.5, 1.0]
    assert (await Bench(failing_first(2, ProviderUnavailable("x"))).chats().complete(REQUEST, None)).message.text() == "Hello world"


@pytest.mark.feature("P11")
async def test_attempts_are_bounded_and_the_last_failure_is_told() -> None:
    bench = Bench(failing_first(9, ProviderUnavailable("x")))
    with pytest.raises(ProviderUnavailable):
        await events_of(bench.chats())
    assert len(bench.provider.calls) == 3


@pytest.mark.feature("P11")
@pytest.mark.parametrize(
    "fault", [ProviderCredentialsRefused("x"), ProviderRateLimited("x", metadata={"code": "insufficient_quota"}), RequestInvalid("x")]
)
async def test_what_waiting_does_not_mend_is_not_retried(fault: Fault) -> None:
    bench = Bench(failing_first(1, fault))
    with pytest.raises(type(fault)):
        await bench.chats().complete(REQUEST, None)
    assert len(bench.provider.calls) == 1


@pytest.mark.feature("P12")
async def test_after_output_was_delivered_nothing_is_retried() -> None:
    bench = Bench(failing_first(1, StreamIncomplete("cut"), after=[STARTED, TextDelta("Hel")]))
    seen: list[ChatEvent] = []
    with pytest.raises(StreamIncomplete):
        async for batch in bench.chats().stream(REQUEST, None):
            seen += batch
    assert texts(seen) == "Hel"
    assert len(bench.provider.calls) == 1


@pytest.mark.feature("P11")
async def test_the_providers_wish_is_heeded_and_an_excessive_one_fails_at_once() -> None:
    bench = Bench(failing_first(1, ProviderRateLimited("x", retry_after=7.0)))
    await events_of(bench.chats())
    assert 7.0 < bench.clock.slept[0] < 7.5
    bench = Bench(failing_first(1, ProviderRateLimited("x", retry_after=61.0)))
    with pytest.raises(ProviderRateLimited):
        await events_of(bench.chats())
    assert bench.clock.slept == []


@pytest.mark.feature("P11")
@pytest.mark.feature("G5")
async def test_no_retry_begins_that_the_deadline_would_end() -> None:
    bench = Bench(failing_first(1, ProviderRateLimited("x", retry_after=7.0)))
    with pytest.raises(ProviderRateLimited):
        await bench.chats().complete(REQUEST, bench.clock.time + 6)
    assert bench.clock.slept == []


@pytest.mark.feature("P11")
async def test_a_provider_that_is_down_is_not_hit_with_a_multiple_of_the_load() -> None:
    policy = RetryPolicy(attempts=5, budget_ratio=0.1, budget_burst=4)
    bench = Bench(failing_first(10**9, ProviderUnavailable("x")), policy=policy)
    chats = bench.chats()
    for _ in range(100):
        with pytest.raises(ProviderUnavailable):
            await chats.complete(REQUEST, None)
    assert len(bench.provider.calls) <= 100 + 4 + 10


@given(st.floats(0, 1), st.integers(1, 20))
def test_backoff_grows_is_jittered_and_stays_below_its_bound(chance: float, attempts: int) -> None:
    for number in range(attempts):
        cap = min(8.0, 0.5 * 2**number)
        assert cap / 2 <= RetryPolicy().pause(ProviderUnavailable("x"), number, chance) <= cap


@pytest.mark.feature("P7")
async def test_a_stream_that_ends_without_finishing_is_incomplete() -> None:
    async def play(number: int) -> Batches:
        yield [STARTED, TextDelta("Hel")]

    with pytest.raises(StreamIncomplete):
        await events_of(Bench(Double(play)).chats())


@pytest.mark.feature("P13")
async def test_no_output_in_time_is_a_timeout_whatever_else_comes() -> None:
    async def play(number: int) -> Batches:
        while True:
            yield [STARTED]
            yield []
            await asyncio.sleep(0.005)

    bench = Bench(Double(play), limits=TimeLimits(first_output=0.05), policy=RetryPolicy(attempts=1))
    with pytest.raises(ProviderTimeout, match=r"no output for 0\.05 s") as caught:
        await events_of(bench.chats())
    assert caught.value.metadata["limit"] == "first_output_seconds"
    assert bench.provider.closed == 1


@pytest.mark.feature("P13")
async def test_an_idle_stream_is_a_timeout_and_signs_of_life_keep_it() -> None:
    async def play(number: int) -> Batches:
        yield [STARTED, TextDelta("a")]
        for _ in range(6):
            await asyncio.sleep(0.1)
            yield []
        yield [TextDelta("b")]
        await asyncio.Event().wait()

    bench = Bench(Double(play), limits=TimeLimits(idle=0.4))
    seen: list[ChatEvent] = []
    with pytest.raises(ProviderTimeout, match="no sign of life"):
        async for batch in bench.chats().stream(REQUEST, None):
            seen += batch
    assert texts(seen) == "ab"


@pytest.mark.feature("P13")
async def test_a_stream_that_drips_is_a_timeout_that_names_the_limit() -> None:
    async def play(number: int) -> Batches:
        yield [STARTED, TextDelta("a")]
        while True:
            await asyncio.sleep(0.01)
            yield [TextDelta("b")]

    bench = Bench(Double(play), limits=TimeLimits(rate=1_000_000, rate_window=0.05))
    with pytest.raises(ProviderTimeout, match="less than 1e\\+06 characters a second") as caught:
        await events_of(bench.chats())
    assert (caught.value.metadata["limit"], caught.value.retryable, bench.provider.closed) == ("minimum_rate", True, 1)


@pytest.mark.feature("P13")
async def test_a_slow_reader_makes_no_stream_drip() -> None:
    async def play(number: int) -> Batches:
        yield [STARTED]
        for place in range(FULL * 4):
            yield [ToolCallDelta(place, "x")]
        yield finish("")

    bench = Bench(Double(play), limits=TimeLimits(rate=8_000, rate_window=0.05))
    seen = 0
    async for batch in bench.chats().stream(REQUEST, None):
        seen += len(batch)
        await asyncio.sleep(0.3)
    assert seen == FULL * 4 + 3


@pytest.mark.feature("P13")
async def test_a_whole_call_is_bounded_with_its_retries() -> None:
    async def play(number: int) -> Batches:
        await asyncio.Event().wait()
        yield []

    bench = Bench(Double(play), limits=TimeLimits(call=0.05))
    with pytest.raises(ProviderTimeout, match="did not finish within"):
        await bench.chats().complete(REQUEST, None)
    with pytest.raises(ProviderTimeout, match="did not finish within"):
        await events_of(bench.chats())
    assert bench.provider.closed == 2


@pytest.mark.feature("P16")
async def test_leaving_a_stream_closes_the_providers() -> None:
    async def play(number: int) -> Batches:
        yield [STARTED, TextDelta("a")]
        await asyncio.Event().wait()

    bench = Bench(Double(play))
    async with aclosing(bench.chats().stream(REQUEST, None)) as batches:
        async for _ in batches:
            break
    assert bench.provider.closed == 1


async def test_a_slow_reader_holds_the_provider_back_and_is_not_its_fault() -> None:
    given_ = 0

    async def play(number: int) -> Batches:
        nonlocal given_
        yield [STARTED]
        for place in range(FULL * 3):
            given_ += 1
            yield [ToolCallDelta(place, "x")]
        yield finish("")

    bench = Bench(Double(play), limits=TimeLimits(idle=0.02))
    seen: list[ChatEvent] = []
    async for batch in bench.chats().stream(REQUEST, None):
        seen += batch
        await asyncio.sleep(0.05)
        assert given_ <= len(seen) + 2 * FULL
    assert len(seen) == FULL * 3 + 3


@pytest.mark.feature("R9")
async def test_a_model_without_streaming_is_asked_without_and_told_in_one_burst() -> None:
    async def play(number: int) -> Batches:
        yield finish("whole")

    bench = Bench(Double(play), traits=ModelTraits(Capabilities(streaming=False)))
    kinds = [type(event).__name__ for event in await events_of(bench.chats())]
    assert kinds == ["Started", "TextDelta", "UsageReport", "Finished"]


@pytest.mark.feature("P22")
async def test_usage_is_priced_wherever_it_is_told() -> None:
    bench = Bench(Double(lambda number: saying("x")), traits=ModelTraits(price=Price(1000, 2000)))
    priced = Usage(1, 2, cost_nano_usd=5000, cost_known=True)
    events = await events_of(bench.chats())
    assert [event.usage for event in events if isinstance(event, UsageReport)] == [priced]
    assert [event.result.usage for event in events if isinstance(event, Finished)] == [priced]
    assert (await bench.chats().complete(REQUEST, None)).usage == priced
    unpriced = await Bench(Double(lambda number: saying("x"))).chats().complete(REQUEST, None)
    assert not unpriced.usage.cost_known


@pytest.mark.feature("P10")
async def test_what_cannot_be_served_is_refused_before_anything_is_sent() -> None:
    bench = Bench(Double(lambda number: saying("x")), traits=ModelTraits(Capabilities()))
    with pytest.raises(RequestInvalid):
        await bench.chats().complete(ChatRequest((), "double/m"), None)
    from provider_gateway.domain.chat import ToolDefinition

    with pytest.raises(CapabilityMissing):
        await bench.chats().complete(ChatRequest(REQUEST.messages, "double/m", tools=(ToolDefinition("t"),)), None)
    assert bench.provider.calls == []


async def test_what_the_reader_has_not_fetched_is_joined_and_followed_by_the_end() -> None:
    buffer = EventBuffer()
    for event in (TextDelta("a"), TextDelta("b"), Finished(answer("ab"))):
        buffer.put([event])
    buffer.end(ProviderUnavailable("x"))
    assert await anext(buffer) == [TextDelta("ab"), Finished(answer("ab"))]
    with pytest.raises(ProviderUnavailable):
        await anext(buffer)


steps = st.lists(
    st.one_of(
        st.builds(TextDelta, st.text(max_size=2)),
        st.builds(ReasoningDelta, st.text(max_size=2)),
        st.builds(ToolCallDelta, st.integers(0, 2), st.text(max_size=2)),
        st.builds(UsageReport, st.builds(Usage, st.integers(0, 3))),
    ),
    max_size=12,
)


@given(steps)
def test_merging_keeps_what_was_said_in_order(events: list[ChatEvent]) -> None:
    def flat(some: list[ChatEvent]) -> list[tuple[object, str]]:
        letters: list[tuple[object, str]] = []
        for event in some:
            if isinstance(event, TextDelta | ReasoningDelta):
                letters += [(type(event), letter) for letter in event.text]
            elif isinstance(event, ToolCallDelta):
                letters += [(event.index, letter) for letter in event.arguments]
        return letters

    assert flat(merged(events)) == flat(events)
    usages = [event for event in events if isinstance(event, UsageReport)]
    assert [event for event in merged(events) if isinstance(event, UsageReport)][-1:] == usages[-1:]
