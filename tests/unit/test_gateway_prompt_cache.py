"""Marks in prompts: where, how many, how long, and that what they keep stays the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.openai_responses import OpenAiResponsesWire
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.chat import (
    CacheLifetime,
    CacheMark,
    CachingMode,
    ChatRequest,
    Message,
    Notes,
    OpaqueState,
    PromptCaching,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from provider_gateway.domain.models import Price
from provider_gateway.domain.prompt_cache import END, LONG_SYSTEM_TOKENS, cache_plan, settled
from provider_gateway.operations.ports import ModelCall

pytestmark = pytest.mark.feature("P17")

AUTO, EXPLICIT, OFF = PromptCaching(CachingMode.AUTO), PromptCaching(CachingMode.EXPLICIT), PromptCaching(CachingMode.OFF)
FIVE, HOUR = CacheLifetime.FIVE_MINUTES, CacheLifetime.ONE_HOUR
LONG = "rule " * LONG_SYSTEM_TOKENS
SIGNED = ReasoningPart("hm", OpaqueState("anthropic", "signature", b"S"))
TOOLS = (ToolDefinition("zoo"), ToolDefinition("ark"))


def text(said: str, mark: CacheLifetime | None = None) -> TextPart:
    return TextPart(said) if mark is None else TextPart(said, Notes(CacheMark(mark)))


def user(*said: str) -> Message:
    return Message(Role.USER, tuple(TextPart(one) for one in said))


def answer(said: str, *calls: str) -> Message:
    return Message(Role.ASSISTANT, (SIGNED, TextPart(said)), tuple(ToolCall(name, "ark", b"{}") for name in calls))


def result(call: str) -> Message:
    return Message(Role.TOOL, (TextPart("done"),), tool_call_id=call, tool_name="ark")


SYSTEM = Message(Role.SYSTEM, (TextPart(LONG), TextPart("short")))
CHAT = ChatRequest((SYSTEM, user("a"), answer("b", "t1"), result("t1"), answer("c"), user("d")), tools=TOOLS)


def body_of(request: ChatRequest, caching: PromptCaching) -> dict[str, Any]:
    return json.loads(AnthropicWire("p").encode(ModelCall(request, "claude-sonnet-4-5", caching=caching), stream=False).body)


def warned(request: ChatRequest, caching: PromptCaching) -> list[str]:
    call = ModelCall(request, "claude-sonnet-4-5", caching=caching)
    return [warning.field for warning in AnthropicWire("p").encode(call, stream=False).warnings]


def marks_in(node: Any) -> list[dict[str, str]]:
    """All marks of a body, in the order in which the prompt is read."""
    if isinstance(node, list):
        return [mark for item in node for mark in marks_in(item)]
    if not isinstance(node, dict):
        return []
    own = [node["cache_control"]] if "cache_control" in node else []
    return [mark for key in ("tools", "system", "messages", "content") for mark in marks_in(node.get(key))] + own


# Where the gateway sets marks


def test_the_gateway_marks_the_last_tool_the_last_long_system_part_and_the_last_two_answers() -> None:
    body = body_of(CHAT, AUTO)
    assert [tool["name"] for tool in body["tools"]] == ["ark", "zoo"]
    assert ["cache_control" in tool for tool in body["tools"]] == [False, True]
    assert ["cache_control" in part for part in body["system"]] == [True, False]
    assert [[block["type"] for block in m["content"] if "cache_control" in block] for m in body["messages"]] == [
        [],
        ["tool_use"],
        [],
        ["text"],
        [],
    ]
    assert marks_in(body) == [{"type": "ephemeral"}] * 4


def test_there_is_nothing_to_mark_in_a_first_short_question() -> None:
    assert marks_in(body_of(ChatRequest((Message(Role.SYSTEM, (TextPart("be brief"),)), user("hi"))), AUTO)) == []


def test_an_answer_that_is_to_be_continued_is_part_of_the_newest_turn() -> None:
    request = ChatRequest((user("a"), answer("b"), user("c"), Message(Role.ASSISTANT, (TextPart("Well, "),))))
    assert cache_plan(request, AUTO, 4).parts == {1: {END: FIVE}}


def test_the_gateways_marks_last_as_long_as_asked_for() -> None:
    assert marks_in(body_of(CHAT, PromptCaching(CachingMode.AUTO, HOUR))) == [{"type": "ephemeral", "ttl": "1h"}] * 4


# What callers mark


def test_a_callers_marks_stand_where_they_were_set() -> None:
    request = ChatRequest(
        (Message(Role.SYSTEM, (text("s", HOUR), text("t"))), Message(Role.USER, (text("u"), text("v", FIVE), text("w")))),
        tools=(ToolDefinition("zoo", cache=CacheMark(HOUR)), ToolDefinition("ark")),
    )
    body = body_of(request, EXPLICIT)
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, {"type": "ephemeral", "ttl": "1h"}]
    assert [part.get("cache_control") for part in body["system"]] == [{"type": "ephemeral", "ttl": "1h"}, None]
    assert [part.get("cache_control") for part in body["messages"][0]["content"]] == [None, {"type": "ephemeral"}, None]
    assert warned(request, EXPLICIT) == []


def test_a_mark_in_a_tools_result_marks_the_result_and_one_on_a_thought_what_was_before() -> None:
    marked = replace(SIGNED, notes=Notes(CacheMark()))
    thought = Message(Role.ASSISTANT, (TextPart("x"), marked, TextPart("y")), (ToolCall("t", "ark", b"{}"),))
    done = Message(Role.TOOL, (text("a", FIVE), text("b")), tool_call_id="t", tool_name="ark")
    body = body_of(ChatRequest((user("u"), thought, done)), EXPLICIT)
    assert ["cache_control" in block for block in body["messages"][1]["content"]] == [True, False, False, False]
    assert ["cache_control" in block for block in body["messages"][2]["content"]] == [True]


def test_a_mark_that_nothing_can_bear_is_warned_of() -> None:
    request = ChatRequest((user("u"), Message(Role.ASSISTANT, (replace(SIGNED, notes=Notes(CacheMark())), TextPart("y")))))
    assert warned(request, EXPLICIT) == ["messages[1].parts[0].cache"]


def test_more_marks_than_the_model_takes_lose_the_short_lived_and_the_early_ones_with_a_warning() -> None:
    lifetimes = [HOUR, FIVE, FIVE, FIVE, FIVE, FIVE]
    request = ChatRequest((Message(Role.USER, tuple(text(str(n), lifetime) for n, lifetime in enumerate(lifetimes))),))
    assert cache_plan(request, EXPLICIT, 4).parts == {0: {0: HOUR, 3: FIVE, 4: FIVE, 5: FIVE}}
    assert warned(request, EXPLICIT) == ["messages[0].parts[2].cache", "messages[0].parts[1].cache"]


def test_an_hour_after_five_minutes_is_shortened_with_a_warning_and_the_gateways_own_marks_make_room_for_an_hour() -> None:
    request = ChatRequest((Message(Role.USER, (text("a", FIVE), text("b", HOUR))),))
    assert cache_plan(request, EXPLICIT, 4).parts == {0: {0: FIVE, 1: FIVE}}
    assert warned(request, EXPLICIT) == ["messages[0].parts[1].cache"]
    hour = replace(CHAT, messages=(*CHAT.messages[:-1], Message(Role.USER, (text("d", HOUR),))))
    assert marks_in(body_of(hour, AUTO)) == [{"type": "ephemeral", "ttl": "1h"}] * 4
    assert warned(hour, AUTO) == []


def test_marks_are_left_out_with_a_warning_where_caching_is_off_or_unknown_to_the_model() -> None:
    request = ChatRequest((Message(Role.USER, (text("a", FIVE),)),), tools=(ToolDefinition("t", cache=CacheMark()),))
    assert marks_in(body_of(request, OFF)) == []
    assert warned(request, OFF) == ["tools[0].cache", "messages[0].parts[0].cache"]
    assert warned(CHAT, OFF) == []
    for wire in (OpenAiWire("p"), OpenAiResponsesWire("p"), GeminiWire("p")):
        told = wire.encode(ModelCall(replace(request, prompt_caching=replace(OFF, lifetime=HOUR)), "m"), stream=False).warnings
        fields = [warning.field for warning in told]
        assert fields == ["tools[0].cache", "messages[0].parts[0].cache", "prompt_caching.mode", "prompt_caching.lifetime"]


@given(st.sampled_from(CachingMode), st.sampled_from(CachingMode), st.sampled_from(CacheLifetime), st.booleans())
def test_a_request_decides_then_the_gateway_and_the_model_must_be_able(
    wished: CachingMode, default: CachingMode, lifetime: CacheLifetime, able: bool
) -> None:
    found = settled(PromptCaching(wished, lifetime), PromptCaching(default, HOUR), able)
    assert found.mode is (CachingMode.OFF if not able else default if wished is CachingMode.UNSPECIFIED else wished)
    assert found.lifetime is (HOUR if lifetime is CacheLifetime.UNSPECIFIED else lifetime)


def test_an_hour_costs_more_to_write_than_five_minutes() -> None:
    price = Price(input=1000, output=0, cache_read=100, cache_write=1250)
    assert price.of(Usage(10, 0, cache_write_tokens=10)) == 12_500
    assert price.of(Usage(10, 0, cache_write_tokens=10, cache_hour_tokens=10)) == 20_000


# Laws

_MARK = st.none() | st.sampled_from([FIVE, HOUR])
_TEXTS = st.sampled_from(["", " ", "a", "bb", LONG])
_PARTS = st.lists(st.builds(text, _TEXTS, _MARK), min_size=1, max_size=3).map(tuple)
_MESSAGES = st.one_of(
    st.builds(lambda parts: Message(Role.SYSTEM, parts), _PARTS),
    st.builds(lambda parts: Message(Role.USER, parts), _PARTS),
    st.builds(lambda parts: Message(Role.ASSISTANT, (SIGNED, *parts)), _PARTS),
)
_TOOLS = st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True).flatmap(
    lambda names: st.tuples(*(st.builds(lambda n, m: ToolDefinition(n, cache=m and CacheMark(m)), st.just(name), _MARK) for name in names))
)
_REQUESTS = st.builds(
    lambda messages, tools: ChatRequest(tuple(messages), tools=tools), st.lists(_MESSAGES, min_size=1, max_size=8), _TOOLS
)
_CACHINGS = st.builds(PromptCaching, st.sampled_from([CachingMode.AUTO, CachingMode.EXPLICIT]), st.sampled_from(CacheLifetime))


@given(_REQUESTS, _CACHINGS, st.integers(0, 5))
def test_there_are_never_more_marks_than_the_model_takes_and_none_outlasts_one_before_it(
    request: ChatRequest, caching: PromptCaching, most: int
) -> None:
    plan = cache_plan(request, caching, most)
    assert len(plan.tools) + sum(map(len, plan.parts.values())) <= most
    found = marks_in(body_of(request, caching))
    assert len(found) <= 4
    hours = ["ttl" in mark for mark in found]
    assert hours == sorted(hours, reverse=True)


_TURNS = st.lists(
    st.one_of(
        st.builds(lambda said: (user(said), answer("ok")), st.sampled_from(["a", "b"])),
        st.builds(lambda n: (user("do"), answer("first", f"t{n}"), result(f"t{n}"), answer("done")), st.integers(0, 9)),
    ),
    min_size=1,
    max_size=6,
)


@given(_TURNS, st.permutations(TOOLS))
def test_each_request_of_a_growing_conversation_keeps_the_prefix_of_the_one_before_and_marks_its_end(
    turns: list[tuple[Message, ...]], shuffled: list[ToolDefinition]
) -> None:
    """What one request put into the cache is found by the next one, wherever the tools came from and however long the turn was."""
    history: tuple[Message, ...] = (SYSTEM,)
    before: tuple[list[Any], int] | None = None
    messages = [message for turn in turns for message in turn]
    for at, message in enumerate(messages):
        if message.role is Role.ASSISTANT:  # the request that this message answered
            request = ChatRequest(history, tools=tuple(shuffled if at % 2 else TOOLS))
            blocks = _read(body_of(request, AUTO))
            marked = [place for place, block in enumerate(blocks) if "cache_control" in block]
            if before is not None:
                assert _unmarked(blocks[: before[1] + 1]) == before[0]
                assert before[1] in marked
            before = (_unmarked(blocks[: marked[-1] + 1]), marked[-1])
        history += (message,)


def _read(body: dict[str, Any]) -> list[Any]:
    """The blocks of a prompt in the order of reading, each with who speaks it."""
    spoken = [block | {"role": message["role"]} for message in body["messages"] for block in message["content"]]
    return [*body["tools"], *body["system"], *spoken]


def _unmarked(blocks: list[Any]) -> list[str]:
    return [json.dumps({key: value for key, value in block.items() if key != "cache_control"}) for block in blocks]
