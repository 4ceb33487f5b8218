"""Messages: what is written, what is read, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import FieldNotExpressible, ProviderResponseInvalid, StreamIncomplete
from kit.provider_decoding import check_order, cut, decode_stream, result_of
from kit.provider_wires import ANTHROPIC_STREAM, ANTHROPIC_WHOLE, anthropic_sse
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.anthropic.call_ids import accepted_id
from provider_gateway.adapters.wire import RefusedInStream
from provider_gateway.domain.answers import FinishReason, Usage
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

WIRE = AnthropicWire("claude")
USER = Message(Role.USER, (TextPart("hi"),))
TOOL = ToolDefinition("weather", "Tells it", b'{"type":"object","properties":{}}', strict=True)
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}


def body_of(request: ChatRequest, model: str = "claude-sonnet-4-0", most: int = 0, stream: bool = False) -> dict[str, Any]:
    return json.loads(WIRE.encode(ModelCall(request, model, most), stream=stream).body)


def warned(request: ChatRequest, model: str = "claude-sonnet-4-0") -> list[str]:
    return [warning.field for warning in WIRE.encode(ModelCall(request, model), stream=False).warnings]


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    return body_of(ChatRequest(messages))["messages"]


@pytest.mark.feature("P1")
def test_every_field_that_is_set_is_written() -> None:
    request = ChatRequest(
        (Message(Role.SYSTEM, (TextPart("be brief"),)), USER),
        tools=(TOOL, ToolDefinition("plain")),
        tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather"),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", TOOL.parameters, strict=True),
        sampling=Sampling(0.5, 0.9, 100, ("END",)),
        metadata={"user_id": "u1"},
        parallel_tool_calls=False,
    )
    assert body_of(request, stream=True) == {
        "model": "claude-sonnet-4-0",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "be brief"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [
            {"name": "plain", "input_schema": {"type": "object", "properties": {}}},
            {"name": "weather", "description": "Tells it", "input_schema": CLOSED, "strict": True},
        ],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": CLOSED}},
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "stream": True,
    }


@pytest.mark.feature("P1")
def test_the_output_limit_is_the_callers_else_the_models_else_a_default() -> None:
    assert body_of(ChatRequest((USER,), sampling=Sampling(max_output_tokens=7)), most=9)["max_tokens"] == 7
    assert body_of(ChatRequest((USER,)), most=8192)["max_tokens"] == 8192
    assert body_of(ChatRequest((USER,)), most=128_000)["max_tokens"] == 32_000
    assert body_of(ChatRequest((USER,)))["max_tokens"] == 4096


@pytest.mark.feature("P1")
def test_what_is_harmlessly_left_out_is_warned_of() -> None:
    assert warned(ChatRequest((USER,), sampling=Sampling(seed=1))) == ["sampling.seed"]
    assert warned(ChatRequest((USER,), metadata={"run": "r"})) == ["metadata"]
    assert warned(ChatRequest((USER, Message(Role.SYSTEM, (TextPart("now"),))))) == ["messages[1]"]
    assert warned(ChatRequest((Message(Role.USER, (ImagePart(Blob(url="https://x", name="n")),)),))) == ["messages[0].parts[0].image.name"]


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_OBJECT)), "response_format.kind"),
        (ChatRequest((USER,), sampling=Sampling(temperature=1.5)), "sampling.temperature"),
        (
            ChatRequest((Message(Role.USER, (DocumentPart(Blob(data=b"x", media_type="a/b")),)),)),
            "messages[0].parts[0].document.media_type",
        ),
        (ChatRequest((Message(Role.ASSISTANT, (ImagePart(Blob(url="https://x")),)),)), "messages[0].parts[0]"),
        (ChatRequest((Message(Role.SYSTEM, (ImagePart(Blob(url="https://x")),)),)), "messages[0].parts[0]"),
    ],
)
def test_what_the_protocol_has_no_words_for_is_refused_by_path(request_: ChatRequest, path: str) -> None:
    with pytest.raises(FieldNotExpressible) as caught:
        body_of(request_)
    assert caught.value.metadata["field"] == path


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("effort", "model", "limit", "expected"),
    [
        (ReasoningEffort.HIGH, "claude-sonnet-4-0", 30_000, {"thinking": {"type": "enabled", "budget_tokens": 15_000}}),
        (ReasoningEffort.LOW, "claude-sonnet-4-5-20250929", 30_000, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (ReasoningEffort.HIGH, "claude-opus-4-6", 30_000, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (
            ReasoningEffort.MINIMAL,
            "claude-sonnet-5",
            30_000,
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        (ReasoningEffort.HIGH, "claude-sonnet-4-0", 1000, {}),
        (ReasoningEffort.NONE, "claude-opus-4-6", 30_000, {}),
    ],
)
def test_effort_is_said_as_the_models_generation_understands_it(
    effort: ReasoningEffort, model: str, limit: int, expected: dict[str, Any]
) -> None:
    request = ChatRequest((USER,), sampling=Sampling(temperature=0.3, max_output_tokens=limit, reasoning_effort=effort))
    body = body_of(request, model)
    assert {key: body[key] for key in ("thinking", "output_config") if key in body} == expected
    assert ("temperature" in body) is not bool(expected)
    assert bool(warned(request, model)) is (bool(expected) or limit == 1000)


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("model", "taken"), [("claude-opus-4-6", True), ("claude-opus-4-7", False), ("claude-sonnet-5", False), ("own", True)]
)
def test_models_that_take_no_sampling_are_sent_none_and_the_caller_is_told(model: str, taken: bool) -> None:
    request = ChatRequest((USER,), sampling=Sampling(temperature=0.5, top_p=0.9))
    body = body_of(request, model)
    assert {"temperature", "top_p"} & body.keys() == ({"temperature", "top_p"} if taken else set())
    assert warned(request, model) == ([] if taken else ["sampling.temperature", "sampling.top_p"])


@pytest.mark.feature("P1")
def test_a_model_that_must_call_a_tool_does_not_think_and_the_caller_is_told() -> None:
    request = ChatRequest(
        (USER,),
        tools=(TOOL,),
        tool_choice=ToolChoice(ToolChoiceMode.REQUIRED),
        sampling=Sampling(reasoning_effort=ReasoningEffort.HIGH, max_output_tokens=9000),
    )
    body = body_of(request)
    assert body["tool_choice"] == {"type": "any"}
    assert "thinking" not in body
    assert warned(request) == ["sampling.reasoning_effort"]


@pytest.mark.feature("P2")
def test_a_turn_with_tools_alternates_and_keeps_results_with_their_calls() -> None:
    calls = (ToolCall("toolu_1", "weather", b'{"city":"Paris"}'), ToolCall("llm:0", "now", b"broken"))
    turn = (
        USER,
        Message(Role.ASSISTANT, (TextPart("one moment"),), calls),
        Message(Role.TOOL, (TextPart("18 C"),), tool_call_id="toolu_1", tool_name="weather"),
        Message(Role.TOOL, (ImagePart(Blob(data=b"\x00", media_type="image/png")),), tool_call_id="llm:0", tool_name="now", is_error=True),
        Message(Role.USER, (TextPart("and?"), TextPart("  "))),
    )
    other = accepted_id("llm:0")
    assert messages_of(*turn) == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "one moment"},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": other, "name": "now", "input": {"invalid_arguments": "broken"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 C"},
                {
                    "type": "tool_result",
                    "tool_use_id": other,
                    "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}],
                    "is_error": True,
                },
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    assert warned(ChatRequest(turn)) == ["messages[1].tool_calls[1].arguments"]


@pytest.mark.feature("P2")
def test_documents_and_json_have_their_forms() -> None:
    parts = (
        JsonPart(b'{"a":1}'),
        ImagePart(Blob(url="https://x/y.png")),
        DocumentPart(Blob(data=b"%PDF", media_type="application/pdf", name="a.pdf")),
        DocumentPart(Blob(data="né".encode(), media_type="text/markdown")),
        DocumentPart(Blob(url="https://x/y.pdf")),
    )
    assert messages_of(Message(Role.USER, parts))[0]["content"] == [
        {"type": "text", "text": '{"a":1}'},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}, "title": "a.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "né"}},
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
    ]


@pytest.mark.feature("P3")
@pytest.mark.feature("P8")
def test_a_stream_becomes_the_answer_that_would_have_come_at_once() -> None:
    events = decode_stream(WIRE, [anthropic_sse(ANTHROPIC_STREAM)])
    check_order(events)
    assert result_of(events) == WIRE.decode(json.dumps(ANTHROPIC_WHOLE).encode())
    result = result_of(events)
    assert result.finish_reason is FinishReason.TOOL_CALLS
    assert result.usage == Usage(114, 50, cache_read_tokens=100, cache_write_tokens=10)
    assert (result.provider, result.model, result.response_id) == ("claude", "claude-x", "msg_1")


@pytest.mark.feature("P2")
def test_everything_the_model_gave_goes_back_as_it_came() -> None:
    """Signatures, redacted thinking, citations and server tools' blocks."""
    message = result_of(decode_stream(WIRE, [anthropic_sse(ANTHROPIC_STREAM)])).message
    assert messages_of(USER, message)[1] == {"role": "assistant", "content": ANTHROPIC_WHOLE["content"]}


