"""The response cache: which requests are the same, what is kept, for whom, how long and how much."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.faults import Fault, ProviderUnavailable, RequestInvalid, StreamIncomplete
from chassis.rpc import Call, call_scope
from kit.provider_double import StillClock
from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, FinishReason, Seam, Started, TextDelta, Usage, UsageReport
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    PromptCaching,
    ReasoningEffort,
    ResponseCaching,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.operations.response_cache import NOTHING, CacheBounds, CachedChats, ResponseCache, cache_key

pytestmark = pytest.mark.feature("P18")
ASKED = ChatRequest((Message(Role.USER, (TextPart("hello"),)),), "m", response_caching=ResponseCaching(enabled=True))
BOUNDS = CacheBounds()
SPENT = Usage(input_tokens=3, output_tokens=4, cost_nano_usd=70, cost_known=True)


def answer(text: str, **fields: object) -> ChatResult:
    result = ChatResult(
        Message(Role.ASSISTANT, (TextPart(text),)), FinishReason.STOP, usage=SPENT, provider="p", model="m", response_id="r"
    )
    return replace(result, **fields)  # type: ignore[arg-type]


class Counting:
    """Chats that say how often they were asked. `cut` ends streams before their end."""

    def __init__(self, **fields: object) -> None:
        self.asked, self.fields, self.cut = 0, fields, False
        self.fault: Fault | None = None

    async def complete(self, request: ChatRequest, deadline: float | None) -> ChatResult:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return answer(f"answer {self.asked}", **self.fields)

    async def stream(self, request: ChatRequest, deadline: float | None) -> AsyncGenerator[list[ChatEvent], None]:
        self.asked += 1
        result = answer(f"answer {self.asked}", **self.fields)
        yield [Started("p", "m", "r"), TextDelta("answer ")]
        if self.cut:
            raise StreamIncomplete("cut")
        yield [TextDelta(str(self.asked)), UsageReport(SPENT), Finished(result)]


def cached(chats: Counting, bounds: CacheBounds = BOUNDS, clock: StillClock | None = None) -> CachedChats:
    return CachedChats(chats, ResponseCache(bounds, clock or StillClock(0.0)), lambda model: (f"p/{model}",))


async def streamed(chats: CachedChats, request: ChatRequest = ASKED) -> list[ChatEvent]:
    return [event async for batch in chats.stream(request, None) for event in batch]


async def test_without_the_wish_every_request_is_asked_anew() -> None:
    chats = Counting()
    for _ in range(2):
        await cached(chats).complete(replace(ASKED, response_caching=ResponseCaching()), None)
    assert chats.asked == 2


async def test_the_same_request_gets_the_same_answer_marked_as_such_and_without_usage() -> None:
    chats = Counting()
    wrapped = cached(chats)
    first, second = await wrapped.complete(ASKED, None), await wrapped.complete(ASKED, None)
    assert chats.asked == 1
    assert (first.cached, first.usage) == (False, SPENT)
    assert second == replace(first, cached=True, usage=NOTHING)
    assert Usage(0, 0, 0, 0, 0, 0, cost_known=True, calls=0) == NOTHING


async def test_what_was_streamed_is_given_whole_and_the_other_way_round() -> None:
    chats = Counting()
    wrapped = cached(chats)
    await streamed(wrapped)
    assert (await wrapped.complete(ASKED, None)).message.text() == "answer 1"
    events = await streamed(wrapped)
    assert chats.asked == 1
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "answer 1"
    assert isinstance(events[0], Started) and UsageReport(NOTHING) in events
    assert isinstance(events[-1], Finished) and events[-1].result.cached and events[-1].result.usage == NOTHING


@pytest.mark.parametrize("finish", [f for f in FinishReason if f not in (FinishReason.STOP, FinishReason.TOOL_CALLS)])
async def test_an_answer_that_is_not_whole_is_not_kept(finish: FinishReason) -> None:
    chats = Counting(finish_reason=finish)
    wrapped = cached(chats)
    await wrapped.complete(ASKED, None)
    await streamed(wrapped)
    await wrapped.complete(ASKED, None)
    assert chats.asked == 3


async def test_neither_failures_nor_cut_streams_nor_answers_of_two_models_are_kept() -> None:
    chats = Counting()
    wrapped = cached(chats)
    chats.fault = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):
        await wrapped.complete(ASKED, None)
    chats.fault, chats.cut = None, True
    with pytest.raises(StreamIncomplete):
        await streamed(wrapped)
    chats.cut, chats.fields = False, {"seams": (Seam(ProviderUnavailable("down"), "q", "n", 3),)}
    await wrapped.complete(ASKED, None)
    assert not (await wrapped.complete(ASKED, None)).cached


async def test_a_reader_that_leaves_a_stream_leaves_nothing_in_the_cache() -> None:
    chats = Counting()
    wrapped = cached(chats)
    stream = wrapped.stream(ASKED, None)
    await anext(stream)
    await stream.aclose()
    assert not (await wrapped.complete(ASKED, None)).cached


async def test_a_tenant_never_gets_an_answer_of_another() -> None:
    chats = Counting()
    wrapped = cached(chats)
    for tenant in ("one", "two"):
        with call_scope(Call(tenant=tenant)):
            assert not (await wrapped.complete(ASKED, None)).cached
    assert chats.asked == 2


async def test_an_answer_grows_too_old_for_a_request_and_then_for_the_cache() -> None:
    chats, clock = Counting(), StillClock(0.0)
    wrapped = cached(chats, CacheBounds(age=100), clock)
    await wrapped.complete(ASKED, None)
    clock.time = 50
    impatient = replace(ASKED, response_caching=ResponseCaching(enabled=True, max_age_seconds=49))
    assert (await wrapped.complete(replace(impatient, response_caching=ResponseCaching(True, 50)), None)).cached
    assert not (await wrapped.complete(impatient, None)).cached, "and from now on the newer one is there"
    clock.time = 150
    assert (await wrapped.complete(ASKED, None)).cached
    clock.time = 151
    assert not (await wrapped.complete(ASKED, None)).cached


async def test_a_negative_age_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="max_age_seconds: -1 is negative"):
        await cached(Counting()).complete(replace(ASKED, response_caching=ResponseCaching(True, -1)), None)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3000)), max_size=60), st.integers(1, 6), st.integers(3000, 20_000))
def test_the_cache_never_holds_more_than_it_may(kept: list[tuple[int, int]], entries: int, size: int) -> None:
    cache = ResponseCache(CacheBounds(entries, size), StillClock(0.0))
    for number, length in kept:
        cache.keep(bytes([number]), answer("x" * length))
        assert len(cache) <= entries and cache.size <= size
    while len(cache):
        cache._drop(next(iter(cache._entries)))
    assert cache.size == 0


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    cache = ResponseCache(CacheBounds(entries=2), StillClock(0.0))
    cache.keep(b"a", answer("a"))
    cache.keep(b"b", answer("b"))
    assert cache.find(b"a", 0)
    cache.keep(b"c", answer("c"))
    assert cache.find(b"a", 0) and cache.find(b"c", 0) and not cache.find(b"b", 0)


SAME = [
    {"request_id": "another"},
    {"metadata": {"run": "another"}},
    {"budget_key": "another"},
    {"response_caching": ResponseCaching(True, 5)},
    {"model": "another name of the same targets"},
]
MESSAGE = ASKED.messages[0]
OTHERS = {
    "messages": [
        (replace(MESSAGE, role=Role.SYSTEM),),
        (MESSAGE, MESSAGE),
        (replace(MESSAGE, parts=(TextPart("hell"), TextPart("o"))),),
        (replace(MESSAGE, parts=(JsonPart(b"hello"),)),),
        (replace(MESSAGE, parts=(ImagePart(Blob(url="hello")),)),),
        (replace(MESSAGE, tool_calls=(ToolCall("1", "f", b"{}"),)),),
    ],
    "tools": [(ToolDefinition("f"),), (ToolDefinition("f", "g"),), (ToolDefinition("fg"),), (ToolDefinition("f", "", b"{}"),)],
    "tool_choice": [ToolChoice(ToolChoiceMode.AUTO), ToolChoice(ToolChoiceMode.NAMED, "f")],
    "response_format": [ResponseFormat(FormatKind.TEXT), ResponseFormat(FormatKind.JSON_OBJECT)],
    "sampling": [Sampling(temperature=0.0), Sampling(top_p=0.0), Sampling(seed=0), Sampling(reasoning_effort=ReasoningEffort.LOW)],
    "parallel_tool_calls": [True, False],
}


def test_only_what_cannot_change_an_answer_makes_no_difference() -> None:
    key = cache_key("t", ASKED, ("p/m",))
    assert {cache_key("t", replace(ASKED, **change), ("p/m",)) for change in SAME} == {key}  # type: ignore[arg-type]
    told_apart = {field for change in SAME for field in change} | set(OTHERS) | {"prompt_caching"}
    assert {field.name for field in dataclasses.fields(ChatRequest)} == told_apart, "a new field: does it change answers?"
    keys = [cache_key("t", replace(ASKED, **{field: value}), ("p/m",)) for field, values in OTHERS.items() for value in values]  # type: ignore[arg-type]
    keys += [cache_key("u", ASKED, ("p/m",)), cache_key("t", ASKED, ("p/n",)), cache_key("t", ASKED, ("p/m", "p/n"))]
    assert len({key, *keys}) == 1 + len(keys)
    assert cache_key("t", ASKED, ("p/n", "p/m")) == cache_key("t", ASKED, ("p/m", "p/n"))
    assert cache_key("t", replace(ASKED, prompt_caching=PromptCaching()), ("p/m",)) == key
