"""Gemini generateContent: requests as they are written, answers as they are read, and back again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import FieldNotExpressible, ProviderResponseInvalid, StreamIncomplete
from kit.gemini_wires import GEMINI_PARTS, GEMINI_STREAM, GEMINI_WHOLE, gemini_sse, piece
from kit.provider_decoding import check_order, cut, decode_stream, result_of
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.gemini.generations import NEWEST, generation
from provider_gateway.adapters.http.sse import SseParser
from provider_gateway.adapters.wire import RefusedInStream
from provider_gateway.domain.answers import ChatResult, FinishReason, TextDelta, Usage, UsageReport
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    Citation,
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
from provider_gateway.operations.ports import ModelCall

WIRE = GeminiWire("g")
NEW, OLD = "gemini-3.8-flash", "gemini-2.5-flash"
USER = Message(Role.USER, (TextPart("hi"),))
TOOL = ToolDefinition("weather", "Tells it", b'{"type":"object"}')
JSON = ResponseFormat(FormatKind.JSON_SCHEMA, "a", b'{"type":"object"}')


def body_of(request: ChatRequest, model: str = NEW) -> dict[str, Any]:
    return json.loads(WIRE.encode(ModelCall(request, model), stream=False).body)


def contents_of(*messages: Message, model: str = NEW) -> list[dict[str, Any]]:
    return body_of(ChatRequest(messages), model)["contents"]


def warned(request: ChatRequest, model: str = NEW) -> list[str]:
    return [warning.field for warning in WIRE.encode(ModelCall(request, model), stream=False).warnings]


def answered(*events: dict[str, Any]) -> ChatResult:
    return result_of(decode_stream(WIRE, [gemini_sse(list(events))]))


def whole(document: Any) -> ChatResult:
    return WIRE.decode(json.dumps(document).encode())


def calling(*calls: ToolCall) -> Message:
    return Message(Role.ASSISTANT, (), calls)


def gave(part: Part) -> Message:
    return Message(Role.TOOL, (part,), tool_call_id="c", tool_name="t")


def result(call_id: str, text: str, **fields: Any) -> Message:
    return Message(Role.TOOL, (TextPart(text),), tool_call_id=call_id, **fields)


@pytest.mark.feature("P1")
def test_every_field_that_is_set_is_written() -> None:
    request = ChatRequest(
        (Message(Role.SYSTEM, (TextPart("be brief"), JsonPart(b"{}"))), USER),
        tools=(TOOL, ToolDefinition("plain")),
        tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather"),
        response_format=JSON,
        sampling=Sampling(0.5, 0.9, 100, ("END",), ReasoningEffort.LOW, 7),
        parallel_tool_calls=True,
    )
    assert body_of(request) == {
        "systemInstruction": {"parts": [{"text": "be brief"}, {"text": "{}"}]},
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "plain"},
                    {"name": "weather", "description": "Tells it", "parametersJsonSchema": {"type": "object"}},
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxOutputTokens": 100,
            "stopSequences": ["END"],
            "seed": 7,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
            "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
        },
    }


@pytest.mark.feature("P1")
def test_what_is_not_set_is_not_written() -> None:
    assert body_of(ChatRequest((USER,))) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-x", False, "/models/gemini-x:generateContent"),
        ("gemini-x", True, "/models/gemini-x:streamGenerateContent?alt=sse"),
        ("models/gemini-x", False, "/models/gemini-x:generateContent"),
        ("tunedModels/mine", False, "/tunedModels/mine:generateContent"),
        ("a?b#c", False, "/models/a%3Fb%23c:generateContent"),
    ],
)
def test_the_model_and_the_way_to_answer_are_in_the_path(model: str, stream: bool, path: str) -> None:
    assert WIRE.encode(ModelCall(ChatRequest((USER,)), model), stream=stream).path == path


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("mode", "strict", "word"),
    [
        (ToolChoiceMode.UNSPECIFIED, False, None),
        (ToolChoiceMode.AUTO, False, "AUTO"),
        (ToolChoiceMode.NONE, False, "NONE"),
        (ToolChoiceMode.REQUIRED, False, "ANY"),
        (ToolChoiceMode.UNSPECIFIED, True, "VALIDATED"),
        (ToolChoiceMode.AUTO, True, "VALIDATED"),
        (ToolChoiceMode.NONE, True, "NONE"),
        (ToolChoiceMode.REQUIRED, True, "ANY"),
    ],
)
def test_tool_choices_have_their_words_and_strict_tools_are_held_to_their_schema(
    mode: ToolChoiceMode, strict: bool, word: str | None
) -> None:
    tool = ToolDefinition("weather", "Tells it", b'{"type":"object"}', strict)
    config = body_of(ChatRequest((USER,), tools=(tool,), tool_choice=ToolChoice(mode))).get("toolConfig")
    assert config == (None if word is None else {"functionCallingConfig": {"mode": word}})


@pytest.mark.feature("P1")
def test_json_of_any_shape_is_asked_for_by_its_type_alone() -> None:
    request = ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_OBJECT))
    assert body_of(request)["generationConfig"] == {"responseMimeType": "application/json"}


@pytest.mark.feature("P23")
def test_schemas_keep_what_the_api_holds_to_and_tell_the_rest_or_are_refused_when_strict() -> None:
    schema = b'{"type":"object","properties":{"a":{"type":"string","pattern":"^x"}},"additionalProperties":false}'
    tool, answer = ToolDefinition("f", "", schema), ResponseFormat(FormatKind.JSON_SCHEMA, "a", schema)
    body = body_of(ChatRequest((USER,), tools=(tool,), response_format=answer))
    assert body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == json.loads(schema)
    told = {"type": "string", "description": 'pattern: "^x"'}
    assert body["generationConfig"]["responseJsonSchema"] == {"type": "object", "properties": {"a": told}, "additionalProperties": False}
    assert warned(ChatRequest((USER,), response_format=answer)) == ["response_format.schema.properties.a.pattern"]
    for request, path in (
        (ChatRequest((USER,), tools=(replace(tool, strict=True),)), "tools[0].parameters.properties.a.pattern"),
        (ChatRequest((USER,), response_format=replace(answer, strict=True)), "response_format.schema.properties.a.pattern"),
    ):
        with pytest.raises(FieldNotExpressible) as caught:
            body_of(request)
        assert caught.value.metadata["field"] == path


@pytest.mark.feature("P1")
def test_what_is_harmlessly_left_out_is_warned_of() -> None:
    image = ImagePart(Blob(url="https://x/y.png", name="n"))
    assert warned(ChatRequest((USER,), metadata={"run": "r"})) == ["metadata"]
    assert warned(ChatRequest((USER, Message(Role.SYSTEM, (TextPart("now"),))))) == ["messages[1]"]
    assert warned(ChatRequest((Message(Role.USER, (image,)),))) == ["messages[0].parts[0].name"]


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("request_", "model", "path"),
    [
        (ChatRequest((Message(Role.USER, (ReasoningPart("x"),)),)), NEW, "messages[0].parts[0]"),
        (ChatRequest((Message(Role.SYSTEM, (ImagePart(Blob(url="https://x")),)),)), NEW, "messages[0].parts[0]"),
        (ChatRequest((Message(Role.TOOL, (TextPart("x"),), tool_call_id="lost"),)), NEW, "messages[0].tool_name"),
        (ChatRequest((gave(OpaquePart(OpaqueState("a", "b", b""))),)), NEW, "messages[0].parts[0]"),
        (ChatRequest((gave(ImagePart(Blob(data=b"x", media_type="image/png"))),)), OLD, "messages[0].parts[0]"),
        (ChatRequest((USER,), tools=(ToolDefinition("1st"),)), NEW, "tools[0].name"),
        (ChatRequest((USER,), tools=(TOOL,), parallel_tool_calls=False), NEW, "parallel_tool_calls"),
        (ChatRequest((USER,), tools=(TOOL,), response_format=JSON), OLD, "response_format.kind"),
        (ChatRequest((USER,), sampling=Sampling(stop=("a", "b", "c", "d", "e", "f"))), NEW, "sampling.stop"),
        (ChatRequest((USER,), sampling=Sampling(seed=2**31)), NEW, "sampling.seed"),
    ],
)
def test_what_the_protocol_has_no_words_for_is_refused_by_path(request_: ChatRequest, model: str, path: str) -> None:
    with pytest.raises(FieldNotExpressible) as caught:
        body_of(request_, model)
    assert caught.value.metadata["field"] == path


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("effort", "model", "limit", "expected", "adapted"),
    [
        (ReasoningEffort.UNSPECIFIED, NEW, None, None, False),
        (ReasoningEffort.HIGH, "gemini-2.0-flash", None, None, False),
        (ReasoningEffort.NONE, OLD, None, {"thinkingBudget": 0}, False),
        (ReasoningEffort.NONE, "gemini-2.5-pro", None, {"thinkingBudget": 128}, True),
        (ReasoningEffort.LOW, OLD, None, {"thinkingBudget": 1024, "includeThoughts": True}, False),
        (ReasoningEffort.HIGH, OLD, None, {"thinkingBudget": 24_576, "includeThoughts": True}, False),
        (ReasoningEffort.HIGH, OLD, 1000, {"thinkingBudget": 500, "includeThoughts": True}, False),
        (ReasoningEffort.HIGH, "gemini-2.5-flash-lite", 1000, {"thinkingBudget": 512, "includeThoughts": True}, False),
        (ReasoningEffort.HIGH, NEW, 1000, {"thinkingLevel": "HIGH", "includeThoughts": True}, False),
        (ReasoningEffort.MINIMAL, "gemini-3-flash-preview", None, {"thinkingLevel": "MINIMAL", "includeThoughts": True}, False),
        (ReasoningEffort.MINIMAL, "models/gemini-3.6-flash", None, {"thinkingLevel": "MINIMAL", "includeThoughts": True}, False),
        (ReasoningEffort.MINIMAL, NEW, None, {"thinkingLevel": "LOW", "includeThoughts": True}, True),
        (ReasoningEffort.MEDIUM, "gemini-3-pro-preview", None, {"thinkingLevel": "HIGH", "includeThoughts": True}, True),
        (ReasoningEffort.MEDIUM, "gemini-3.1-pro-preview", None, {"thinkingLevel": "MEDIUM", "includeThoughts": True}, False),
        (ReasoningEffort.NONE, "gemini-flash-latest", None, {"thinkingLevel": "LOW"}, True),
    ],
)
def test_effort_is_said_as_the_models_generation_understands_it(
    effort: ReasoningEffort, model: str, limit: int | None, expected: dict[str, Any] | None, adapted: bool
) -> None:
    request = ChatRequest((USER,), sampling=Sampling(max_output_tokens=limit, reasoning_effort=effort))
    assert body_of(request, model).get("generationConfig", {}).get("thinkingConfig") == expected
    assert warned(request, model) == (["sampling.reasoning_effort"] if adapted else [])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-2.5-flash", (2, 5)),
        ("models/gemini-3-pro-preview", (3, 0)),
        ("publishers/google/models/gemini-3.1-flash-lite", (3, 1)),
        ("gemini-flash-latest", NEWEST),
        ("mine", NEWEST),
    ],
)
def test_a_models_generation_is_in_its_name_and_names_without_one_are_of_the_newest(model: str, expected: tuple[int, int]) -> None:
    assert generation(model) == expected


@pytest.mark.feature("P2")
def test_images_and_documents_have_their_forms() -> None:
    parts = (
        JsonPart(b'{"a":1}'),
        ImagePart(Blob(data=b"\x00", media_type="image/png")),
        ImagePart(Blob(url="https://x/y.JPG?size=2")),
        ImagePart(Blob(url="https://x/y")),
        DocumentPart(Blob(url="https://x/y", media_type="application/pdf")),
    )
    assert contents_of(Message(Role.USER, parts))[0]["parts"] == [
        {"text": '{"a":1}'},
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"fileData": {"fileUri": "https://x/y.JPG?size=2", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "https://x/y"}},
        {"fileData": {"fileUri": "https://x/y", "mimeType": "application/pdf"}},
    ]


@pytest.mark.feature("P2")
def test_a_turn_with_tools_alternates_and_its_results_come_together_in_the_order_of_the_calls() -> None:
    """The protocol tells calls without ids apart by their order alone."""
    calls = (ToolCall("a", "weather", b'{"city":"Paris"}'), ToolCall("b", "weather", b"broken"))
    turn = (USER, calling(*calls), result("b", "none", is_error=True), result("a", "18 C"), Message(Role.USER, (TextPart("and?"),)))
    assert contents_of(*turn, model=OLD) == [
        {"role": "user", "parts": [{"text": "hi"}]},
        {
            "role": "model",
            "parts": [
                {"functionCall": {"name": "weather", "args": {"city": "Paris"}}},
                {"functionCall": {"name": "weather", "args": {"invalid_arguments": "broken"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "weather", "response": {"output": "18 C"}}},
                {"functionResponse": {"name": "weather", "response": {"error": "none"}}},
                {"text": "and?"},
            ],
        },
    ]
    assert warned(ChatRequest(turn), OLD) == ["messages[1].tool_calls[1].arguments"]


@pytest.mark.feature("P2")
def test_a_result_keeps_its_json_and_its_pictures() -> None:
    parts = (JsonPart(b'{"celsius":18}'), ImagePart(Blob(data=b"\x00", media_type="image/png")))
    history = (USER, calling(ToolCall("a", "weather", b"{}")), Message(Role.TOOL, parts, tool_call_id="a"))
    assert contents_of(*history)[-1]["parts"] == [
        {
            "functionResponse": {
                "name": "weather",
                "response": {"output": {"celsius": 18}},
                "parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}],
            }
        }
    ]


@pytest.mark.feature("P2")
def test_ids_go_back_only_where_they_are_the_apis_own() -> None:
    message = whole(GEMINI_WHOLE).message
    made_up, own = (call.id for call in message.tool_calls)
    assert own == "own-1"
    parts = contents_of(USER, message, result(made_up, "18 C"), result(own, "noon"))[-1]["parts"]
    assert parts == [
        {"functionResponse": {"name": "weather", "response": {"output": "18 C"}}},
        {"functionResponse": {"name": "now", "response": {"output": "noon"}, "id": "own-1"}},
    ]


@pytest.mark.feature("P2")
@pytest.mark.feature("P12")
def test_calls_of_another_provider_are_marked_unchecked_for_models_that_want_signatures() -> None:
    """So that a conversation can go on here after a failover in the middle of a turn."""
    history = (USER, calling(ToolCall("a", "weather", b"{}"), ToolCall("b", "now", b"{}")), result("a", "x"), result("b", "y"))
    marked = [call.get("thoughtSignature") for call in contents_of(*history, *history)[1]["parts"]]
    assert marked == ["skip_thought_signature_validator", None]
    assert warned(ChatRequest(history + history)) == ["messages[1].tool_calls[0]"]
    assert not any("thoughtSignature" in call for call in contents_of(*history, model=OLD)[1]["parts"])


@pytest.mark.feature("P3")
@pytest.mark.feature("P8")
def test_a_stream_becomes_the_answer_that_would_have_come_at_once() -> None:
    events = decode_stream(WIRE, [gemini_sse(GEMINI_STREAM)])
    check_order(events)
    assert result_of(events) == whole(GEMINI_WHOLE)
    found = result_of(events)
    assert (found.finish_reason, found.finish_reason_raw) == (FinishReason.TOOL_CALLS, "STOP")
    assert found.usage == Usage(23, 12, cache_read_tokens=16, reasoning_tokens=7)
    assert (found.provider, found.model, found.response_id) == ("g", "gemini-x", "r1")


@pytest.mark.feature("P8")
def test_every_piece_counts_and_only_the_last_count_of_what_came_together_is_told() -> None:
    counts = [{"promptTokenCount": 9}, {"candidatesTokenCount": 1}, {"trafficType": "ON_DEMAND"}, {"candidatesTokenCount": 2}]
    decoder, parser = WIRE.decoder(), SseParser()
    together = decoder.feed(parser.feed(gemini_sse([piece({"text": "a"}, usageMetadata=count) for count in counts])))
    assert [event for event in together if isinstance(event, UsageReport)] == [UsageReport(Usage(9, 2))]
    assert [event.text for event in together if isinstance(event, TextDelta)] == ["aaaa"]
    assert decoder.feed(parser.feed(gemini_sse([piece({"text": "b"}, usageMetadata=counts[-1])]))) == [TextDelta("b")]


@pytest.mark.feature("P8")
def test_what_was_counted_before_a_stream_broke_is_told_too() -> None:
    decoder = WIRE.decoder()
    events = SseParser().feed(gemini_sse([piece({"text": "a"}, usageMetadata={"promptTokenCount": 9})]) + b"data: garbage\n\n")
    with pytest.raises(ProviderResponseInvalid):
        decoder.feed(events)
    assert UsageReport(Usage(9)) in decoder.drain()


@pytest.mark.feature("P2")
def test_everything_the_model_gave_goes_back_as_it_came() -> None:
    """Thoughts, signatures, blocks of the vendor's own tools, calls, all in their order."""
    message = answered(*GEMINI_STREAM).message
    sent = contents_of(USER, message)[1]
    expected = [*GEMINI_PARTS[:-1], {"functionCall": {"id": "own-1", "name": "now", "args": {}}}]
    assert sent == {"role": "model", "parts": expected}
    assert warned(ChatRequest((USER, message))) == []