@pytest.mark.feature("P2")
def test_a_container_and_the_caller_of_a_tool_go_back() -> None:
    block = {"type": "tool_use", "id": "t", "name": "n", "input": {}, "caller": {"type": "code_execution_20250825", "tool_id": "s"}}
    whole = {**ANTHROPIC_WHOLE, "content": [block], "container": {"id": "cont_1", "expires_at": "later"}}
    message = WIRE.decode(json.dumps(whole).encode()).message
    body = body_of(ChatRequest((USER, message)))
    assert body["messages"][1]["content"] == [block]
    assert body["container"] == "cont_1"


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    "part",
    [
        ReasoningPart("hm", OpaqueState("openai/acme", "reasoning_content", b"")),
        ReasoningPart("hm"),
        OpaquePart(OpaqueState("openai/acme", "content", b"{}")),
    ],
)
def test_state_of_another_provider_stays_here_and_is_said_to(part: ReasoningPart | OpaquePart) -> None:
    request = ChatRequest((USER, Message(Role.ASSISTANT, (part, TextPart("x")))))
    assert body_of(request)["messages"][1]["content"] == [{"type": "text", "text": "x"}]
    assert warned(request) == ["messages[1].parts[0]"]


@pytest.mark.feature("P6")
def test_every_way_to_cut_a_stream_in_two_decodes_alike() -> None:
    for ending in (b"\n", b"\r\n", b"\r"):
        body = anthropic_sse(ANTHROPIC_STREAM).replace(b"\n", ending)
        whole = result_of(decode_stream(WIRE, [body]))
        for place in range(1, len(body), 3):
            assert result_of(decode_stream(WIRE, cut(body, [place]))) == whole


