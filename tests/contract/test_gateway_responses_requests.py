"""What the gateway writes to Responses servers, held against recorded conversations and the official SDK's types."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from behest.chat.v1 import chat_pb2
from kit.provider_decoding import decode_stream, result_of
from kit.provider_recordings import ABSENT, Recording, recordings, responses_items
from kit.responses_requests import check_by_the_sdk, check_count_by_the_sdk, messages_of, request_of
from kit.responses_wires import RESPONSES_WHOLE, responses_body
from provider_gateway.adapters.openai_responses import Dialect, OpenAiResponsesWire
from provider_gateway.api.convert import message_from, message_to
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    ReasoningEffort,
    RefusalPart,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.operations.ports import ModelCall

WIRE = OpenAiResponsesWire("vendor")
STORING = OpenAiResponsesWire("vendor", Dialect(store=True))
ANSWERED = [r for r in recordings("responses") if r.status == 200 and r.id.split(".")[0] not in ("ed95626b", "498f2630")]
ASKED = [r for r in ANSWERED if r.request]
PIC = ImagePart(Blob(data=b"\x00", media_type="image/png"))


def each(some: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recording", some or [pytest.param(None, marks=pytest.mark.skip(reason=ABSENT))], ids=str)


def answer_of(recording: Recording) -> Message:
    result = result_of(decode_stream(WIRE, [recording.body])) if recording.is_stream else WIRE.decode(recording.body)
    return message_from(chat_pb2.Message.FromString(message_to(result.message).SerializeToString()))


def sent(wire: OpenAiResponsesWire, *messages: Message) -> bytes:
    return wire.encode(ModelCall(ChatRequest(messages), "m"), stream=True).body


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is compared: without what has the same meaning in several forms."""
    item = {"type": "message"} | item
    if item.get("role") == "developer":
        item["role"] = "system"
    if isinstance(item.get("arguments"), str):
        item["arguments"] = json.loads(item["arguments"])
    if isinstance(item.get("content"), list):
        item["content"] = [{key: value for key, value in content.items() if key != "logprobs"} for content in item["content"]]
    return item


