"""What callers send back altered: state, arguments and schemas that nobody gave them are refused by name, or sent as what they are."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import FieldNotExpressible, RequestInvalid
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.ollama import OllamaWire
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.openai_responses import OpenAiResponsesWire
from provider_gateway.adapters.wire import Wire
from provider_gateway.domain.admission import admit
from provider_gateway.domain.chat import (
    ChatRequest,
    FormatKind,
    JsonPart,
    Message,
    Notes,
    OpaquePart,
    OpaqueState,
    ReasoningPart,
    ResponseFormat,
    Role,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from provider_gateway.operations.ports import ModelCall

pytestmark = pytest.mark.feature("P5")
WIRES: list[Wire] = [AnthropicWire("p"), GeminiWire("p"), OllamaWire("p", {}, ""), OpenAiWire("p"), OpenAiResponsesWire("p")]
wires = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.adapter)
USER = Message(Role.USER, (TextPart("hi"),))
DEEP = b"[" * 20_000 + b"]" * 20_000
DEEP_OBJECT = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
KINDS = (
    "annotations",
    "caller",
    "citations",
    "container",
    "content",
    "extra_content",
    "function_call",
    "id",
    "message",
    "order",
    "part",
    "parts_before",
    "places",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "redacted_thinking",
    "think_tags",
    "thinking",
    "thought",
    "thought_signature",
)
GARBAGE = (
    b"",
    b"x",
    b"\xff\xfe",
    b"{}",
    b"[]",
    b"1",
    b"null",
    b'{"type":"text"}',
    b'{"type":"text","text":1}',
    b'{"type":"message","id":"a"}',
    b'{"id":1}',
    b'["a"]',
    b"[-1]",
    b"[99999999999999999999999]",
    b'{"a":1e999}',
    b'{"a":"\\ud800"}',
    DEEP,
)


def origin_of(wire: Wire) -> str:
    return getattr(wire, "origin", wire.adapter)


def bearing(state: OpaqueState) -> Iterator[Message]:
    """Messages that have a state at each of the places where one can be."""
    said, states = TextPart("a"), (state,)
    yield Message(Role.ASSISTANT, (said,), provider_state=states)
    yield Message(Role.ASSISTANT, (TextPart("a", Notes(provider_state=states)), said))
    yield Message(Role.ASSISTANT, (ReasoningPart("r", state), said))
    yield Message(Role.ASSISTANT, (said, OpaquePart(state, Notes(provider_state=states)), said))
    yield Message(Role.ASSISTANT, (said,), (ToolCall("c", "t", b"{}", states),), provider_state=states)
    yield Message(Role.USER, (TextPart("a", Notes(provider_state=states)),))


def written(wire: Wire, request: ChatRequest) -> object:
    """The body that would be sent, None where the request is refused."""
    try:
        admit(request)
        return json.loads(wire.encode(ModelCall(request, "gemini-3-pro"), stream=True).body)
    except (FieldNotExpressible, RequestInvalid):
        return None


@wires
@pytest.mark.parametrize("kind", KINDS)
def test_state_that_nobody_gave_is_refused_or_sent_as_json(wire: Wire, kind: str) -> None:
    for data in GARBAGE:
        for message in bearing(OpaqueState(origin_of(wire), kind, data)):
            written(wire, ChatRequest((USER, message, USER)))


@wires
@given(kind=st.sampled_from(KINDS), data=st.binary(max_size=20) | st.text('{}[]":,1a\\ ', max_size=12).map(str.encode))
def test_no_bytes_in_a_state_make_the_gateway_fail_or_send_what_is_no_json(wire: Wire, kind: str, data: bytes) -> None:
    for message in bearing(OpaqueState(origin_of(wire), kind, data)):
        written(wire, ChatRequest((USER, message)))


@wires
def test_state_cannot_pass_for_other_fields_of_the_request(wire: Wire) -> None:
    closers = ("", "}", "]", "}]", "]}", "}]}", "]}]", "}}]}]", "}]}]")
    for kind in ("x", *KINDS):
        for closer in closers:
            data = f'1{closer},"model":"dearer","messages":[],"x":0'.encode()
            for message in bearing(OpaqueState(origin_of(wire), kind, data)):
                sent = written(wire, ChatRequest((USER, message)))
                assert not isinstance(sent, dict) or sent.get("model") != "dearer"


@wires
def test_arguments_that_are_nested_beyond_reason_are_sent_as_text(wire: Wire) -> None:
    for arguments in (DEEP, DEEP_OBJECT, b"", b"\xff", b"NaN"):
        calling = Message(Role.ASSISTANT, (), (ToolCall("c", "t", arguments),))
        answered = Message(Role.TOOL, (TextPart("x"),), tool_call_id="c")
        assert written(wire, ChatRequest((USER, calling, answered))) is not None


@wires
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_json_in_another_encoding_is_no_json(wire: Wire, encoding: str) -> None:
    schema = '{"type":"object","properties":{}}'.encode(encoding)
    for request in (
        ChatRequest((Message(Role.USER, (JsonPart(schema),)),)),
        ChatRequest((USER,), tools=(ToolDefinition("t", parameters=schema),)),
        ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "n", schema)),
    ):
        with pytest.raises(RequestInvalid, match="UTF-8"):
            admit(request)


@pytest.mark.parametrize("data", [b"NaN", b'{"a":Infinity}', b"[-Infinity]"])
def test_numbers_that_json_does_not_have_are_no_json(data: bytes) -> None:
    with pytest.raises(RequestInvalid, match="not valid JSON"):
        admit(ChatRequest((Message(Role.USER, (JsonPart(data),)),)))


NO_SCHEMAS = (
    b'{"type":["object"],"properties":1}',
    b'{"type":"object","required":1,"properties":{"a":true}}',
    b'{"type":"object","properties":{"a":{"enum":1}}}',
    b'{"anyOf":1}',
    b'{"allOf":[1]}',
    b'{"type":"object","properties":{"a":{"type":"integer","maximum":1e999}}}',
    b'{"type":"object","properties":{"a":{"enum":["\\ud800"],"minLength":2}},"additionalProperties":{"pattern":"\\udfff"}}',
)


@wires
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("schema", NO_SCHEMAS)
def test_what_is_no_schema_is_refused_or_sent_but_nothing_falls_over_it(wire: Wire, schema: bytes, strict: bool) -> None:
    written(wire, ChatRequest((USER,), tools=(ToolDefinition("t", "", schema, strict),)))
    written(wire, ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "n", schema, strict)))