@pytest.mark.feature("P6")
@given(places=st.lists(st.integers(0, 4000), max_size=20))
def test_any_pieces_obey_the_order_and_mean_the_same(places: list[int]) -> None:
    body = anthropic_sse(ANTHROPIC_STREAM)
    events = decode_stream(WIRE, cut(body, places))
    check_order(events)
    assert result_of(events) == WIRE.decode(json.dumps(ANTHROPIC_WHOLE).encode())


@pytest.mark.feature("P7")
@pytest.mark.parametrize("length", [1, 5, len(ANTHROPIC_STREAM) - 2, len(ANTHROPIC_STREAM) - 1])
def test_a_stream_without_message_stop_is_incomplete(length: int) -> None:
    with pytest.raises(StreamIncomplete, match="before message_stop"):
        decode_stream(WIRE, [anthropic_sse(ANTHROPIC_STREAM[:length])])


@pytest.mark.feature("P7")
def test_an_error_event_is_a_failure() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(RefusedInStream, match="Overloaded") as caught:
        decode_stream(WIRE, [anthropic_sse([*ANTHROPIC_STREAM[:5], error])])
    assert caught.value.refusal.type == "overloaded_error"


@pytest.mark.feature("P7")
@pytest.mark.parametrize("data", [b"nonsense", b"[]", b"{}", b'{"type":"message_start"}', b'{"type":"content_block_delta","index":"x"}'])
def test_garbage_is_refused_and_shown(data: bytes) -> None:
    with pytest.raises(ProviderResponseInvalid, match="not its protocol"):
        decode_stream(WIRE, [b"data: " + data + b"\n\n"])