def covers(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Whether each of our items says at least what theirs does."""
    pairs = zip(map(plain, ours), map(plain, theirs), strict=True)
    return all(our.get(key) == value for our, their in pairs for key, value in their.items() if value is not None)


@pytest.mark.feature("P1")
@each(ASKED)
def test_a_recorded_request_is_written_as_it_was_and_the_sdk_has_room_for_it(recording: Recording) -> None:
    recorded = recording.request
    wire = WIRE if recorded.get("store") is False else STORING
    encoded = wire.encode(ModelCall(request_of(recorded, wire.origin), recorded["model"]), stream=bool(recorded.get("stream")))
    ours = json.loads(encoded.body)
    assert covers(ours["input"], recorded["input"])
    for field in ("model", "include", "reasoning", "text"):
        assert ours.get(field) == recorded.get(field), field
    tools = sorted(recorded.get("tools", []), key=lambda tool: str(tool["name"]))
    assert [{**tool, "strict": bool(tool.get("strict"))} for tool in tools] == ours.get("tools", [])
    assert encoded.warnings == ()
    check_by_the_sdk(encoded.body)


def follows(before: Recording, after: Recording) -> bool:
    """Whether one request is the next turn of the conversation of another."""
    asked = before.request["input"]
    return len(after.request["input"]) > len(asked) and after.request["input"][: len(asked)] == asked


FOLLOWED = [(before, after) for before, after in pairwise(ASKED) if follows(before, after)]


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    ("before", "after"),
    FOLLOWED or [pytest.param(None, None, marks=pytest.mark.skip(reason=ABSENT))],
    ids=[str(after) for _, after in FOLLOWED] or None,
)
def test_the_next_turn_of_a_recorded_loop_is_what_its_client_sent(before: Recording, after: Recording) -> None:
    asked, asked_next = before.request["input"], after.request["input"]
    answer = answer_of(before)
    news = asked_next[len(asked) + len(responses_items(before)) :]
    wire = WIRE if after.request.get("store") is False else STORING
    turn = [*messages_of(asked, wire.origin), answer, *messages_of(news, wire.origin)]
    body = sent(wire, *turn)
    assert covers(json.loads(body)["input"], asked_next)
    check_by_the_sdk(body)


@pytest.mark.feature("P2")
@each(ANSWERED)
def test_a_recorded_answer_goes_back_item_by_item(recording: Recording) -> None:
    items = json.loads(sent(STORING, answer_of(recording)))["input"]
    assert [plain(item) for item in items] == [plain(item) for item in responses_items(recording)]


@pytest.mark.feature("P1")
@each([r for r in ANSWERED if r.vendor != "xai"])
def test_the_sdk_has_room_for_a_recorded_answer_that_goes_back(recording: Recording) -> None:
    answer = answer_of(recording)
    results = [Message(Role.TOOL, (TextPart("done"),), tool_call_id=call.id) for call in answer.tool_calls]
    for wire in (WIRE, STORING):
        check_by_the_sdk(sent(wire, Message(Role.USER, (TextPart("hi"),)), answer, *results))


def test_the_sdk_has_room_for_everything_that_the_gateway_can_write() -> None:
    answer = WIRE.decode(responses_body(RESPONSES_WHOLE)).message
    document = DocumentPart(Blob(data=b"%PDF", media_type="application/pdf"))
    messages = (
        Message(Role.SYSTEM, (TextPart("be brief"), JsonPart(b"{}"))),
        Message(Role.USER, (TextPart("a"), PIC, document, DocumentPart(Blob(url="https://x/y.pdf")))),
        Message(Role.ASSISTANT, (TextPart("b"), RefusalPart("c")), (ToolCall("call", "t", b"{}"),)),
        Message(Role.TOOL, (PIC, document, TextPart("d")), tool_call_id="call", is_error=True),
        answer,
        Message(Role.TOOL, (TextPart("e"),), tool_call_id="call_b"),
        Message(Role.USER),
    )
    shared: dict[str, Any] = {"messages": messages, "tools": (ToolDefinition("t"),), "metadata": {"user_id": "u"}}
    schema = ResponseFormat(FormatKind.JSON_SCHEMA, "n", b'{"type":"object","properties":{},"additionalProperties":false}', strict=True)
    for effort in ReasoningEffort:
        sampling = Sampling(0.5, 0.5, 10, reasoning_effort=effort)
        request = ChatRequest(**shared, response_format=schema, sampling=sampling, parallel_tool_calls=True)
        wire = OpenAiResponsesWire("p", Dialect(summary="auto", counts=True))
        check_by_the_sdk(wire.encode(ModelCall(request, "m"), stream=True).body)
        counting = wire.encode_count(ModelCall(request, "m"))
        assert counting is not None
        check_count_by_the_sdk(counting.body)
    for mode in ToolChoiceMode:
        request = ChatRequest(**shared, tool_choice=ToolChoice(mode, "t"), response_format=ResponseFormat(FormatKind.JSON_OBJECT))
        check_by_the_sdk(WIRE.encode(ModelCall(request, "m"), stream=False).body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "m", "input": [{"type": "message", "role": "nobody", "content": "x"}]},
        {"model": "m", "input": [{"type": "function_call", "name": "x"}]},
        {"model": "m", "input": "x", "tools": [{"type": "function", "parameters": 5}]},
        {"model": "m", "input": [{"type": "reasoning", "id": "r", "summary": [{"text": 5}]}]},
    ],
)
def test_the_judge_refuses_what_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check_by_the_sdk(json.dumps(wrong).encode())
    with pytest.raises(AssertionError):
        check_by_the_sdk(json.dumps({"model": "m", "input": "x", "stop": "x"}).encode())