@pytest.mark.feature("P2")
def test_a_signature_goes_back_on_the_very_part_it_came_with() -> None:
    signed = [
        piece({"text": "a"}),
        piece({"text": "b"}),
        piece({"text": "c", "thoughtSignature": "S1"}),
        piece({"functionCall": {"name": "f", "args": {}}}),
        piece({"text": "d"}),
        piece({"text": "hm", "thought": True, "thoughtSignature": "S2"}),
        piece({"text": "", "thoughtSignature": "S3"}, finish="STOP"),
    ]
    message = answered(*signed).message
    assert message.text() == "abcd"
    assert contents_of(USER, message, model=OLD)[1]["parts"] == [
        {"text": "ab"},
        {"text": "c", "thoughtSignature": "S1"},
        {"functionCall": {"name": "f", "args": {}}},
        {"text": "d"},
        {"text": "hm", "thought": True, "thoughtSignature": "S2"},
        {"text": "", "thoughtSignature": "S3"},
    ]


@pytest.mark.feature("P2")
def test_a_history_whose_calls_were_taken_out_is_still_written() -> None:
    message = answered(piece({"functionCall": {"name": "f"}}, {"text": "x"}, finish="STOP")).message
    edited = Message(Role.ASSISTANT, message.parts, (), provider_state=message.provider_state)
    assert contents_of(USER, edited)[1]["parts"] == [{"text": "x"}]


