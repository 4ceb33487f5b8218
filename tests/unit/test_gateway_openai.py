"""Chat Completions: what is written, what is read, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import FieldNotExpressible, ProviderRequestRefused, ProviderResponseInvalid, StreamIncomplete
from kit.provider_decoding import check_order, cut, decode_stream, result_of, said
from kit.provider_wires import (
    FINISH_CALLS,
    OPENAI_CALLS,
    OPENAI_CALLS_NO_INDEX,
    OPENAI_CALLS_ONE_INDEX,
    OPENAI_TEXT,
    OPENAI_WHOLE,
    openai_sse,
)
from provider_gateway.adapters.openai import Dialect, OpenAiWire
from provider_gateway.adapters.wire import RefusedInStream
from provider_gateway.domain.answers import FinishReason, RequestWarning, Usage
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    OpaquePart,
    OpaqueState,
    ReasoningEffort,
    ReasoningPart,
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
from provider_gateway.domain.schemas import ANY_SERVER
from provider_gateway.operations.ports import ModelCall

WIRE = OpenAiWire("acme")
ORIGIN = "openai/acme"
USER = Message(Role.USER, (TextPart("hi"),))
TOOL = ToolDefinition("weather", "Tells it", b'{"type":"object","properties":{}}', strict=True)
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}


def body_of(request: ChatRequest, stream: bool = False, wire: OpenAiWire = WIRE) -> dict[str, Any]:
    return json.loads(wire.encode(ModelCall(request, "m-1"), stream=stream).body)


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    return body_of(ChatRequest(messages))["messages"]


@pytest.mark.feature("P1")
def test_every_field_that_is_set_is_written() -> None:
    request = ChatRequest(
        (USER,),
        tools=(TOOL, ToolDefinition("plain")),
        tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather"),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", TOOL.parameters, strict=True),
        sampling=Sampling(0.5, 0.9, 100, ("END",), ReasoningEffort.LOW, 7),
        metadata={"user_id": "u1"},
        parallel_tool_calls=False,
    )
    assert body_of(request, stream=True) == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [
            {"type": "function", "function": {"name": "plain", "parameters": {"type": "object", "properties": {}}}},
            {"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": CLOSED, "strict": True}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": CLOSED, "strict": True}},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 100,
        "seed": 7,
        "stop": ["END"],
        "reasoning_effort": "low",
        "user": "u1",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.feature("P1")
def test_what_is_not_set_is_not_written() -> None:
    assert body_of(ChatRequest((USER,))) == {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.feature("P1")
@pytest.mark.parametrize(("mode", "word"), [("AUTO", "auto"), ("NONE", "none"), ("REQUIRED", "required")])
def test_tool_choices_have_their_words(mode: str, word: str) -> None:
    assert body_of(ChatRequest((USER,), tools=(TOOL,), tool_choice=ToolChoice(ToolChoiceMode[mode])))["tool_choice"] == word


@pytest.mark.feature("P1")
def test_metadata_that_stays_here_is_said_to_stay_here() -> None:
    encoded = WIRE.encode(ModelCall(ChatRequest((USER,), metadata={"run": "r1"}), "m-1"), stream=False)
    assert [warning.field for warning in encoded.warnings] == ["metadata"]
    assert b"r1" not in encoded.body


@pytest.mark.feature("P2")
def test_every_kind_of_part_is_written() -> None:
    parts = (
        TextPart("look"),
        JsonPart(b'{"a":1}'),
        ImagePart(Blob(url="https://x/y.png")),
        ImagePart(Blob(data=b"\x00", media_type="image/png")),
        DocumentPart(Blob(data=b"%PDF", media_type="application/pdf", name="a.pdf")),
    )
    assert messages_of(Message(Role.USER, parts))[0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "text", "text": '{"a":1}'},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
    ]


@pytest.mark.feature("P2")
def test_a_turn_with_tools_is_written_as_it_was() -> None:
    call = ToolCall(
        "call_1", "weather", b'{"city": "Paris"', (OpaqueState(ORIGIN, "extra_content", b'{"google":{"thought_signature":"S"}}'),)
    )
    turn = (
        Message(Role.SYSTEM, (TextPart("be brief"),)),
        USER,
        Message(Role.ASSISTANT, (TextPart("one moment"),), (call,)),
        Message(Role.TOOL, (JsonPart(b'{"error":"x"}'),), tool_call_id="call_1", tool_name="weather", is_error=True),
    )
    assert messages_of(*turn) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "one moment",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Paris"'},
                    "extra_content": {"google": {"thought_signature": "S"}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": 'Error: {"error":"x"}'},
    ]


@pytest.mark.feature("P2")
def test_an_assistant_message_that_only_calls_has_no_content() -> None:
    assert messages_of(USER, Message(Role.ASSISTANT, (), (ToolCall("c", "t", b"{}"),)))[1]["content"] is None


@pytest.mark.feature("P2")
def test_a_refusal_is_sent_back_as_one() -> None:
    assert messages_of(USER, Message(Role.ASSISTANT, (RefusalPart("no"),)))[1]["content"] == [{"type": "refusal", "refusal": "no"}]


@pytest.mark.feature("P2")
def test_reasoning_goes_back_within_its_turn_and_not_after_it() -> None:
    thought = Message(Role.ASSISTANT, (ReasoningPart("hm", OpaqueState(ORIGIN, "reasoning_content", b"")), TextPart("x")))
    assert messages_of(USER, thought)[1] == {"role": "assistant", "content": "x", "reasoning_content": "hm"}
    assert messages_of(USER, thought, USER)[1] == {"role": "assistant", "content": "x"}


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    "part",
    [
        ReasoningPart("hm", OpaqueState("anthropic", "signature", b"S")),
        ReasoningPart("hm", OpaqueState("openai/other", "reasoning_content", b"")),
        ReasoningPart("hm"),
        OpaquePart(OpaqueState("anthropic", "server_tool_use", b"{}")),
    ],
)
def test_state_of_another_provider_stays_here_and_is_said_to(part: ReasoningPart | OpaquePart) -> None:
    request = ChatRequest((USER, Message(Role.ASSISTANT, (part, TextPart("x")))))
    encoded = WIRE.encode(ModelCall(request, "m"), stream=False)
    assert json.loads(encoded.body)["messages"][1] == {"role": "assistant", "content": "x"}
    assert [warning.field for warning in encoded.warnings] == ["messages[1].parts[0]"]


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Message(Role.USER, (DocumentPart(Blob(url="https://x/y.pdf")),)), "messages[0].parts[0].document.url"),
        (Message(Role.SYSTEM, (TextPart("a"), ImagePart(Blob(url="https://x")))), "messages[0].parts[1]"),
        (Message(Role.TOOL, (ImagePart(Blob(url="https://x")),), tool_call_id="c"), "messages[0].parts[0]"),
        (Message(Role.ASSISTANT, (ImagePart(Blob(url="https://x")),)), "messages[0].parts[0]"),
        (Message(Role.USER, (ReasoningPart("x"),)), "messages[0].parts[0]"),
    ],
)
def test_what_the_protocol_has_no_words_for_is_refused_by_path(message: Message, path: str) -> None:
    with pytest.raises(FieldNotExpressible) as caught:
        messages_of(message)
    assert caught.value.metadata["field"] == path


@pytest.mark.feature("P3")
@pytest.mark.feature("P8")
def test_a_stream_becomes_the_answer() -> None:
    events = decode_stream(WIRE, [openai_sse(OPENAI_TEXT)])
    check_order(events)
    result = result_of(events)
    assert said(result.message)[0] == "Grüß Gott 🌍"
    assert (result.finish_reason, result.finish_reason_raw) == (FinishReason.STOP, "stop")
    assert result.usage == Usage(20, 5, cache_read_tokens=16, reasoning_tokens=2)
    assert (result.provider, result.model, result.response_id) == ("acme", "m-1", "c1")


@pytest.mark.feature("P3")
@pytest.mark.parametrize(
    "chunks", [OPENAI_CALLS, OPENAI_CALLS_ONE_INDEX, OPENAI_CALLS_NO_INDEX], ids=["interleaved", "one index", "no index"]
)
def test_tool_calls_are_told_apart_however_a_server_numbers_them(chunks: list[dict[str, Any]]) -> None:
    events = decode_stream(WIRE, [openai_sse(chunks)])
    check_order(events)
    assert result_of(events).message.tool_calls == (
        ToolCall("call_a", "weather", b'{"city":"Paris"}'),
        ToolCall("call_b", "time", b'{"zone":"CET"}'),
    )


@pytest.mark.feature("P6")
@pytest.mark.parametrize("chunks", [OPENAI_TEXT, OPENAI_CALLS], ids=["text", "calls"])
def test_every_way_to_cut_a_stream_in_two_decodes_alike(chunks: list[dict[str, Any]]) -> None:
    for body in (openai_sse(chunks), openai_sse(chunks).replace(b"\n", b"\r\n"), openai_sse(chunks).replace(b"\n", b"\r")):
        whole = result_of(decode_stream(WIRE, [body]))
        for place in range(1, len(body)):
            assert result_of(decode_stream(WIRE, cut(body, [place]))) == whole


@pytest.mark.feature("P6")
@given(places=st.lists(st.integers(0, 1200), max_size=20))
def test_any_pieces_obey_the_order_and_mean_the_same(places: list[int]) -> None:
    body = openai_sse(OPENAI_CALLS)
    events = decode_stream(WIRE, cut(body, places))
    check_order(events)
    assert result_of(events) == result_of(decode_stream(WIRE, [body]))


@pytest.mark.feature("P7")
def test_done_may_be_missing_but_the_finish_reason_may_not() -> None:
    assert result_of(decode_stream(WIRE, [openai_sse(OPENAI_TEXT, done=False)])).message.text() == "Grüß Gott 🌍"
    with pytest.raises(StreamIncomplete, match="before a finish reason"):
        decode_stream(WIRE, [openai_sse(OPENAI_TEXT[:3])])


@pytest.mark.feature("P7")
@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "boom", "type": "server_error", "code": None}},
        {"id": "x", "choices": [{"index": 0, "delta": {}, "error": {"message": "boom", "code": 502}}]},
    ],
)
def test_an_error_within_a_stream_is_one(error: dict[str, Any]) -> None:
    with pytest.raises(RefusedInStream, match="boom"):
        decode_stream(WIRE, [openai_sse([*OPENAI_TEXT[:3], error])])


@pytest.mark.feature("P7")
@pytest.mark.parametrize("data", [b"{}", b"[]", b"nonsense", b'{"choices":5}', b'{"id":"\xff"}'])
def test_garbage_is_refused_and_shown(data: bytes) -> None:
    with pytest.raises(ProviderResponseInvalid, match="not its protocol"):
        decode_stream(WIRE, [b"data: " + data + b"\n\n"])
    with pytest.raises(ProviderResponseInvalid):
        WIRE.decode(data)


@pytest.mark.feature("P4")
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("error", FinishReason.ERROR),
        ("something new", FinishReason.UNKNOWN),
    ],
)
def test_finish_reasons_are_mapped_and_their_words_kept(raw: str, reason: FinishReason) -> None:
    result = WIRE.decode(json.dumps({**OPENAI_WHOLE, "choices": [{"message": {"content": "x"}, "finish_reason": raw}]}).encode())
    assert (result.finish_reason, result.finish_reason_raw) == (reason, raw)


@pytest.mark.feature("P4")
def test_a_stop_that_calls_tools_or_refuses_is_called_what_it_is() -> None:
    called = [*OPENAI_CALLS[:-1], {**FINISH_CALLS, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    assert result_of(decode_stream(WIRE, [openai_sse(called)])).finish_reason is FinishReason.TOOL_CALLS
    refused = {**OPENAI_WHOLE, "choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}
    result = WIRE.decode(json.dumps(refused).encode())
    assert (result.finish_reason, said(result.message)) == (FinishReason.REFUSAL, ("", "", "no"))


@pytest.mark.feature("P2")
def test_reasoning_details_survive_the_round_trip() -> None:
    def chunk(**delta: Any) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]}

    chunks = [
        chunk(reasoning="Let ", reasoning_details=[{"type": "reasoning.text", "index": 0, "text": "Let "}]),
        chunk(reasoning="me", reasoning_details=[{"type": "reasoning.text", "index": 0, "text": "me", "signature": "S"}]),
        chunk(reasoning_details=[{"type": "reasoning.encrypted", "index": 1, "data": "E"}]),
        FINISH_CALLS,
    ]
    message = result_of(decode_stream(WIRE, [openai_sse(chunks)])).message
    assert said(message)[1] == "Let me"
    assert messages_of(USER, message)[1]["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "Let me", "signature": "S"},
        {"type": "reasoning.encrypted", "index": 1, "data": "E"},
    ]


@pytest.mark.feature("P2")
def test_citations_and_annotations_are_kept_with_the_message() -> None:
    choice = {"message": {"content": "x", "annotations": [{"type": "url_citation"}]}, "finish_reason": "stop"}
    message = WIRE.decode(json.dumps({**OPENAI_WHOLE, "choices": [choice], "citations": ["u"]}).encode()).message
    assert {state.kind: json.loads(state.data) for state in message.provider_state} == {
        "annotations": [{"type": "url_citation"}],
        "citations": ["u"],
    }


def test_a_choice_that_was_not_asked_for_is_left_out_and_said_to_be() -> None:
    choices = [OPENAI_WHOLE["choices"][0], {"index": 1, "message": {"content": "other"}, "finish_reason": "stop"}]
    result = WIRE.decode(json.dumps({**OPENAI_WHOLE, "choices": choices}).encode())
    assert result.message.text() == "Hi"
    assert result.warnings == (RequestWarning("", "acme gave a choice 1 that was not asked for; it is left out"),)


@pytest.mark.feature("P8")
def test_a_server_that_refuses_to_be_asked_for_usage_is_not_asked_again() -> None:
    relaxed = WIRE.relaxed(ProviderRequestRefused("acme refused: unknown field stream_options"))
    assert relaxed is not None
    assert "stream_options" not in body_of(ChatRequest((USER,)), stream=True, wire=relaxed)
    assert relaxed.relaxed(ProviderRequestRefused("unknown field stream_options")) is None


@pytest.mark.feature("P5")
def test_a_server_that_wants_the_other_name_of_the_output_limit_gets_it() -> None:
    wire = OpenAiWire("acme", Dialect(max_tokens_field="max_tokens"))
    refusal = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    relaxed = wire.relaxed(ProviderRequestRefused(refusal))
    assert relaxed is not None
    assert body_of(ChatRequest((USER,), sampling=Sampling(max_output_tokens=5)), wire=relaxed)["max_completion_tokens"] == 5
    assert wire.relaxed(ProviderRequestRefused("max_tokens is too large")) is None


@pytest.mark.feature("P23")
def test_strict_schemas_are_openais_at_openai_and_the_servers_own_elsewhere() -> None:
    optional = b'{"type":"object","properties":{"x":{"type":"string","minLength":1}}}'
    request = ChatRequest((USER,), tools=(ToolDefinition("z"), ToolDefinition("a", "", optional, strict=True)))
    with pytest.raises(FieldNotExpressible) as caught:
        body_of(request)
    assert caught.value.metadata["field"] == "tools[1].parameters.properties.x"
    elsewhere = OpenAiWire("acme", Dialect(strict=ANY_SERVER))
    assert body_of(request, wire=elsewhere)["tools"][0]["function"]["parameters"] == json.loads(optional)
