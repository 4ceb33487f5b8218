"""Ollama's own protocol: what is written, what is read, what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import FieldNotExpressible, ModelNotFound, ProviderContextOverflow, ProviderResponseInvalid, StreamIncomplete
from kit.provider_decoding import check_order, cut, result_of, said
from kit.provider_recordings import ABSENT, FOLDER
from kit.provider_wires import ndjson
from provider_gateway.adapters.http.ndjson import NdjsonParser
from provider_gateway.adapters.http.refusals import Refused, fault_of, refusal_of
from provider_gateway.adapters.ollama import OllamaWire
from provider_gateway.adapters.wire import RefusedInStream
from provider_gateway.domain.answers import ChatEvent, FinishReason, Usage
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
    Part,
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
from provider_gateway.domain.embeddings import EmbedRequest
from provider_gateway.operations.ports import EmbedCall, ModelCall

pytestmark = pytest.mark.feature("P5")
WIRE = OllamaWire("home")
USER = Message(Role.USER, (TextPart("hi"),))
TOOL = ToolDefinition("weather", "Tells it", b'{"type":"object"}')
WHEN = "2026-01-02T03:04:05.678Z"


def line(done: bool = False, message: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    said_now = {"role": "assistant", "content": ""} | (message or {})
    return {"model": "qwen3", "created_at": WHEN, "message": said_now, "done": done, **fields}


END = line(True, done_reason="stop", prompt_eval_count=20, eval_count=5)
STREAM = [
    line(message={"thinking": "Let "}),
    line(message={"thinking": "me."}),
    line(message={"content": "Grüß "}),
    line(message={"content": "Gott 🌍"}),
    line(message={"tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]}),
    line(message={"tool_calls": [{"id": "call_b", "function": {"index": 1, "name": "now", "arguments": {}}}]}),
    END,
]


def decode(pieces: list[bytes], wire: OllamaWire = WIRE) -> list[ChatEvent]:
    parser, decoder = wire.parser(1 << 20), wire.decoder()
    events: list[ChatEvent] = []
    for piece in pieces:
        events += decoder.feed(parser.feed(piece))
    return [*events, *decoder.feed(parser.end()), *decoder.end()]


def sent(request: ChatRequest, wire: OllamaWire = WIRE) -> dict[str, Any]:
    return json.loads(wire.encode(ModelCall(request, "qwen3"), stream=True).body)


def warned(request: ChatRequest) -> list[str]:
    return [warning.field for warning in WIRE.encode(ModelCall(request, "qwen3"), stream=True).warnings]


@pytest.mark.feature("P3")
@pytest.mark.feature("P8")
def test_a_stream_becomes_the_answer() -> None:
    events = decode([ndjson(STREAM)])
    check_order(events)
    result = result_of(events)
    assert said(result.message) == ("Grüß Gott 🌍", "Let me.", "")
    assert result.message.tool_calls == (
        ToolCall("call_20260102030405678_0", "weather", b'{"city":"Paris"}'),
        ToolCall("call_b", "now", b"{}"),
    )
    assert (result.finish_reason, result.finish_reason_raw) == (FinishReason.TOOL_CALLS, "stop")
    assert (result.usage, result.model) == (Usage(20, 5), "qwen3")


def test_a_whole_answer_says_what_a_stream_says() -> None:
    calls = [STREAM[4]["message"]["tool_calls"][0], STREAM[5]["message"]["tool_calls"][0]]
    whole = {**END, "message": {"role": "assistant", "thinking": "Let me.", "content": "Grüß Gott 🌍", "tool_calls": calls}}
    assert WIRE.decode(json.dumps(whole).encode()) == result_of(decode([ndjson(STREAM)]))


@pytest.mark.feature("P6")
def test_every_way_to_cut_a_stream_in_two_decodes_alike() -> None:
    for body in (ndjson(STREAM), ndjson(STREAM).replace(b"\n", b"\r\n"), ndjson(STREAM).rstrip(b"\n"), ndjson(STREAM) + b"\n\n"):
        whole = result_of(decode([body]))
        for place in range(1, len(body)):
            assert result_of(decode(cut(body, [place]))) == whole


@given(st.lists(st.binary(max_size=6).filter(lambda one: b"\n" not in one and one.strip()), max_size=6), st.lists(st.integers(1, 40)))
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], places: list[int]) -> None:
    parser, body = NdjsonParser(), b"\n".join(lines)
    events = [event for piece in cut(body, places) for event in parser.feed(piece)] + parser.end()
    assert [event.data for event in events] == lines


def test_a_line_that_is_too_long_is_refused_before_it_is_whole() -> None:
    parser = NdjsonParser(100)
    with pytest.raises(ProviderResponseInvalid, match="more than 100 bytes"):
        for _ in range(3):
            parser.feed(b"x" * 50)


@pytest.mark.feature("P7")
def test_a_stream_without_its_last_line_is_incomplete() -> None:
    with pytest.raises(StreamIncomplete, match="before it was done"):
        decode([ndjson(STREAM[:-1])])


@pytest.mark.feature("P7")
@pytest.mark.parametrize("before", [STREAM[:3], []], ids=["in the middle", "at once"])
def test_an_error_within_a_stream_is_one(before: list[dict[str, Any]]) -> None:
    with pytest.raises(RefusedInStream, match="runner has stopped"):
        decode([ndjson([*before, {"error": "model runner has stopped"}])])


@pytest.mark.parametrize("data", [b"{}", b"[]", b"nonsense", b'{"model":"m"}', b'{"message":5}', b'{"model":"\xff"}'])
def test_garbage_is_refused_and_shown(data: bytes) -> None:
    with pytest.raises(ProviderResponseInvalid, match="not its protocol"):
        decode([data + b"\n"])
    with pytest.raises(ProviderResponseInvalid):
        WIRE.decode(data)


@pytest.mark.feature("P4")
@pytest.mark.parametrize(
    ("word", "reason", "raw"),
    [
        ("stop", FinishReason.STOP, "stop"),
        (None, FinishReason.STOP, "stop"),
        ("length", FinishReason.LENGTH, "length"),
        ("load", FinishReason.UNKNOWN, "load"),
    ],
)
def test_the_reasons_to_end_are_mapped_and_their_words_kept(word: str | None, reason: FinishReason, raw: str) -> None:
    result = result_of(decode([ndjson([line(message={"content": "Hi"}), {**END, "done_reason": word}])]))
    assert (result.finish_reason, result.finish_reason_raw) == (reason, raw)


@pytest.mark.parametrize(
    ("status", "error", "fault"),
    [
        (404, "model 'nope' not found", ModelNotFound),
        (400, "the input length exceeds the context length", ProviderContextOverflow),
    ],
)
def test_its_errors_are_one_text_and_typed(status: int, error: str, fault: type[Exception]) -> None:
    assert type(fault_of(refusal_of(status, json.dumps({"error": error}).encode()), Refused("home", "m"))) is fault


@pytest.mark.feature("P1")
def test_every_field_that_is_set_is_written() -> None:
    request = ChatRequest(
        (Message(Role.SYSTEM, (TextPart("be brief"),)), USER),
        tools=(TOOL,),
        tool_choice=ToolChoice(ToolChoiceMode.AUTO),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", b'{"type":"object"}', strict=True),
        sampling=Sampling(0.5, 0.9, 100, ("END",), ReasoningEffort.HIGH, 7),
    )
    assert sent(request, OllamaWire("home", {"num_ctx": 8192, "seed": 1}, "10m")) == {
        "model": "qwen3",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": {"type": "object"}}}],
        "format": {"type": "object"},
        "think": "high",
        "keep_alive": "10m",
        "options": {"num_ctx": 8192, "seed": 7, "temperature": 0.5, "top_p": 0.9, "num_predict": 100, "stop": ["END"]},
        "truncate": False,
        "shift": False,
    }


@pytest.mark.feature("P1")
def test_what_is_not_set_is_not_written_and_a_long_prompt_is_never_cut_in_silence() -> None:
    assert sent(ChatRequest((USER,))) == {
        "model": "qwen3",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "truncate": False,
        "shift": False,
    }


@pytest.mark.parametrize(
    ("effort", "think", "warnings"),
    [
        (ReasoningEffort.NONE, False, []),
        (ReasoningEffort.MINIMAL, "low", ["sampling.reasoning_effort"]),
        (ReasoningEffort.MEDIUM, "medium", []),
    ],
)
def test_how_hard_to_think(effort: ReasoningEffort, think: bool | str, warnings: list[str]) -> None:
    request = ChatRequest((USER,), sampling=Sampling(reasoning_effort=effort))
    assert sent(request)["think"] == think
    assert warned(request) == warnings


@pytest.mark.feature("P2")
def test_every_kind_of_part_is_written() -> None:
    parts: tuple[Part, ...] = (
        TextPart("look"),
        JsonPart(b'{"a":1}'),
        ImagePart(Blob(data=b"\x00\x01", media_type="image/png")),
        DocumentPart(Blob(data=b"notes", media_type="text/markdown")),
    )
    assert sent(ChatRequest((Message(Role.USER, parts),)))["messages"] == [
        {"role": "user", "content": 'look\n{"a":1}\nnotes', "images": [base64.b64encode(b"\x00\x01").decode()]}
    ]


@pytest.mark.feature("P2")
def test_an_answer_goes_back_as_it_came_with_its_thinking_within_the_turn() -> None:
    message = result_of(decode([ndjson(STREAM)])).message
    results = [Message(Role.TOOL, (TextPart("18 C"),), tool_call_id=call.id, tool_name=call.name) for call in message.tool_calls]
    said_back = sent(ChatRequest((USER, message, *results)))["messages"]
    assert said_back[1] == {
        "role": "assistant",
        "content": "Grüß Gott 🌍",
        "thinking": "Let me.",
        "tool_calls": [
            {"id": "call_20260102030405678_0", "function": {"name": "weather", "arguments": {"city": "Paris"}}},
            {"id": "call_b", "function": {"name": "now", "arguments": {}}},
        ],
    }
    assert said_back[2] == {"role": "tool", "content": "18 C", "tool_call_id": "call_20260102030405678_0", "tool_name": "weather"}
    assert "thinking" not in sent(ChatRequest((USER, message, *results, USER)))["messages"][1]
    assert warned(ChatRequest((USER, message, *results))) == []


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Message(Role.USER, (ImagePart(Blob(url="https://x/y.png")),)), "messages[0].parts[0].image.url"),
        (Message(Role.USER, (DocumentPart(Blob(data=b"%PDF", media_type="application/pdf")),)), "messages[0].parts[0]"),
        (Message(Role.ASSISTANT, (ImagePart(Blob(data=b"x", media_type="image/png")),)), "messages[0].parts[0]"),
        (Message(Role.USER, (ReasoningPart("hm"),)), "messages[0].parts[0]"),
    ],
)
def test_what_the_protocol_has_no_words_for_is_refused_by_path(message: Message, path: str) -> None:
    with pytest.raises(FieldNotExpressible) as caught:
        sent(ChatRequest((message,)))
    assert caught.value.metadata["field"] == path


@pytest.mark.feature("P1")
def test_a_call_cannot_be_forced_and_none_means_no_tools() -> None:
    for mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED):
        with pytest.raises(FieldNotExpressible, match="tool_choice"):
            sent(ChatRequest((USER,), tools=(TOOL,), tool_choice=ToolChoice(mode, "weather")))
    assert "tools" not in sent(ChatRequest((USER,), tools=(TOOL,), tool_choice=ToolChoice(ToolChoiceMode.NONE)))


@pytest.mark.feature("P1")
def test_what_is_left_out_without_harm_is_said_to_be() -> None:
    strict = ToolDefinition("weather", "", b"{}", strict=True)
    broken = Message(Role.ASSISTANT, (), (ToolCall("c", "weather", b"{oops"),))
    foreign = Message(
        Role.ASSISTANT,
        (
            ReasoningPart("hm", OpaqueState("anthropic", "signature", b"S")),
            OpaquePart(OpaqueState("anthropic", "server_tool_use", b"{}")),
            TextPart("x"),
        ),
    )
    request = ChatRequest((USER, broken, foreign), tools=(strict,), parallel_tool_calls=False, metadata={"user_id": "u"})
    assert warned(request) == [
        "messages[1].tool_calls[0].arguments",
        "messages[2].parts[0]",
        "messages[2].parts[1]",
        "parallel_tool_calls",
        "tools[0].strict",
        "metadata",
    ]


@pytest.mark.feature("P19")
def test_embeddings() -> None:
    call = EmbedCall(EmbedRequest(("a", "b"), dimensions=2), "nomic")
    encoded = OllamaWire("home", keep_alive="1m").encode_embed(call)
    assert (encoded.path, json.loads(encoded.body)) == (
        "/api/embed",
        {"model": "nomic", "input": ["a", "b"], "truncate": False, "keep_alive": "1m", "dimensions": 2},
    )
    result = WIRE.decode_embed(b'{"model":"nomic","embeddings":[[1,0.5],[0,2]],"prompt_eval_count":4}', call)
    assert (result.vectors, result.usage, result.model) == (((1.0, 0.5), (0.0, 2.0)), Usage(4), "nomic")
    with pytest.raises(FieldNotExpressible, match="send text"):
        WIRE.encode_embed(EmbedCall(EmbedRequest(((1, 2),)), "nomic"))
    with pytest.raises(RefusedInStream, match="not support"):
        WIRE.decode_embed(b'{"error":"this model does not support embeddings"}', call)
    for garbage in (b"{}", b"[]", b'{"embeddings":[["x"]]}'):
        with pytest.raises(ProviderResponseInvalid):
            WIRE.decode_embed(garbage, call)


def recorded() -> list[tuple[str, Any, bytes]]:
    if not FOLDER.is_dir():
        return []
    found = []
    for entry in json.loads((FOLDER / "MANIFEST.json").read_text()):
        for exchange in json.loads((FOLDER / f"{entry['id']}.cassette.json").read_text())["interactions"]:
            if exchange["request"]["uri"].endswith("/api/chat"):
                request = exchange["request"]["body"]
                found.append((entry["id"], json.loads(request), exchange["response"]["body"]["string"].encode()))
    return found


RECORDED = recorded()


@pytest.mark.skipif(not RECORDED, reason=ABSENT)
@pytest.mark.parametrize(("request_body", "body"), [one[1:] for one in RECORDED], ids=[one[0] for one in RECORDED])
def test_recorded_traffic_decodes_to_what_was_said_however_it_is_cut(request_body: Any, body: bytes) -> None:
    lines = [json.loads(one) for one in body.splitlines() if one.strip()]
    text, last = "".join(one["message"]["content"] for one in lines), lines[-1]
    result = result_of(decode([body])) if request_body["stream"] else WIRE.decode(body)
    assert result.message.text() == text
    assert (result.finish_reason, result.usage) == (FinishReason.STOP, Usage(last["prompt_eval_count"], last["eval_count"]))
    if request_body["stream"]:
        for step in (1, 7, 64):
            assert result_of(decode(cut(body, range(0, len(body), step)))) == result
    asked = ChatRequest(tuple(Message(Role[m["role"].upper()], (TextPart(m["content"]),)) for m in request_body["messages"]))
    assert sent(asked)["messages"] == request_body["messages"]