@pytest.mark.feature("P2")
def test_a_picture_is_one_and_other_media_are_kept_whole() -> None:
    audio = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}
    image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thoughtSignature": "S"}
    message = answered(piece(image, audio, finish="STOP")).message
    assert isinstance(message.parts[0], ImagePart)
    assert message.parts[0].blob == Blob(data=b"\x00", media_type="image/png")
    assert contents_of(USER, message)[1]["parts"] == [image, audio]


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    "part",
    [
        ReasoningPart("hm", OpaqueState("anthropic", "signature", b"S")),
        ReasoningPart("hm"),
        OpaquePart(OpaqueState("anthropic", "server_tool_use", b"{}")),
    ],
)
def test_state_of_another_provider_stays_here_and_is_said_to(part: ReasoningPart | OpaquePart) -> None:
    request = ChatRequest((USER, Message(Role.ASSISTANT, (part, TextPart("x")))))
    assert body_of(request)["contents"][1]["parts"] == [{"text": "x"}]
    assert warned(request) == ["messages[1].parts[0]"]


@pytest.mark.feature("P2")
def test_what_an_answer_rests_on_is_cited_where_it_stands_and_kept_whole() -> None:
    message = whole(GEMINI_WHOLE).message
    text = next(part for part in message.parts if isinstance(part, TextPart))
    assert [text.text[citation.start : citation.end] for citation in text.citations] == ["Gott", "Gott"]
    assert text.citations[0] == Citation("https://a.example/", "A", "", 5, 9)
    kept = {state.kind: json.loads(state.data) for state in message.provider_state}
    assert kept["grounding_metadata"]["webSearchQueries"] == ["greeting"]


