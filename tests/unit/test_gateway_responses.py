"""OpenAI Responses: what is written, what is refused, and that nothing is lost between an answer and the next request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    FieldNotExpressible,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    ProviderUnavailable,
)
from kit.provider_decoding import check_order, cut, decode_stream, result_of
from kit.responses_codec import ORIGIN, WIRE, body_of, by_way_of_the_contract, items_of, streamed, warned, whole
from kit.responses_wires import (
    CREATED,
    OUTPUT,
    RESPONSES_STREAM,
    RESPONSES_WHOLE,
    SILENT_THOUGHT,
    WEATHER_ARGUMENTS,
    added,
    arguments,
    done,
    event,
    message,
    output_text,
    responses_body,
    responses_sse,
    summary,
    told,
)
from provider_gateway.adapters.openai_responses import Dialect, OpenAiResponsesWire
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    Notes,
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
from provider_gateway.domain.embeddings import EmbedRequest
from provider_gateway.domain.schemas import ANY_SERVER
from provider_gateway.operations.ports import EmbedCall, ModelCall

USER = Message(Role.USER, (TextPart("hi"),))
HI = {"type": "message", "role": "user", "content": "hi"}
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = ToolDefinition("weather", "Tells it", json.dumps(CLOSED).encode(), strict=True)


@pytest.mark.feature("P1")
def test_every_field_that_is_set_is_written() -> None:
    request = ChatRequest(
        (USER,),
        tools=(TOOL, ToolDefinition("plain")),
        tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather"),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", json.dumps(CLOSED).encode(), strict=True),
        sampling=Sampling(0.5, 0.9, 100, (), ReasoningEffort.LOW),
        metadata={"user_id": "u1"},
        parallel_tool_calls=False,
    )
    assert body_of(request, stream=True) == {
        "model": "m-1",
        "input": [HI],
        "tools": [
            {"type": "function", "name": "plain", "parameters": {"type": "object", "properties": {}}, "strict": False},
            {"type": "function", "name": "weather", "description": "Tells it", "parameters": CLOSED, "strict": True},
        ],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": CLOSED, "strict": True}},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "reasoning": {"effort": "low"},
        "user": "u1",
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
    }


@pytest.mark.feature("P1")
def test_what_is_not_set_is_not_written() -> None:
    assert body_of(ChatRequest((USER,))) == {"model": "m-1", "input": [HI], "store": False, "include": ["reasoning.encrypted_content"]}


@pytest.mark.feature("P1")
@pytest.mark.parametrize(("mode", "word"), [("AUTO", "auto"), ("NONE", "none"), ("REQUIRED", "required")])
def test_tool_choices_have_their_words(mode: str, word: str) -> None:
    assert body_of(ChatRequest((USER,), tools=(TOOL,), tool_choice=ToolChoice(ToolChoiceMode[mode])))["tool_choice"] == word


@pytest.mark.feature("P1")
def test_a_json_object_is_asked_for_without_a_schema() -> None:
    request = ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_OBJECT))
    assert body_of(request)["text"] == {"format": {"type": "json_object"}}


@pytest.mark.feature("P1")
def test_a_summary_of_reasoning_is_asked_for_together_with_an_effort() -> None:
    wire = OpenAiResponsesWire("acme", Dialect(summary="auto"))
    asked = ChatRequest((USER,), sampling=Sampling(reasoning_effort=ReasoningEffort.HIGH))
    assert body_of(asked, wire=wire)["reasoning"] == {"effort": "high", "summary": "auto"}
    assert "reasoning" not in body_of(ChatRequest((USER,)), wire=wire)
    off = ChatRequest((USER,), sampling=Sampling(reasoning_effort=ReasoningEffort.NONE))
    assert body_of(off, wire=wire)["reasoning"] == {"effort": "none"}


@pytest.mark.feature("P1")
def test_stop_texts_are_refused_and_a_seed_is_left_out_with_a_warning() -> None:
    with pytest.raises(FieldNotExpressible) as caught:
        body_of(ChatRequest((USER,), sampling=Sampling(stop=("END",))))
    assert caught.value.metadata["field"] == "sampling.stop"
    encoded = WIRE.encode(ModelCall(ChatRequest((USER,), sampling=Sampling(seed=7)), "m-1"), stream=False)
    assert [warning.field for warning in encoded.warnings] == ["sampling.seed"]
    assert "seed" not in json.loads(encoded.body)


@pytest.mark.feature("P23")
def test_a_schema_that_cannot_be_held_to_is_refused_by_its_path_unless_the_server_takes_any() -> None:
    open_tool = ToolDefinition("t", "", b'{"type":"object"}', strict=True)
    answer = ResponseFormat(FormatKind.JSON_SCHEMA, "", b'{"type":"object"}', strict=True)
    refused = {
        "tools[0].parameters": ChatRequest((USER,), tools=(open_tool,)),
        "response_format.schema": ChatRequest((USER,), response_format=answer),
    }
    for path, request in refused.items():
        with pytest.raises(FieldNotExpressible) as caught:
            body_of(request)
        assert caught.value.metadata["field"].startswith(path)
        body_of(request, wire=OpenAiResponsesWire("acme", Dialect(strict=ANY_SERVER)))


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
        DocumentPart(Blob(url="https://x/y.pdf")),
    )
    assert items_of(Message(Role.USER, parts))[0]["content"] == [
        {"type": "input_text", "text": "look"},
        {"type": "input_text", "text": '{"a":1}'},
        {"type": "input_image", "detail": "auto", "image_url": "https://x/y.png"},
        {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AA=="},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
    ]


@pytest.mark.feature("P1")
def test_names_that_cannot_go_along_are_said_to_stay() -> None:
    parts = (ImagePart(Blob(url="https://x", name="a")), DocumentPart(Blob(url="https://x", name="b")))
    assert warned(Message(Role.USER, parts)) == ["messages[0].parts[0].image.name", "messages[0].parts[1].document.name"]


@pytest.mark.feature("P2")
def test_a_turn_that_another_provider_had_is_written_in_items() -> None:
    turn = (
        Message(Role.SYSTEM, (TextPart("be brief"), JsonPart(b"{}"))),
        USER,
        Message(Role.ASSISTANT, (TextPart("one "), TextPart("moment")), (ToolCall("call_1", "weather", b'{"city": "Paris"'),)),
        Message(Role.TOOL, (JsonPart(b'{"error":"x"}'),), tool_call_id="call_1", tool_name="weather", is_error=True),
        Message(Role.SYSTEM, (TextPart("hurry"),)),
        Message(Role.ASSISTANT, (RefusalPart("no"),)),
    )
    assert items_of(*turn) == [
        {"type": "message", "role": "system", "content": "be brief\n{}"},
        HI,
        {"type": "message", "role": "assistant", "content": "one moment"},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Paris"'},
        {"type": "function_call_output", "call_id": "call_1", "output": 'Error: {"error":"x"}'},
        {"type": "message", "role": "system", "content": "hurry"},
        {"type": "message", "role": "assistant", "content": "no"},
    ]


@pytest.mark.feature("P2")
def test_a_tool_may_answer_with_pictures_and_documents() -> None:
    image = ImagePart(Blob(data=b"\x00", media_type="image/png"))
    answer = Message(Role.TOOL, (TextPart("seen"), image), tool_call_id="c")
    picture = {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AA=="}
    assert items_of(answer)[0]["output"] == [{"type": "input_text", "text": "seen"}, picture]
    failed = Message(Role.TOOL, (image,), tool_call_id="c", is_error=True)
    assert items_of(failed)[0]["output"] == [{"type": "input_text", "text": "Error:"}, picture]
    assert items_of(Message(Role.TOOL, (), tool_call_id="c"))[0]["output"] == ""


@pytest.mark.feature("P2")
def test_ids_that_are_too_long_are_shortened_alike_in_call_and_answer() -> None:
    ids = [f"{'x' * 70}{number}" for number in (1, 2)]
    calls = tuple(ToolCall(id_, "t", b"{}") for id_ in ids)
    answers = [Message(Role.TOOL, (TextPart("x"),), tool_call_id=id_) for id_ in ids]
    sent = [item["call_id"] for item in items_of(Message(Role.ASSISTANT, (), calls), *answers)]
    assert sent[:2] == sent[2:]
    assert len(set(sent)) == 2
    assert {len(id_) for id_ in sent} == {64}


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    "part",
    [
        ReasoningPart("hm", OpaqueState("anthropic", "signature", b"S")),
        ReasoningPart("hm", OpaqueState("openai-responses/other", "reasoning", b"{}")),
        ReasoningPart("hm", OpaqueState(ORIGIN, "reasoning", b"garbage")),
        ReasoningPart("hm"),
        OpaquePart(OpaqueState("anthropic", "server_tool_use", b"{}")),
        OpaquePart(OpaqueState("openai-responses/other", "web_search_call", b"{}")),
    ],
)
def test_state_of_another_provider_stays_here_and_is_said_to(part: ReasoningPart | OpaquePart) -> None:
    answer = Message(Role.ASSISTANT, (part, TextPart("x")))
    assert items_of(USER, answer)[1:] == [{"type": "message", "role": "assistant", "content": "x"}]
    assert warned(USER, answer) == ["messages[1].parts[0]"]


@pytest.mark.feature("P2")
def test_the_items_of_one_provider_are_plain_text_and_calls_to_another() -> None:
    answer = WIRE.decode(responses_body(RESPONSES_WHOLE)).message
    other = OpenAiResponsesWire("other")
    assert items_of(answer, wire=other) == [
        {"type": "message", "role": "assistant", "content": "Grüß Gott 🌍"},
        {"type": "function_call", "call_id": "call_a", "name": "weather", "arguments": WEATHER_ARGUMENTS},
        {"type": "function_call", "call_id": "call_b", "name": "time", "arguments": "{}"},
    ]
    assert warned(answer, wire=other) == [f"messages[0].parts[{place}]" for place in (0, 1, 3, 4)]


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (Message(Role.SYSTEM, (TextPart("a"), ImagePart(Blob(url="https://x")))), "messages[0].parts[1]"),
        (Message(Role.ASSISTANT, (ImagePart(Blob(url="https://x")),)), "messages[0].parts[0]"),
        (Message(Role.USER, (ReasoningPart("x"),)), "messages[0].parts[0]"),
        (Message(Role.TOOL, (RefusalPart("x"),), tool_call_id="c"), "messages[0].parts[0]"),
        (Message(Role.ASSISTANT, (OpaquePart(OpaqueState(ORIGIN, "program", b"{")),)), "messages[0].parts[0].opaque.data"),
    ],
)
def test_what_the_protocol_has_no_words_for_is_refused_by_path(sent: Message, path: str) -> None:
    with pytest.raises(FieldNotExpressible) as caught:
        items_of(sent)
    assert caught.value.metadata["field"] == path


@pytest.mark.feature("P2")
@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
def test_an_answer_goes_back_as_the_items_that_came_in_their_order(is_stream: bool) -> None:
    answer = streamed(*RESPONSES_STREAM) if is_stream else WIRE.decode(responses_body(RESPONSES_WHOLE))
    kept = by_way_of_the_contract(answer.message)
    assert items_of(USER, kept) == [HI, *OUTPUT]
    assert warned(USER, kept) == []


@pytest.mark.feature("P2")
def test_the_answer_of_a_call_that_a_program_made_goes_back_to_the_program() -> None:
    answer = WIRE.decode(responses_body(RESPONSES_WHOLE)).message
    results = [Message(Role.TOOL, (TextPart("x"),), tool_call_id=call.id) for call in answer.tool_calls]
    assert items_of(answer, *results)[-2:] == [
        {"type": "function_call_output", "call_id": "call_a", "output": "x"},
        {"type": "function_call_output", "call_id": "call_b", "output": "x", "caller": {"type": "program", "caller_id": "call_p"}},
    ]


texts = st.text('aß🌍"\n\\ ', max_size=6)
CONTENTS = st.one_of(
    texts.map(output_text),
    texts.map(lambda said: {"type": "refusal", "refusal": said or "no"}),
    texts.map(lambda said: {"type": "output_sound", "anything": said}),
)
SUMMARIES = st.lists(texts.map(lambda said: {"type": "summary_text", "text": said}), max_size=3)
CALLS = st.fixed_dictionaries({"name": texts, "arguments": texts.map(lambda said: said or "{}"), "status": st.just("completed")})
ANYTHING = st.dictionaries(texts, st.integers() | texts | st.none(), max_size=2)
ITEMS = st.one_of(
    st.lists(CONTENTS, max_size=3).map(lambda contents: message(*contents)),
    SUMMARIES.map(lambda pieces: {"type": "reasoning", "summary": pieces, "encrypted_content": "ENC"}),
    CALLS.map(lambda call: {"type": "function_call", **call}),
    st.tuples(st.sampled_from(["file_search_call", "mcp_call", "computer_call", "a_new_one"]), ANYTHING).map(
        lambda drawn: {"type": drawn[0], "anything": drawn[1]}
    ),
)


def numbered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with ids, and with a message at the end, since reasoning leads to something."""
    with_ids = [{**item, "id": f"item_{place}"} for place, item in enumerate(items)]
    with_calls = [{**item, "call_id": f"call_{item['id']}"} if item["type"] == "function_call" else item for item in with_ids]
    return [*with_calls, message(output_text("end"), id="msg_end")]


