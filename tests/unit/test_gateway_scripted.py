"""The scripted provider: what it answers, that it answers so again, and what it lets go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chassis.faults import ProviderRateLimited, ProviderRequestRefused, ProviderUnavailable, SettingsInvalid, StreamIncomplete
from kit.provider_decoding import check_order, said
from kit.provider_double import StillClock
from provider_gateway.adapters.scripted import Script, ScriptedProvider, script_of
from provider_gateway.domain.answers import ChatEvent, ChatResult, FinishReason, TextDelta, Usage
from provider_gateway.domain.chat import ChatRequest, Message, Role, TextPart, ToolCall
from provider_gateway.operations.ports import ModelCall

pytestmark = pytest.mark.feature("P24")


def user(text: str) -> Message:
    return Message(Role.USER, (TextPart(text),))


def assistant(text: str, *calls: ToolCall) -> Message:
    return Message(Role.ASSISTANT, (TextPart(text),) if text else (), calls)


def tool(call_id: str, text: str) -> Message:
    return Message(Role.TOOL, (TextPart(text),), tool_call_id=call_id, tool_name="t")


def call_of(*messages: Message, model: str = "m") -> ModelCall:
    return ModelCall(ChatRequest(messages), model)


def provider_of(**script: Any) -> ScriptedProvider:
    return ScriptedProvider("scripted", script_of(script, "script"), StillClock())


async def answer(provider: ScriptedProvider, *messages: Message) -> ChatResult:
    return await provider.complete(call_of(*messages))


async def stream(provider: ScriptedProvider, *messages: Message) -> list[ChatEvent]:
    return [event async for batch in provider.stream(call_of(*messages)) for event in batch]


async def text(provider: ScriptedProvider, *messages: Message) -> str:
    return (await answer(provider, *messages)).message.text()


async def test_without_a_script_it_echoes() -> None:
    assert await text(provider_of(), user("hello")) == "hello"
    scripted = provider_of(turns=[{"text": "one"}])
    assert (await scripted.complete(call_of(user("hello"), model="echo"))).message.text() == "hello"


async def test_turns_answer_by_their_number_in_the_conversation() -> None:
    provider = provider_of(turns=[{"text": "one"}, {"text": "two"}], otherwise="fail")
    conversation: Sequence[Message] = (user("a"),)
    assert await text(provider, *conversation) == "one"
    conversation = (*conversation, assistant("one"), user("b"))
    assert await text(provider, *conversation) == "two"
    assert await text(provider, user("a")) == "one", "a repeated request gets the same answer"
    with pytest.raises(ProviderRequestRefused, match="no turn 2"):
        await text(provider, *conversation, assistant("two"), user("c"))


@pytest.mark.parametrize(("otherwise", "said_"), [("echo", "x"), ("repeat", "one")])
async def test_what_follows_the_last_turn_can_be_chosen(otherwise: str, said_: str) -> None:
    assert await text(provider_of(turns=[{"text": "one"}], otherwise=otherwise), user("a"), assistant("one"), user("x")) == said_


async def test_rules_answer_by_what_was_said_last_and_count_from_there() -> None:
    rules = [
        {"when": {"contains": "refund"}, "turns": [{"calls": [{"name": "t"}]}, {"text": "done"}]},
        {"when": {"matches": "^h[ae]llo$"}, "turns": [{"text": "hi"}]},
        {"when": {"role": "tool", "equals": "18 C"}, "turns": [{"text": "warm"}]},
    ]
    provider = provider_of(rules=rules, turns=[{"text": "other"}])
    assert await text(provider, user("hallo")) == "hi"
    assert await text(provider, user("?")) == "other"
    history = (user("hello"), assistant("hi"), user("a refund!"))
    called = (await answer(provider, *history)).message
    assert [call.name for call in called.tool_calls] == ["t"]
    assert await text(provider, *history, called, tool("call_1_0", "ok")) == "done"
    assert await text(provider, user("?"), assistant("", ToolCall("c", "t", b"{}")), tool("c", "18 C")) == "warm"


async def test_a_turn_has_everything_a_model_can_give_and_streams_as_it_answers() -> None:
    turn = {
        "reasoning": "hm, let me think about that for a while",
        "text": ["Grüß ", "Gott"],
        "calls": [{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "raw", "arguments": "not json", "id": "own"}],
        "usage": {"input": 10, "output": 5, "cache_read": 3, "reasoning": 2},
    }
    events = await stream(provider_of(turns=[turn]), user("a"))
    check_order(events)
    result = await answer(provider_of(turns=[turn]), user("a"))
    assert events[-1].result == result  # type: ignore[union-attr]
    assert said(result.message) == ("Grüß Gott", "hm, let me think about that for a while", "")
    assert result.message.tool_calls == (ToolCall("call_0_0", "weather", b'{"city":"Paris"}'), ToolCall("own", "raw", b"not json"))
    assert result.usage == Usage(10, 5, cache_read_tokens=3, reasoning_tokens=2)
    assert result.finish_reason is FinishReason.TOOL_CALLS


async def test_a_refusal_and_a_length_cut_can_be_played() -> None:
    refused = await answer(provider_of(turns=[{"refusal": "no"}]), user("a"))
    assert (said(refused.message)[2], refused.finish_reason) == ("no", FinishReason.REFUSAL)
    assert (await answer(provider_of(turns=[{"text": "x", "finish": "length"}]), user("a"))).finish_reason is FinishReason.LENGTH


async def test_text_comes_in_pieces_with_delays() -> None:
    clock = StillClock()
    script = Script.model_validate({"turns": [{"text": "abcdefg", "delay_ms": 50}], "piece": 3, "delay_ms": 20})
    provider = ScriptedProvider("scripted", script, clock)
    pieces = [event.text for event in await stream(provider, user("x")) if isinstance(event, TextDelta)]
    assert pieces == ["abc", "def", "g"]
    assert clock.slept == [0.05, 0.02, 0.02]


@pytest.mark.parametrize(
    ("kind", "fault"), [("rate_limited", ProviderRateLimited), ("unavailable", ProviderUnavailable), ("cut", StreamIncomplete)]
)
async def test_faults_are_played(kind: str, fault: type[Exception]) -> None:
    provider = provider_of(turns=[{"text": "x", "fault": kind}])
    for _ in range(2):
        with pytest.raises(fault):
            await answer(provider, user("a"))
        with pytest.raises(fault):
            await stream(provider, user("a"))


async def test_a_fault_can_pass_after_some_attempts_and_say_when_to_come_back() -> None:
    provider = provider_of(turns=[{"text": "x", "fault": {"kind": "rate_limited", "times": 2, "retry_after_ms": 1500}}])
    for _ in range(2):
        with pytest.raises(ProviderRateLimited) as caught:
            await answer(provider, user("a"))
        assert caught.value.retry_after == 1.5
    assert await text(provider, user("a")) == "x"
    with pytest.raises(ProviderRateLimited):
        await answer(provider, user("another conversation"))


async def test_a_stream_can_be_cut_or_stall_after_some_pieces() -> None:
    provider = provider_of(turns=[{"text": "abcdef", "fault": {"kind": "cut", "after_pieces": 2}}], piece=2)
    seen: list[ChatEvent] = []
    with pytest.raises(StreamIncomplete):
        async for batch in provider.stream(call_of(user("a"))):
            seen += batch
    assert "".join(event.text for event in seen if isinstance(event, TextDelta)) == "abcd"
    stalls = provider_of(turns=[{"text": "abcdef", "fault": {"kind": "stall", "after_pieces": 1}}])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream(stalls, user("a")), 0.05)


CONVERSATION = [
    {"role": "system", "text": "be brief"},
    {"role": "user", "text": "weather?"},
    {"role": "assistant", "calls": [{"id": "c1", "name": "weather", "arguments": '{"city": "Paris"}'}]},
    {"role": "tool", "call_id": "c1", "text": "18 C"},
    {"role": "assistant", "text": "18 degrees"},
]
SYSTEM = Message(Role.SYSTEM, (TextPart("be brief"),))


async def test_a_recorded_conversation_is_replayed_and_must_be_met_exactly() -> None:
    provider = provider_of(conversations=[CONVERSATION])
    first = (SYSTEM, user("weather?"))
    called = (await answer(provider, *first)).message
    assert called.tool_calls == (ToolCall("c1", "weather", b'{"city": "Paris"}'),)
    assert await text(provider, *first, called, tool("c1", "18 C")) == "18 degrees"
    spaced = assistant("", ToolCall("c1", "weather", b'{"city":"Paris"}'))
    assert await text(provider, *first, spaced, tool("c1", "18 C")) == "18 degrees", "arguments are compared as JSON"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ((SYSTEM, user("rain?")), r"messages\[1\] differs"),
        ((user("weather?"),), r"messages\[0\] differs"),
        ((SYSTEM, user("weather?"), assistant("x")), r"messages\[2\] differs"),
        ((SYSTEM,), "no answer after message 0"),
    ],
)
async def test_a_request_that_departs_from_the_record_is_told_where(messages: tuple[Message, ...], says: str) -> None:
    with pytest.raises(ProviderRequestRefused, match=says):
        await answer(provider_of(conversations=[CONVERSATION]), *messages)


async def test_a_record_without_system_message_leaves_the_callers_alone() -> None:
    assert (await answer(provider_of(conversations=[CONVERSATION[1:]]), SYSTEM, user("weather?"))).message.tool_calls


async def test_of_several_records_the_one_that_was_met_answers() -> None:
    other = [{"role": "user", "text": "hello"}, {"role": "assistant", "text": "hi"}]
    assert await text(provider_of(conversations=[CONVERSATION, other]), user("hello")) == "hi"


def test_scripts_are_yaml_or_json_files_and_typos_are_named(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("turns:\n  - text: hi\n    fault: {kind: cut, after_pieces: 1}\n")
    assert script_of(str(good), "s").turns[0].text == "hi"
    json_file = tmp_path / "good.json"
    json_file.write_text('{"turns": [{"text": "hi"}]}')
    assert script_of(str(json_file), "s").turns[0].text == "hi"
    bad = tmp_path / "bad.yaml"
    bad.write_text("turns:\n  - txt: hi\n")
    with pytest.raises(SettingsInvalid, match=r"turns\.0\.txt"):
        script_of(str(bad), "s")
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        script_of(str(tmp_path / "none.yaml"), "s")
    bad.write_text("{")
    with pytest.raises(SettingsInvalid, match="is not YAML"):
        script_of(str(bad), "s")


@pytest.mark.feature("P12")
async def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    scripted = provider_of(turns=[{"text": ["Hello ", "world"], "fault": {"kind": "cut", "times": 1, "after_pieces": 1}}], otherwise="fail")
    with pytest.raises(StreamIncomplete):
        await stream(scripted, user("hi"))
    assert await text(scripted, user("hi"), assistant("Hello wo")) == "rld"