def test_events_that_do_not_exist_yet_are_passed_over() -> None:
    stream = [*ANTHROPIC_STREAM[:3], {"type": "something_new", "x": 1}, *ANTHROPIC_STREAM[3:]]
    assert result_of(decode_stream(WIRE, [anthropic_sse(stream)])) == result_of(decode_stream(WIRE, [anthropic_sse(ANTHROPIC_STREAM)]))


def test_blocks_that_do_not_exist_yet_are_kept_whole() -> None:
    stream = [
        ANTHROPIC_STREAM[0],
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction", "content": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "short"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "er"}},
        {"type": "content_block_stop", "index": 0},
        *ANTHROPIC_STREAM[-2:],
    ]
    message = result_of(decode_stream(WIRE, [anthropic_sse(stream)])).message
    assert messages_of(USER, message)[1]["content"] == [{"type": "compaction", "content": "shorter"}]


@pytest.mark.feature("P4")
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("refusal", FinishReason.REFUSAL),
        ("pause_turn", FinishReason.UNKNOWN),
    ],
)
def test_finish_reasons_are_mapped_and_their_words_kept(raw: str, reason: FinishReason) -> None:
    whole = {**ANTHROPIC_WHOLE, "content": [{"type": "text", "text": "x"}], "stop_reason": raw}
    result = WIRE.decode(json.dumps(whole).encode())
    assert (result.finish_reason, result.finish_reason_raw) == (reason, raw)


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_call_ids_are_accepted_stable_and_distinct(one: str, other: str) -> None:
    assert set(accepted_id(one)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert accepted_id(accepted_id(one)) == accepted_id(one)
    assert (accepted_id(one) == accepted_id(other)) is (one == other)


@pytest.mark.feature("P23")
@pytest.mark.parametrize(
    ("tool", "path"),
    [
        (
            ToolDefinition("b", "", b'{"type":"object","properties":{"x":{"type":"string","minLength":1}}}', strict=True),
            ".properties.x.minLength",
        ),
        (ToolDefinition("b", "", b'{"type":"string"}'), ".type"),
    ],
)
def test_a_schema_without_words_is_refused_by_the_tools_place_in_the_request(tool: ToolDefinition, path: str) -> None:
    with pytest.raises(FieldNotExpressible) as caught:
        body_of(ChatRequest((USER,), tools=(ToolDefinition("z"), tool)))
    assert caught.value.metadata["field"] == f"tools[1].parameters{path}"


@pytest.mark.feature("P23")
def test_a_bound_that_the_answer_is_not_held_to_is_warned_of() -> None:
    schema = b'{"type":"object","properties":{"x":{"type":"integer","minimum":1}}}'
    request = ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", schema))
    assert warned(request) == ["response_format.schema.properties.x.minimum"]
    written = body_of(request)["output_config"]["format"]["schema"]["properties"]["x"]
    assert written == {"type": "integer", "description": "minimum: 1"}