OUTPUTS = st.lists(ITEMS, max_size=7).map(numbered)


def grown(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of one item that grows."""
    match item["type"]:
        case "message":
            steps = [step for place, content in enumerate(item["content"]) for step in _contents(index, place, content)]
            return [added(index, {**item, "content": []}), *steps, done(index, item)]
        case "reasoning":
            pieces = [(place, piece["text"]) for place, piece in enumerate(item["summary"])]
            steps = [summary(letter, place, index) for place, said in pieces for letter in said]
            return [added(index, {**item, "summary": []}), *steps, done(index, item)]
        case "function_call":
            return [added(index, {**item, "arguments": ""}), *(arguments(letter, index) for letter in item["arguments"]), done(index, item)]
    return [added(index, item), done(index, item)]


def _contents(index: int, place: int, content: dict[str, Any]) -> list[dict[str, Any]]:
    kind = {"output_text": "output_text.delta", "refusal": "refusal.delta"}.get(content["type"], "")
    said = content.get("text") or content.get("refusal") or ""
    deltas = [event(kind, index, content_index=place, delta=letter) for letter in said] if kind else []
    return [*deltas, event("content_part.done", index, content_index=place, part=content)]


@pytest.mark.feature("P2")
@pytest.mark.parametrize("grows", [True, False], ids=["growing", "done"])
@given(OUTPUTS, st.lists(st.integers(0, 6000), max_size=8))
def test_items_of_any_kind_in_any_order_are_none_lost(grows: bool, items: list[dict[str, Any]], places: list[int]) -> None:
    answer = whole(*items)
    assert items_of(by_way_of_the_contract(answer.message)) == items
    steps = [step for index, item in enumerate(items) for step in (grown(index, item) if grows else [done(index, item)])]
    events = decode_stream(WIRE, cut(responses_sse([CREATED, *steps, told("completed", output=items)]), places))
    check_order(events)
    assert result_of(events) == answer


@pytest.mark.feature("P2")
def test_reasoning_that_the_provider_neither_kept_nor_gave_is_left_out_with_a_warning() -> None:
    bare = {"id": "rs_3", "type": "reasoning", "summary": []}
    answer = whole(bare, message(output_text("x"))).message
    assert [item["type"] for item in items_of(answer)] == ["message"]
    assert warned(answer) == ["messages[0].parts[0]"]
    storing = OpenAiResponsesWire("acme", Dialect(store=True))
    assert items_of(answer, wire=storing)[0] == bare
    assert "include" not in body_of(ChatRequest((USER,)), wire=storing)
    spoken = {**bare, "content": [{"type": "reasoning_text", "text": "openly"}]}
    assert items_of(whole(spoken, message(output_text("x"))).message)[0] == spoken


@pytest.mark.feature("P2")
def test_reasoning_that_led_to_nothing_is_left_out_with_a_warning() -> None:
    cut_off = whole(message(output_text("x")), SILENT_THOUGHT, status="incomplete").message
    assert [item["type"] for item in items_of(cut_off)] == ["message"]
    assert warned(cut_off) == ["messages[0].parts[1]"]


def refusal(message: str, model: str = "m-1") -> ProviderRequestRefused:
    return ProviderRequestRefused(f"acme refused {model} with HTTP 400: {message}", metadata={"model": model})


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    "words",
    [
        "Encrypted content is not supported with this model.",
        "Reasoning input items can only be provided to a reasoning or computer use model.",
    ],
)
def test_a_model_that_says_that_it_does_not_reason_is_spared_reasoning_and_no_other(words: str) -> None:
    relaxed = WIRE.relaxed(refusal(words))
    assert relaxed is not None
    assert relaxed.relaxed(refusal(words)) is None, "asked without, the server speaks of something else"
    answer = WIRE.decode(responses_body(RESPONSES_WHOLE)).message
    assert "include" not in body_of(ChatRequest((USER,)), wire=relaxed)
    assert "reasoning" not in {item["type"] for item in items_of(answer, wire=relaxed)}
    twice = relaxed.relaxed(refusal(words, "m-3"))
    assert twice is not None
    assert twice.dialect.plain == {"m-1", "m-3"}
    other = json.loads(relaxed.encode(ModelCall(ChatRequest((USER, answer)), "m-2"), stream=False).body)
    assert other["include"] == ["reasoning.encrypted_content"]
    assert other["input"][1:] == OUTPUT


@pytest.mark.feature("P2")
@pytest.mark.parametrize("words", ["The encrypted content gAAA could not be verified.", "Unsupported parameter: 'temperature'"])
def test_another_refusal_changes_nothing(words: str) -> None:
    assert WIRE.relaxed(refusal(words)) is None
    assert WIRE.relaxed(ProviderUnavailable("Encrypted content is not supported", metadata={"model": "m-1"})) is None


@pytest.mark.feature("P20")
def test_input_is_counted_by_the_provider_that_can() -> None:
    counting = OpenAiResponsesWire("acme", Dialect(counts=True))
    request = ChatRequest((USER,), tools=(TOOL,), sampling=Sampling(0.5, None, 10))
    encoded = counting.encode_count(ModelCall(request, "m-1"))
    assert encoded is not None
    assert encoded.path == "/responses/input_tokens"
    assert set(json.loads(encoded.body)) == {"model", "input", "tools"}
    assert counting.decode_count(b'{"object":"response.input_tokens","input_tokens":11}') == 11
    with pytest.raises(ProviderResponseInvalid):
        counting.decode_count(b"{}")
    assert WIRE.encode_count(ModelCall(request, "m-1")) is None


@pytest.mark.feature("P19")
def test_vectors_come_from_the_vendors_endpoint_for_them() -> None:
    call = EmbedCall(EmbedRequest(("a", "b")), "m")
    assert WIRE.encode_embed(call).path == "/embeddings"
    assert WIRE.embed_limit >= 2
    vectors = {"data": [{"embedding": [1.0], "index": 1}, {"embedding": [2.0], "index": 0}], "model": "m"}
    assert WIRE.decode_embed(json.dumps(vectors).encode(), call).vectors == ((2.0,), (1.0,))


def test_a_text_keeps_its_item_apart_from_notes_of_others() -> None:
    mine = Notes(provider_state=(OpaqueState("x", "message", b'{"id":"1"}'), OpaqueState(ORIGIN, "message", b"garbage")))
    assert items_of(Message(Role.ASSISTANT, (TextPart("a", mine),))) == [{"type": "message", "role": "assistant", "content": "a"}]
