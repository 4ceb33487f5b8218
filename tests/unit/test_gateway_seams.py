"""Answers that break off and are gone on with by another target: what the reader sees, whatever breaks when."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    Fault,
    ProviderCredentialsRefused,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderTimeout,
    ProviderUnavailable,
    StreamIncomplete,
)
from kit.provider_double import ANY, Bench, Double, finish
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.openai import Dialect, OpenAiWire
from provider_gateway.domain.answers import (
    ChatEvent,
    Finished,
    ReasoningDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallStarted,
    Usage,
    UsageReport,
)
from provider_gateway.domain.chat import (
    ChatRequest,
    Citation,
    FormatKind,
    Message,
    Notes,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
)
from provider_gateway.domain.models import Capabilities, ModelTraits, Price
from provider_gateway.domain.routing import Alias, Choice
from provider_gateway.operations.ports import ModelCall
from provider_gateway.operations.retries import RetryPolicy
from provider_gateway.operations.seams import LEAST_ECHO

Batches = AsyncGenerator[Sequence[ChatEvent], None]
ABLE = ModelTraits(Capabilities(continuing=True))
SPEECH = "The quick  brown fox\n\njumps over the lazy dog. "


@dataclass(frozen=True)
class Break:
    """Where a piece of a speech breaks off, and why; no pieces at all for zero."""

    after: int
    fault: Fault


def speaker(
    name: str, breaks: Sequence[Break | None] = (), speech: str = SPEECH, before: Sequence[ChatEvent] = (), echoes: bool = False
) -> Double:
    """Says the speech letter by letter from where it was begun, as models do that are shown no white space at the end of that.

    The n-th break is that of its n-th stream; afterwards it speaks to the end.
    """

    async def play(number: int) -> Batches:
        last = double.calls[-1].request.messages[-1]
        begun = last.text() if last.role is Role.ASSISTANT else ""
        assert begun == begun.rstrip()
        assert speech.startswith(begun)
        rest = speech if echoes and len(begun) >= LEAST_ECHO else speech[len(begun) :]
        breaks_ = breaks[number] if number < len(breaks) else None
        yield [Started(name, "m", f"{name}-{number}"), *before]
        for place, letter in enumerate(rest):
            if breaks_ is not None and place >= breaks_.after:
                raise breaks_.fault
            yield [TextDelta(letter)]
        if breaks_ is not None:
            raise breaks_.fault
        yield finish(rest)

    double = Double(play, name)
    return double


def bench(*speakers: Double, continues: bool = True, traits: ModelTraits = ABLE, **fields: Any) -> Bench:
    choices = tuple(Choice(f"{each.name}/m", tier=tier + 1) for tier, each in enumerate(speakers))
    first, *others = speakers
    return Bench(
        first,
        others=others,
        traits=traits,
        others_traits={each.name: traits for each in others},
        alias=Alias(choices, continues),
        **fields,
    )


async def heard(bench_: Bench, request: ChatRequest = ANY) -> tuple[list[ChatEvent], Fault | None]:
    """What the reader gets, and how it ends."""
    events: list[ChatEvent] = []
    try:
        async for batch in bench_.chats().stream(request, None):
            events += batch
    except Fault as fault:
        return events, fault
    return events, None


def text_of(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.feature("P12")
async def test_another_target_goes_on_at_a_marked_seam_and_the_answer_is_whole() -> None:
    cut = StreamIncomplete("cut")
    events, fault = await heard(bench(speaker("a", [Break(10, cut)]), speaker("b")))
    assert fault is None
    assert text_of(events) == SPEECH
    assert [event for event in events if isinstance(event, Seam)] == [Seam(cut, "b", "m", 10)]
    assert sum(isinstance(event, Started) for event in events) == 1
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result.message.text() == SPEECH
    assert last.result.seams == (Seam(cut, "b", "m", 10),)
    place = next(place for place, event in enumerate(events) if isinstance(event, Seam))
    assert text_of(events[:place]) == SPEECH[:10]


@pytest.mark.feature("P12")
@pytest.mark.parametrize("more", [" over the lazy dog", " and the quick", " over", ""])
async def test_what_a_server_says_again_of_what_it_was_given_is_not_delivered_twice(more: str) -> None:
    """Some give all of it back before they go on; one that only begins alike has something to say."""
    begun = "The quick brown fox jumps"

    async def cut(number: int) -> Batches:
        yield [Started("a", "m", "r"), TextDelta(begun + " ")]
        raise StreamIncomplete("cut")

    async def echo(number: int) -> Batches:
        yield [
            Started("b", "m", "r"),
            TextDelta("The quick "),
            TextDelta("brown fox"),
            UsageReport(Usage(1, 1)),
            TextDelta(" jumps" + more),
        ]
        yield finish(begun + more)

    async def alike(number: int) -> Batches:
        yield [Started("b", "m", "r"), TextDelta("The quick ")]
        yield finish("The quick ")

    events, _ = await heard(bench(Double(cut, "a"), Double(echo, "b")))
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result.message.text() == text_of(events) == begun + (more or " ")
    events, _ = await heard(bench(Double(cut, "a"), Double(alike, "b")))
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result.message.text() == text_of(events) == begun + " The quick "


@pytest.mark.feature("P12")
async def test_the_same_target_goes_on_where_there_is_no_other() -> None:
    events, fault = await heard(bench(speaker("a", [Break(7, ProviderTimeout("stalled"))])))
    assert (fault, text_of(events)) == (None, SPEECH)


@pytest.mark.feature("P12")
@pytest.mark.parametrize(
    "change",
    [
        {"continues": False},
        {"traits": ModelTraits(Capabilities())},
        {"traits": ModelTraits()},
    ],
)
async def test_without_leave_or_ability_the_stream_ends_with_its_own_fault_and_what_was_produced(change: dict[str, Any]) -> None:
    cut = StreamIncomplete("cut")
    b = speaker("b")
    events, fault = await heard(bench(speaker("a", [Break(10, cut)]), b, **change))
    assert fault is cut
    assert text_of(events) == SPEECH[:10]
    assert b.calls == []


@pytest.mark.feature("P12")
@pytest.mark.parametrize("before", [ReasoningDelta("hm"), ToolCallStarted(0, "c", "t")])
async def test_what_is_more_than_text_is_not_gone_on_with(before: ChatEvent) -> None:
    cut, b = StreamIncomplete("cut"), speaker("b")
    _, fault = await heard(bench(speaker("a", [Break(10, cut)], before=[before]), b))
    assert fault is cut
    assert b.calls == []


@pytest.mark.feature("P12")
@pytest.mark.parametrize(
    "request_",
    [
        replace(ANY, response_format=ResponseFormat(FormatKind.JSON_OBJECT)),
        replace(ANY, messages=(*ANY.messages, Message(Role.ASSISTANT, (TextPart("The"),)))),
    ],
)
async def test_an_answer_held_to_a_form_or_begun_by_the_caller_is_not_gone_on_with(request_: ChatRequest) -> None:
    cut, b = StreamIncomplete("cut"), speaker("b")
    _, fault = await heard(bench(speaker("a", [Break(3, cut)]), b), request_)
    assert fault is cut
    assert b.calls == []


@pytest.mark.feature("P12")
@pytest.mark.parametrize("second", [ProviderRequestRefused("no prefill"), ProviderCredentialsRefused("x"), ProviderRateLimited("x")])
async def test_when_nobody_can_go_on_the_first_fault_is_the_end_of_the_stream(second: Fault) -> None:
    cut = StreamIncomplete("cut")
    a, b = speaker("a", [Break(10, cut), Break(0, second)]), speaker("b", [Break(0, second)] * 9)
    events, fault = await heard(bench(a, b, policy=RetryPolicy(attempts=2)))
    assert fault is cut
    assert text_of(events) == SPEECH[:10]
    assert not any(isinstance(event, Seam) for event in events)


@pytest.mark.feature("P12")
@pytest.mark.feature("P22")
async def test_usage_is_that_of_all_pieces_and_estimated_where_a_piece_told_none() -> None:
    async def first(number: int) -> Batches:
        yield [Started("a", "m", "r"), UsageReport(Usage(100, 1)), TextDelta("Hello "), UsageReport(Usage(100, 2))]
        raise StreamIncomplete("cut")

    traits = ModelTraits(Capabilities(continuing=True), Price(1, 1))
    events, fault = await heard(bench(Double(first, "a"), speaker("b", speech="Hello there"), traits=traits))
    assert fault is None
    summed = Usage(101, 4, cost_nano_usd=105, cost_known=True, calls=2)
    assert [event.usage for event in events if isinstance(event, UsageReport)][-1] == summed
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.result.usage, last.result.warnings) == (summed, ())

    events, _ = await heard(bench(speaker("a", [Break(10, StreamIncomplete("cut"))]), speaker("b"), traits=traits))
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result.usage.calls == 2
    assert last.result.usage.output_tokens == 2 + 3
    assert [warning.field for warning in last.result.warnings] == ["usage"]


@pytest.mark.feature("P12")
async def test_what_is_left_of_the_output_limit_is_asked_for() -> None:
    b = speaker("b")
    await heard(bench(speaker("a", [Break(20, StreamIncomplete("cut"))]), b), replace(ANY, sampling=Sampling(max_output_tokens=100)))
    assert b.calls[0].request.sampling.max_output_tokens == 95


@pytest.mark.feature("P12")
async def test_citations_move_with_the_text_that_they_are_of() -> None:
    async def citing(number: int) -> Batches:
        yield [Started("b", "m", "r"), TextDelta(" and more")]
        done = finish(" and more")
        last = done[-1]
        assert isinstance(last, Finished)
        notes = Notes(citations=(Citation("https://x", start=1, end=4),))
        message = Message(Role.ASSISTANT, (TextPart(" and more", notes),))
        yield [Finished(replace(last.result, message=message))]

    async def cut(number: int) -> Batches:
        yield [Started("a", "m", "r"), TextDelta("Much ")]
        raise StreamIncomplete("cut")

    events, _ = await heard(bench(Double(cut, "a"), Double(citing, "b")))
    last = events[-1]
    assert isinstance(last, Finished)
    (part,) = last.result.message.parts
    assert isinstance(part, TextPart)
    assert part.text == text_of(events) == "Much and more"
    (citation,) = part.citations
    assert part.text[citation.start : citation.end] == "and"


@pytest.mark.feature("P12")
async def test_a_fault_after_the_end_of_the_answer_is_gone_on_with_by_nobody() -> None:
    async def play(number: int) -> Batches:
        yield [Started("a", "m", "r"), TextDelta(SPEECH)]
        yield finish(SPEECH)
        raise StreamIncomplete("late")

    b = speaker("b")
    events, fault = await heard(bench(Double(play, "a"), b))
    assert isinstance(fault, StreamIncomplete)
    assert (text_of(events), b.calls) == (SPEECH, [])


faults = st.sampled_from(
    [StreamIncomplete, ProviderUnavailable, ProviderTimeout, ProviderRateLimited, ProviderRequestRefused, ProviderCredentialsRefused]
)
breaks = st.lists(st.none() | st.builds(lambda after, kind: Break(after, kind("x")), st.integers(0, 50), faults), max_size=4)


@pytest.mark.feature("P12")
@given(st.lists(breaks, min_size=1, max_size=4), st.booleans(), st.integers(1, 5), st.booleans())
async def test_text_is_never_delivered_twice_nor_left_out_whatever_breaks_when(
    schedule: list[list[Break | None]], continues: bool, attempts: int, echoes: bool
) -> None:
    speakers = [speaker(f"s{number}", own, echoes=echoes) for number, own in enumerate(schedule)]
    events, fault = await heard(bench(*speakers, continues=continues, policy=RetryPolicy(attempts=attempts)))
    said = text_of(events)
    assert SPEECH.startswith(said)
    seams = [event for event in events if isinstance(event, Seam)]
    for seam in seams:
        place = events.index(seam)
        assert len(text_of(events[:place])) == seam.text_characters
    assert continues or not seams
    assert sum(isinstance(event, Started) for event in events) <= 1
    if fault is None:
        last = events[-1]
        assert isinstance(last, Finished)
        assert last.result.message.text() == said == SPEECH
        assert last.result.seams == tuple(seams)
        assert last.result.usage.calls == 1 + len(seams)
    else:
        assert not any(isinstance(event, Finished) for event in events)
    assert all(double.closed == len(double.calls) for double in speakers)
    assert sum(len(double.calls) for double in speakers) <= len(speakers) + attempts - 1


def begun_call() -> ModelCall:
    messages = (Message(Role.USER, (TextPart("hi"),)), Message(Role.ASSISTANT, (TextPart("Hello wor"),)))
    return ModelCall(ChatRequest(messages), "m")


@pytest.mark.feature("P12")
@pytest.mark.parametrize(
    ("way", "last", "fields"),
    [
        ("last_message", {}, {}),
        ("prefix", {"prefix": True}, {}),
        ("continue_final_message", {}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_servers_are_told_in_their_own_way_to_go_on(way: str, last: dict[str, Any], fields: dict[str, Any]) -> None:
    import json

    body = json.loads(OpenAiWire("p", Dialect(continue_by=way)).encode(begun_call(), stream=True).body)
    assert body["messages"][-1] == {"role": "assistant", "content": "Hello wor"} | last
    assert {name: body[name] for name in ("continue_final_message", "add_generation_prompt") if name in body} == fields
    body = json.loads(AnthropicWire("p").encode(begun_call(), stream=True).body)
    assert body["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "Hello wor"}]}
