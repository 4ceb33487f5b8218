"""The estimate of tokens: what it is pinned to, and what holds for every request."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.provider_recordings import ABSENT, Recording, read_openai, recordings
from kit.provider_requests import MESSAGES, REQUESTS
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    Message,
    OpaqueState,
    Part,
    ReasoningPart,
    ResponseFormat,
    Role,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from provider_gateway.domain.estimate import estimate_input, estimate_inputs, estimate_text

pytestmark = pytest.mark.feature("P20")
SCHEMA = b'{"type":"object","properties":{"city":{"type":"string"}}}'


def user(*parts: Part) -> Message:
    return Message(Role.USER, parts)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("a" * 4000, 1000), ("東京", 2), ("Привет", 4), ("🌍", 2), ("Grüß Gott", 4)],
)
def test_a_text_weighs_what_it_is_pinned_to(text: str, tokens: int) -> None:
    assert estimate_text(text) == tokens


@given(st.text(), st.text())
def test_two_texts_weigh_together_what_they_weigh_apart_or_one_token_less(first: str, second: str) -> None:
    apart = estimate_text(first) + estimate_text(second)
    assert max(estimate_text(first), estimate_text(second)) <= estimate_text(first + second)
    assert apart - 1 <= estimate_text(first + second) <= apart


def test_a_text_that_is_not_valid_unicode_weighs_something() -> None:
    assert estimate_text("\ud800") >= 1


def test_the_overheads_of_a_request_are_pinned() -> None:
    """Change these only together with docs/configuration.md: budgets that were set with them in mind change too."""
    plain = ChatRequest((user(TextPart("hi")),))
    assert estimate_input(plain) == 3 + 4 + 1
    tools = (ToolDefinition("weather", "Tells the weather.", SCHEMA),)
    assert estimate_input(replace(plain, tools=tools)) == 8 + 12 + 2 + 5 + 15
    call = ToolCall("call_1", "weather", b'{"city":"Paris"}')
    assert estimate_input(ChatRequest((Message(Role.ASSISTANT, tool_calls=(call,)),))) == 3 + 4 + 8 + 2 + 4
    assert estimate_input(ChatRequest((user(ImagePart(Blob(url="https://x"))),))) == 3 + 4 + 1200
    assert estimate_input(replace(plain, response_format=ResponseFormat(FormatKind.JSON_SCHEMA, schema=SCHEMA))) == 8 + 15


def test_a_document_weighs_its_text_where_it_is_text_and_else_at_least_a_page_or_two() -> None:
    def weight(blob: Blob) -> int:
        return estimate_input(ChatRequest((user(DocumentPart(blob)),))) - 7

    assert weight(Blob(data=b"a" * 400, media_type="text/plain")) == 100
    assert weight(Blob(data=b"%PDF", media_type="application/pdf")) == 3000
    assert weight(Blob(data=b"x" * 320_000, media_type="application/pdf")) == 10_000
    assert weight(Blob(url="https://x/y.pdf")) == 3000


def test_reasoning_weighs_its_text_and_where_that_is_hidden_what_stands_for_it() -> None:
    def weight(part: ReasoningPart) -> int:
        return estimate_input(ChatRequest((Message(Role.ASSISTANT, (part,)),))) - 7

    state = OpaqueState("anthropic", "signature", b"s" * 400)
    assert weight(ReasoningPart("abcd", state)) == 1
    assert weight(ReasoningPart("", state)) == 100


@given(REQUESTS, MESSAGES)
def test_a_longer_conversation_never_weighs_less(request: ChatRequest, message: Message) -> None:
    longer = replace(request, messages=(*request.messages, message))
    assert estimate_input(longer) >= estimate_input(request) + 4


def test_inputs_given_as_tokens_are_counted() -> None:
    assert estimate_inputs(["abcd", (7, 8, 9), ""]) == 4


def is_plain(recording: Recording) -> bool:
    """Whether it is a conversation in text alone, that OpenAI itself counted."""
    request = recording.request
    if recording.status != 200 or recording.vendor != "openai" or request.get("tools") or request.get("response_format"):
        return False
    return all(isinstance(message.get("content"), str) for message in request["messages"])


PLAIN = [recording for recording in recordings("openai") if is_plain(recording)]


@pytest.mark.skipif(not PLAIN, reason=ABSENT)
def test_conversations_in_text_weigh_about_what_the_vendor_counted() -> None:
    for recording in PLAIN:
        messages = tuple(user(TextPart(m["content"])) for m in recording.request["messages"])
        counted = read_openai(recording).usage.get("prompt_tokens")
        assert counted is None or 0.7 * counted <= estimate_input(ChatRequest(messages)) <= 2 * counted, recording.id