@pytest.mark.feature("P2")
@pytest.mark.parametrize("name", ["citationSources", "citations"])
def test_recited_passages_are_cited_by_part_and_character(name: str) -> None:
    sources = [{"startIndex": 4, "endIndex": 7, "uri": "https://s.example/", "title": "S"}, {"uri": "https://t.example/"}, "odd"]
    parts = piece({"text": "ärg", "thoughtSignature": "S"}, {"text": "you"}, finish="STOP", candidate={"citationMetadata": {name: sources}})
    first, second = answered(parts).message.parts
    assert first.citations == ()
    assert second.citations == (Citation("https://s.example/", "S", "", 0, 3), Citation("https://t.example/"))


@pytest.mark.feature("P6")
def test_every_way_to_cut_a_stream_in_two_decodes_alike() -> None:
    for ending in (b"\n", b"\r\n", b"\r"):
        body = gemini_sse(GEMINI_STREAM).replace(b"\r\n", ending)
        for place in range(1, len(body), 3):
            assert result_of(decode_stream(WIRE, cut(body, [place]))) == whole(GEMINI_WHOLE)


@pytest.mark.feature("P6")
@given(places=st.lists(st.integers(0, 3000), max_size=20))
def test_any_pieces_obey_the_order_and_mean_the_same(places: list[int]) -> None:
    events = decode_stream(WIRE, cut(gemini_sse(GEMINI_STREAM), places))
    check_order(events)
    assert result_of(events) == whole(GEMINI_WHOLE)


