"""Embeddings: what is admitted, how requests are cut into calls, and what becomes of them when calls fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    BudgetExhausted,
    CapabilityMissing,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    ProviderUnavailable,
    RequestInvalid,
)
from chassis.world import World
from kit.provider_double import StillClock
from kit.provider_embedding import EmbedBench, EmbedDouble, lengths
from provider_gateway.adapters.scripted.vectors import vector_of
from provider_gateway.domain.answers import RequestWarning, Usage
from provider_gateway.domain.calls import EndedCall
from provider_gateway.domain.embeddings import EmbedInput, EmbedRequest, EmbedResult, batches, together
from provider_gateway.domain.models import Capabilities, ModelTraits, Price
from provider_gateway.operations.embeddings import AT_ONCE
from provider_gateway.operations.ports import EmbedCall
from provider_gateway.operations.recording import CallRecorder
from provider_gateway.operations.spending import Expense

pytestmark = pytest.mark.feature("P19")
INPUTS: tuple[EmbedInput, ...] = tuple("x" * length for length in range(1, 20))
_inputs = st.lists(st.one_of(st.text(min_size=1, max_size=9), st.lists(st.integers(0, 9), min_size=1, max_size=9).map(tuple)), min_size=1)


def request(*inputs: EmbedInput, **fields: object) -> EmbedRequest:
    return EmbedRequest(inputs, "double/m", **fields)  # type: ignore[arg-type]


async def test_everything_wrong_with_a_request_is_told_at_once() -> None:
    wrong = request("a", "", (), dimensions=0, request_id="r" * 129, metadata={str(n): "" for n in range(17)})
    with pytest.raises(RequestInvalid) as caught:
        await EmbedBench(EmbedDouble()).embeddings().embed(wrong, None)
    assert [v.field for v in caught.value.violations] == ["inputs[1]", "inputs[2]", "dimensions", "request_id", "metadata"]


@pytest.mark.parametrize("inputs", [(), ("x",) * 2049], ids=["none", "2049"])
async def test_no_inputs_and_too_many_are_refused(inputs: tuple[str, ...]) -> None:
    with pytest.raises(RequestInvalid, match="inputs"):
        await EmbedBench(EmbedDouble()).embeddings().embed(request(*inputs), None)


async def test_a_request_is_cut_into_calls_and_put_together_in_order() -> None:
    bench = EmbedBench(EmbedDouble(), traits=ModelTraits(price=Price(10, 0)))
    result = await bench.embeddings().embed(request(*INPUTS), None)
    assert [vector[0] for vector in result.vectors] == lengths(INPUTS)
    assert [len(call.request.inputs) for call in bench.provider.calls] == [2] * 9 + [1]
    assert (result.usage.input_tokens, result.usage.calls, result.usage.cost_nano_usd, result.usage.cost_known) == (19, 10, 190, True)
    assert (result.provider, result.model) == ("double", "m-1")


async def test_the_order_does_not_depend_on_which_call_is_answered_first() -> None:
    async def slower_the_earlier(call: EmbedCall) -> None:
        for _ in range(20 - len(call.request.inputs[0])):
            await asyncio.sleep(0)

    result = await EmbedBench(EmbedDouble(slower_the_earlier)).embeddings().embed(request(*INPUTS), None)
    assert [vector[0] for vector in result.vectors] == lengths(INPUTS)


async def test_only_a_few_calls_are_under_way_at_once() -> None:
    bench = EmbedBench(EmbedDouble(embed_limit=1))
    await bench.embeddings().embed(request(*INPUTS), None)
    assert bench.provider.most == AT_ONCE


@given(_inputs, st.integers(1, 7), st.integers(1, 30))
def test_calls_hold_all_inputs_in_order_and_as_many_as_fit(inputs: list[EmbedInput], most: int, most_weight: int) -> None:
    weights = [len(one) for one in inputs]
    cuts = batches(inputs, weights, most, most_weight)
    pieces = [inputs[cut] for cut in cuts]
    assert [one for piece in pieces for one in piece] == inputs
    for piece in pieces:
        assert 1 <= len(piece) <= most
        assert len(piece) == 1 or sum(len(one) for one in piece) <= most_weight
        assert len({type(one) for one in piece}) == 1
    for first, second in pairwise(pieces):
        alike = type(first[0]) is type(second[0])
        assert not alike or len(first) == most or sum(map(len, first)) + len(second[0]) > most_weight, "cut without need"


async def test_a_provider_s_bound_on_tokens_cuts_a_request_too() -> None:
    bench = EmbedBench(EmbedDouble(embed_limit=100, embed_tokens=10))
    await bench.embeddings().embed(request("x" * 20, "y" * 20, "z" * 20), None)
    assert [len(call.request.inputs) for call in bench.provider.calls] == [2, 1]


@pytest.mark.feature("P11")
async def test_a_call_that_fails_is_repeated_alone() -> None:
    failed: list[EmbedCall] = []

    async def fail_one(call: EmbedCall) -> None:
        if call.request.inputs[0] == "xxx" and len(failed) < 2:
            failed.append(call)
            raise ProviderUnavailable("x")

    bench = EmbedBench(EmbedDouble(fail_one))
    result = await bench.embeddings().embed(request(*INPUTS), None)
    assert [vector[0] for vector in result.vectors] == lengths(INPUTS)
    assert len(bench.provider.calls) == 10 + 2
    assert bench.clock.slept == [0.5, 1.0]


async def test_a_call_that_fails_for_good_fails_the_request_and_ends_the_others() -> None:
    async def fail_one(call: EmbedCall) -> None:
        if call.request.inputs[0] == "xxx":
            raise ProviderRequestRefused("too long")
        await asyncio.Event().wait()

    bench = EmbedBench(EmbedDouble(fail_one))
    async with asyncio.timeout(5):
        with pytest.raises(ProviderRequestRefused):
            await bench.embeddings().embed(request(*INPUTS), None)
    assert bench.provider.under_way == 0
    assert len(bench.provider.calls) <= AT_ONCE + 1


@pytest.mark.feature("P16")
async def test_cancelling_ends_the_calls_under_way() -> None:
    async def hang(call: EmbedCall) -> None:
        await asyncio.Event().wait()

    bench = EmbedBench(EmbedDouble(hang))
    task = asyncio.create_task(bench.embeddings().embed(request(*INPUTS), None))
    while bench.provider.under_way < AT_ONCE:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert bench.provider.under_way == 0


@pytest.mark.parametrize("vectors", [(), ((1.0,), (1.0,)), ((1.0, 2.0),)], ids=["none", "one too many", "another length"])
async def test_an_answer_that_does_not_fit_the_request_is_refused(vectors: tuple[tuple[float, ...], ...]) -> None:
    class Odd(EmbedDouble):
        async def embed(self, call: EmbedCall) -> EmbedResult:
            return EmbedResult(vectors, provider="double")

    with pytest.raises(ProviderResponseInvalid, match="was asked for 1 vectors of 1 numbers"):
        await EmbedBench(Odd()).embeddings().embed(request("a", dimensions=1), None)


async def test_a_model_without_embeddings_is_refused_before_anything_is_sent() -> None:
    chat_only = EmbedBench(EmbedDouble(), traits=ModelTraits(Capabilities(tools=True)))
    silent = EmbedBench(EmbedDouble(embed_limit=0))
    for bench in (chat_only, silent):
        with pytest.raises(CapabilityMissing) as caught:
            await bench.embeddings().embed(request("a"), None)
        assert caught.value.metadata["missing"] == "embeddings"
        assert bench.provider.calls == []


class Purse:
    """Takes note of what is reserved and used; has nothing left after `room` reservations."""

    def __init__(self, room: int) -> None:
        self.room, self.reserved, self.settled = room, list[Expense](), list[Usage]()

    @asynccontextmanager
    async def reserve(self, expense: Expense) -> AsyncIterator[Purse]:
        self.reserved.append(expense)
        if len(self.reserved) > self.room:
            raise BudgetExhausted("nothing is left")
        yield self

    def used(self, usage: Usage) -> None:
        self.settled.append(usage)

    def produced(self, characters: int) -> None:
        raise AssertionError("vectors are not produced by the character")


@pytest.mark.feature("P15")
async def test_every_attempt_is_reserved_and_settled() -> None:
    async def fail_first(call: EmbedCall) -> None:
        if len(bench.provider.calls) == 1:
            raise ProviderUnavailable("x")

    purse, price = Purse(room=9), Price(10, 0)
    bench = EmbedBench(EmbedDouble(fail_first), spending=purse, traits=ModelTraits(price=price))
    await bench.embeddings().embed(request("a" * 40, "b", budget_key="team"), None)
    assert purse.reserved == [Expense("double", "m", "team", 11, 0, price)] * 2
    assert [(usage.input_tokens, usage.cost_nano_usd) for usage in purse.settled] == [(2, 20)]


@pytest.mark.feature("P15")
async def test_without_budget_nothing_more_is_sent() -> None:
    purse = Purse(room=3)
    bench = EmbedBench(EmbedDouble(embed_limit=1), spending=purse)
    with pytest.raises(BudgetExhausted):
        await bench.embeddings().embed(request(*INPUTS), None)
    assert len(bench.provider.calls) <= 3


async def test_an_embedding_is_recorded_like_any_call() -> None:
    ended: list[EndedCall] = []

    class Kept:
        def ended(self, call: EndedCall) -> None:
            ended.append(call)

    async def fail_first(call: EmbedCall) -> None:
        if len(bench.provider.calls) == 1:
            raise ProviderUnavailable("x")

    clock = StillClock()
    bench = EmbedBench(EmbedDouble(fail_first), clock, recorder=CallRecorder(Kept(), World(clock)))  # type: ignore[arg-type]
    await bench.embeddings().embed(request("a", request_id="run/1", metadata={"team": "x"}), None)
    (call,) = ended
    assert (call.request_id, call.metadata, call.provider, call.model, call.finish) == ("run/1", {"team": "x"}, "double", "m-1", None)
    assert call.usage == Usage(1)
    assert [type(failed.fault) for failed in call.failed] == [ProviderUnavailable]


def test_warnings_of_several_calls_are_told_once() -> None:
    one = EmbedResult(((1.0,),), Usage(1), "p", "m", (RequestWarning("purpose", "left out"),))
    assert together([one, replace(one, usage=Usage(2))]).warnings == one.warnings


def near(first: EmbedInput, second: EmbedInput, dimensions: int = 256) -> float:
    return sum(a * b for a, b in zip(vector_of(first, dimensions), vector_of(second, dimensions), strict=True))


def test_scripted_vectors_are_near_where_texts_share_words() -> None:
    question = "Where is my order?"
    assert near(question, "Your order is on its way") > 0.3 > near(question, "Bananas ripen quickly")
    assert near("Cat, dog", "DOG cat!") == pytest.approx(1)
    assert near((1, 2), (2, 1)) == pytest.approx(1)


@given(st.one_of(st.text(min_size=1), st.lists(st.integers(0), min_size=1).map(tuple)), st.integers(1, 300))
def test_scripted_vectors_have_the_length_asked_for_and_point_somewhere(text: EmbedInput, dimensions: int) -> None:
    vector = vector_of(text, dimensions)
    assert len(vector) == dimensions
    assert sum(value * value for value in vector) == pytest.approx(1)
