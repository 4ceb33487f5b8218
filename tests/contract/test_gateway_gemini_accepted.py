"""The vendor's own types take every request that the gateway writes for Gemini. Skips where they are not installed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.gemini_conversations import check_accepted, conversation, said_in
from kit.gemini_wires import GEMINI_STREAM, gemini_sse
from kit.provider_decoding import decode_stream, result_of
from kit.provider_recordings import ABSENT, Recording, recordings
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.wire import Wire
from provider_gateway.domain.admission import admit
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    ReasoningEffort,
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

types = pytest.importorskip("google.genai.types", reason="optional: the vendor's types are in the package google-genai")

WIRE = GeminiWire("g")
WIRES: dict[str, Wire] = {"openai": OpenAiWire("o"), "anthropic": AnthropicWire("a"), "gemini": WIRE}
GEMINI = [recording for recording in recordings("gemini") if recording.request]
ANSWERS = [one for protocol in WIRES for one in recordings(protocol) if one.status == 200 and one.body.count(b'"type":"message_start"') < 2]
USER = Message(Role.USER, (TextPart("hi"),))
SCHEMA = b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}'


def each(some: list[Recording]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recording", some or [pytest.param(None, marks=pytest.mark.skip(reason=ABSENT))], ids=str)


def written(request: ChatRequest, model: str) -> dict[str, Any]:
    admit(request)
    document: dict[str, Any] = json.loads(WIRE.encode(ModelCall(request, model), stream=True).body)
    return document


@pytest.mark.feature("P1")
@pytest.mark.parametrize("effort", list(ReasoningEffort))
@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-3.8-flash"])
@pytest.mark.parametrize("mode", [mode for mode in ToolChoiceMode if mode is not ToolChoiceMode.NAMED])
@pytest.mark.parametrize("strict", [True, False])
def test_every_choice_has_words_that_the_vendor_knows(effort: ReasoningEffort, model: str, mode: ToolChoiceMode, strict: bool) -> None:
    request = ChatRequest(
        (Message(Role.SYSTEM, (TextPart("be brief"),)), USER),
        tools=(ToolDefinition("f", "Does it", SCHEMA, strict), ToolDefinition("g")),
        tool_choice=ToolChoice(mode),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "a", SCHEMA, strict) if model.startswith("gemini-3") else ResponseFormat(),
        sampling=Sampling(0.5, 0.9, 100, ("END",), effort, 7),
    )
    check_accepted(written(request, model), types)


@pytest.mark.feature("P2")
def test_a_whole_turn_with_everything_in_it_is_taken() -> None:
    answer = result_of(decode_stream(WIRE, [gemini_sse(GEMINI_STREAM)])).message
    image = ImagePart(Blob(data=b"\x00", media_type="image/png"))
    parts = (JsonPart(b"{}"), image, DocumentPart(Blob(url="https://x/y.pdf")))
    results = [Message(Role.TOOL, (JsonPart(b"[1]"), image), tool_call_id=call.id, is_error=True) for call in answer.tool_calls]
    foreign = Message(Role.ASSISTANT, (), (ToolCall("other", "f", b"broken"),))
    history = (Message(Role.USER, parts), answer, *results, foreign, Message(Role.TOOL, (), tool_call_id="other"))
    check_accepted(written(ChatRequest(history), "gemini-3.8-flash"), types)


@pytest.mark.feature("P5")
@each(GEMINI)
def test_a_recorded_conversation_is_written_as_it_was_and_taken(recording: Recording) -> None:
    request = conversation(recording.request)
    document = written(request, "gemini-3-pro-preview")
    check_accepted(document, types)
    assert said_in(document["contents"]) == said_in(recording.request["contents"])


@pytest.mark.feature("P12")
@each(ANSWERS)
def test_an_answer_of_any_vendor_is_taken_as_history(recording: Recording) -> None:
    wire = WIRES[recording.protocol]
    answer = (result_of(decode_stream(wire, [recording.body])) if recording.is_stream else wire.decode(recording.body)).message
    results = [Message(Role.TOOL, (TextPart("done"),), tool_call_id=call.id, tool_name=call.name) for call in answer.tool_calls]
    check_accepted(written(ChatRequest((USER, answer, *results, USER)), "gemini-3.8-flash"), types)