@pytest.mark.feature("P7")
@pytest.mark.parametrize("length", range(len(GEMINI_STREAM)))
def test_a_stream_without_a_finish_reason_is_incomplete(length: int) -> None:
    with pytest.raises(StreamIncomplete, match="before a finish reason"):
        decode_stream(WIRE, [gemini_sse(GEMINI_STREAM[:length])])


@pytest.mark.feature("P7")
def test_an_error_within_a_stream_is_one() -> None:
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    with pytest.raises(RefusedInStream, match="overloaded") as caught:
        decode_stream(WIRE, [gemini_sse([*GEMINI_STREAM[:3], error])])
    assert (caught.value.refusal.status, caught.value.refusal.type) == (503, "UNAVAILABLE")
    with pytest.raises(RefusedInStream, match="overloaded"):
        whole([error])


@pytest.mark.feature("P7")
@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b'{"candidates":"x"}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{}}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"*"}}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","partialArgs":[{"jsonPath":"x"}]}}]}}]}',
    ],
)
def test_garbage_is_refused_and_shown(data: bytes) -> None:
    with pytest.raises(ProviderResponseInvalid, match="not its protocol"):
        decode_stream(WIRE, [b"data: " + data + b"\n\n"])


def test_a_whole_response_without_an_answer_is_no_answer() -> None:
    with pytest.raises(ProviderResponseInvalid, match="without candidates"):
        whole({"usageMetadata": {"promptTokenCount": 1}, "responseId": "r"})


def test_a_server_that_sends_a_list_instead_of_events_is_understood() -> None:
    assert whole(GEMINI_STREAM) == whole(GEMINI_WHOLE)
    with pytest.raises(StreamIncomplete):
        whole(GEMINI_STREAM[:-1])


@pytest.mark.feature("P4")
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("BLOCKLIST", FinishReason.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.CONTENT_FILTER),
        ("SPII", FinishReason.CONTENT_FILTER),
        ("MALFORMED_FUNCTION_CALL", FinishReason.ERROR),
        ("OTHER", FinishReason.UNKNOWN),
        ("SOMETHING_NEW", FinishReason.UNKNOWN),
    ],
)
def test_finish_reasons_are_mapped_and_their_words_kept(raw: str, reason: FinishReason) -> None:
    found = answered(piece({"text": "x"}, finish=raw, candidate={"finishMessage": "why"}))
    assert (found.finish_reason, found.finish_reason_raw) == (reason, raw)
    assert [state.kind for state in found.message.provider_state] == ([] if raw == "STOP" else ["finish_message"])


@pytest.mark.feature("P4")
@pytest.mark.parametrize(("number", "raw"), [(1, "STOP"), (9, "MALFORMED_FUNCTION_CALL"), (77, "77")])
def test_finish_reasons_by_number_have_their_names(number: int, raw: str) -> None:
    assert answered(piece({"text": "x"}, candidate={"finishReason": number})).finish_reason_raw == raw


@pytest.mark.feature("P4")
def test_a_blocked_prompt_is_an_answer_that_was_filtered_and_its_tokens_count() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}, "modelVersion": "gemini-x"}
    for found in (whole(blocked), answered(blocked)):
        assert (found.finish_reason, found.finish_reason_raw) == (FinishReason.CONTENT_FILTER, "SAFETY")
        assert found.message.parts == ()
        assert found.usage.input_tokens == 9
        assert found.message.provider_state[0].kind == "prompt_feedback"


def test_a_candidate_that_was_not_asked_for_is_left_out_and_said_to_be() -> None:
    second = {"content": {"parts": [{"text": "two"}]}, "index": 1}
    document = piece({"text": "one"}, finish="STOP")
    document["candidates"].append(second)
    found = whole(document)
    assert found.message.text() == "one"
    assert "candidate 1" in found.warnings[0].message


def test_thoughts_and_text_of_kinds_that_do_not_exist_yet_are_kept_whole() -> None:
    new = {"hologram": {"depth": 3}, "thoughtSignature": "S"}
    message = answered(piece({"text": "a"}, new, {"text": "b"}, finish="STOP")).message
    assert contents_of(USER, message)[1]["parts"] == [{"text": "a"}, new, {"text": "b"}]


def streamed_call(*pieces: dict[str, Any]) -> list[ToolCall]:
    return list(answered(*(piece({"functionCall": one}) for one in pieces), piece(finish="STOP")).message.tool_calls)


@pytest.mark.feature("P3")
def test_arguments_that_come_in_pieces_are_put_together() -> None:
    calls = streamed_call(
        {"name": "plan", "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.city", "stringValue": "San ", "willContinue": True}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.city", "stringValue": "Francisco"}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.days[1].hours", "numberValue": 3}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$['a.b']", "boolValue": True}], "willContinue": True},
        {"partialArgs": [{"jsonPath": '$["c"]', "nullValue": "NULL_VALUE"}], "willContinue": True},
        {},
        {"name": "now"},
    )
    assert [call.name for call in calls] == ["plan", "now"]
    assert json.loads(calls[0].arguments) == {"city": "San Francisco", "days": [None, {"hours": 3}], "a.b": True, "c": None}
    assert calls[1].arguments == b"{}"


def test_arguments_at_a_senseless_place_are_refused_and_cost_no_memory() -> None:
    for path in ("$[0]", "$.a[99999999]", "$", "a", "$.a..b"):
        with pytest.raises(ProviderResponseInvalid):
            streamed_call({"name": "f", "partialArgs": [{"jsonPath": path, "numberValue": 1}]})


NAMES = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
VALUES = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | st.text(max_size=4),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_any_arguments_survive_being_sent_leaf_by_leaf(value: Any) -> None:
    pieces = [{"partialArgs": [leaf], "willContinue": True} for leaf in leaves("$.x", value)]
    (call,) = streamed_call({"name": "f", "willContinue": True}, *pieces, {})
    assert json.loads(call.arguments) == {"x": value}


def leaves(path: str, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(f"{path}.{name}", inner)]
    if isinstance(value, list):
        return [leaf for at, inner in enumerate(value) for leaf in leaves(f"{path}[{at}]", inner)]
    kind = "boolValue" if isinstance(value, bool) else "numberValue" if isinstance(value, int) else "stringValue"
    if kind != "stringValue":
        return [{"jsonPath": path, kind: value}]
    half = len(value) // 2
    return [{"jsonPath": path, kind: value[:half], "willContinue": True}, {"jsonPath": path, kind: value[half:]}]
