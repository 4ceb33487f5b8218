"""OpenAI Responses: what is read, streamed or whole, and what is refused as no answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    Fault,
    ProviderPermissionDenied,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    StreamIncomplete,
)
from kit.provider_decoding import check_order, cut, decode_stream, result_of, said
from kit.responses_codec import WIRE, items_of, streamed, whole
from kit.responses_wires import (
    CITED,
    COMPLETED,
    CREATED,
    PREAMBLE,
    RESPONSES_STREAM,
    RESPONSES_WHOLE,
    SILENT_THOUGHT,
    THOUGHT,
    WEATHER,
    WEATHER_ARGUMENTS,
    added,
    arguments,
    done,
    event,
    message,
    output_text,
    response,
    responses_body,
    responses_sse,
    summary,
    text,
    told,
)
from provider_gateway.adapters.http.refusals import Refusal, Refused, fault_of
from provider_gateway.adapters.wire import RefusedInStream
from provider_gateway.domain.answers import FinishReason, Usage
from provider_gateway.domain.chat import (
    Citation,
    TextPart,
)


@pytest.mark.feature("P3")
@pytest.mark.feature("P8")
def test_a_stream_becomes_the_answer() -> None:
    result = streamed(*RESPONSES_STREAM)
    assert said(result.message) == ("Grüß Gott 🌍", "**Look**\n\nthen call", "")
    assert [(call.id, call.name, call.arguments) for call in result.message.tool_calls] == [
        ("call_a", "weather", WEATHER_ARGUMENTS.encode()),
        ("call_b", "time", b"{}"),
    ]
    assert (result.finish_reason, result.finish_reason_raw) == (FinishReason.TOOL_CALLS, "completed")
    assert result.usage == Usage(30, 9, 16, 4, 5)
    assert (result.provider, result.model, result.response_id) == ("acme", "m-1", "resp_1")


@pytest.mark.feature("P5")
def test_a_stream_ends_with_what_a_whole_answer_would_have_been() -> None:
    assert streamed(*RESPONSES_STREAM) == WIRE.decode(responses_body(RESPONSES_WHOLE))


@pytest.mark.feature("P2")
def test_annotations_are_citations_of_their_text() -> None:
    part = next(part for part in streamed(*RESPONSES_STREAM).message.parts if isinstance(part, TextPart))
    assert part.citations == (Citation("https://x/y", "Y", "", 0, 4), Citation("", "a.pdf"))
    odd = {
        **output_text("x"),
        "annotations": [{"type": "file_path", "file_id": "f"}, "odd", {**CITED, "start_index": -1, "end_index": "e"}],
    }
    assert whole(message(odd)).message.parts[0].citations == (Citation("https://x/y", "Y"),)


@pytest.mark.feature("P6")
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_every_way_to_cut_a_stream_in_two_decodes_alike(ending: bytes) -> None:
    body = responses_sse(RESPONSES_STREAM).replace(b"\n", ending)
    answer = result_of(decode_stream(WIRE, [body]))
    for place in range(1, len(body)):
        assert result_of(decode_stream(WIRE, cut(body, [place]))) == answer


@pytest.mark.feature("P6")
@given(places=st.lists(st.integers(0, 9000), max_size=20))
def test_any_pieces_obey_the_order_and_mean_the_same(places: list[int]) -> None:
    body = responses_sse(RESPONSES_STREAM)
    events = decode_stream(WIRE, cut(body, places))
    check_order(events)
    assert result_of(events) == result_of(decode_stream(WIRE, [body]))


@pytest.mark.feature("P3")
@pytest.mark.parametrize("answer", [[], [done(0, THOUGHT), done(1, message(output_text("hi"), id="m")), done(2, WEATHER, arguments="{}")]])
def test_a_server_may_tell_of_items_only_when_they_are_done_or_when_all_is(answer: list[dict[str, Any]]) -> None:
    items = [THOUGHT, message(output_text("hi"), id="m"), {**WEATHER, "arguments": "{}"}]
    result = streamed(*answer, told("completed", output=items))
    assert items_of(result.message) == items
    assert said(result.message)[0] == "hi"


@pytest.mark.feature("P3")
def test_a_server_that_says_of_no_item_that_it_is_done_is_understood_at_the_end() -> None:
    items = [message(output_text("hi")), {**WEATHER, "arguments": '{"a":1}'}]
    result = streamed(
        CREATED, text("h"), text("i"), added(1, WEATHER, arguments=""), arguments('{"a":1}', 1), told("completed", output=items)
    )
    assert items_of(result.message) == items


@pytest.mark.feature("P3")
def test_calls_that_grow_at_the_same_time_are_told_apart() -> None:
    second = {**WEATHER, "id": "fc_9", "call_id": "call_z"}
    result = streamed(
        CREATED,
        added(0, WEATHER, arguments=""),
        added(1, second, arguments=""),
        arguments('{"a":', 0),
        arguments('{"z":', 1),
        arguments("1}", 0),
        arguments("2}", 1),
        done(1, second, arguments='{"z":2}'),
        done(0, WEATHER, arguments='{"a":1}'),
        told("completed"),
    )
    assert [(call.id, call.arguments) for call in result.message.tool_calls] == [("call_a", b'{"a":1}'), ("call_z", b'{"z":2}')]


@pytest.mark.feature("P3")
def test_a_server_that_counts_every_item_as_the_first_is_understood() -> None:
    second = {**WEATHER, "id": "fc_9", "call_id": "call_z"}
    result = streamed(
        CREATED,
        added(0, PREAMBLE, content=[]),
        text("x"),
        done(0, message(output_text("x"))),
        *(step for call in (WEATHER, second) for step in (added(0, call, arguments=""), arguments("{}", 0), done(0, call, arguments="{}"))),
        told("completed"),
    )
    assert result.message.text() == "x"
    assert [call.id for call in result.message.tool_calls] == ["call_a", "call_z"]


@pytest.mark.feature("P3")
def test_a_server_that_numbers_items_otherwise_when_they_are_done_is_not_told_twice() -> None:
    items = [THOUGHT, message(output_text("hi"), id="m")]
    result = streamed(CREATED, summary("a", 0, 3), done(0, THOUGHT), text("hi", 5), done(1, items[1]), told("completed", output=items))
    assert said(result.message) == ("hi", "a", "")
    assert items_of(result.message) == items


@pytest.mark.feature("P3")
def test_a_call_may_say_what_it_calls_only_when_it_is_done() -> None:
    unnamed = {"id": "fc_1", "type": "function_call", "status": "in_progress"}
    result = streamed(CREATED, added(0, unnamed), arguments("{}", 0), done(0, WEATHER, arguments="{}"), told("completed"))
    assert [(call.id, call.name, call.arguments) for call in result.message.tool_calls] == [("call_a", "weather", b"{}")]


@pytest.mark.feature("P7")
def test_items_without_end_are_refused() -> None:
    endless = [added(number, SILENT_THOUGHT) for number in range(10_001)]
    with pytest.raises(ProviderResponseInvalid, match="more than 10000 items"):
        decode_stream(WIRE, [responses_sse(endless)])


@pytest.mark.feature("P3")
def test_texts_that_grow_by_turns_are_all_kept() -> None:
    result = streamed(CREATED, text("a", 0), text("b", 1), text("c", 0), done(0, message(output_text("ac"), id="x")), told("completed"))
    assert result.message.text() == "abc"


@pytest.mark.feature("P4")
@pytest.mark.parametrize(
    ("status", "details", "reason", "word"),
    [
        ("completed", None, FinishReason.STOP, "completed"),
        ("incomplete", {"reason": "max_output_tokens"}, FinishReason.LENGTH, "max_output_tokens"),
        ("incomplete", {"reason": "content_filter"}, FinishReason.CONTENT_FILTER, "content_filter"),
        ("incomplete", {"reason": "something new"}, FinishReason.UNKNOWN, "something new"),
        ("incomplete", None, FinishReason.UNKNOWN, "incomplete"),
        ("cancelled", None, FinishReason.ERROR, "cancelled"),
    ],
)
def test_finish_reasons_are_mapped_and_their_words_kept(status: str, details: Any, reason: FinishReason, word: str) -> None:
    items = [message(output_text("x"))]
    at_once = whole(*items, status=status, incomplete_details=details)
    assert (at_once.finish_reason, at_once.finish_reason_raw) == (reason, word)
    assert streamed(CREATED, text("x"), told(status, status, output=items, incomplete_details=details)) == at_once
    assert streamed(CREATED, text("x"), told("completed", status, output=items, incomplete_details=details)) == at_once


@pytest.mark.feature("P4")
def test_a_refusal_is_one_streamed_or_whole() -> None:
    item = message({"type": "refusal", "refusal": "I will not"})
    grown = [event("refusal.delta", 0, content_index=0, delta=piece) for piece in ("I will", " not")]
    result = streamed(CREATED, *grown, done(0, item), told("completed"))
    assert (result.finish_reason, said(result.message)) == (FinishReason.REFUSAL, ("", "", "I will not"))
    assert result.message == whole(item).message
    assert items_of(result.message) == [item]


@pytest.mark.feature("P3")
def test_reasoning_is_told_in_the_summary_or_in_its_own_words() -> None:
    item = {"id": "rs", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "first then"}]}
    grown = [event("reasoning_text.delta", 0, content_index=0, delta=piece) for piece in ("first", " then")]
    result = streamed(CREATED, added(0, item, content=[]), *grown, done(0, item), told("completed"))
    assert said(result.message)[1] == "first then"
    assert result.message == whole(item).message


@pytest.mark.feature("P7")
def test_a_stream_is_whole_only_with_the_end_of_the_response() -> None:
    for events in (RESPONSES_STREAM[:-1], [CREATED], []):
        for tail in (b"", b"data: [DONE]\n\n"):
            with pytest.raises(StreamIncomplete, match="before the end of the response"):
                decode_stream(WIRE, [responses_sse(events) + tail])
    assert result_of(decode_stream(WIRE, [responses_sse(RESPONSES_STREAM) + b"data: [DONE]\n\n"])).finish_reason_raw == "completed"


@pytest.mark.feature("P12")
def test_a_stream_that_begins_again_in_the_middle_is_not_told_twice() -> None:
    again = {"type": "response.created", "response": response("in_progress", id="resp_2")}
    with pytest.raises(StreamIncomplete, match="began another"):
        decode_stream(WIRE, [responses_sse([CREATED, text("x"), again, text("x"), COMPLETED])])


FAILURES = [
    {"type": "error", "code": "server_error", "message": "boom", "param": None, "sequence_number": 3},
    {"type": "error", "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "boom"}},
    told("failed", "failed", error={"code": "server_error", "message": "boom"}),
    {"error": {"message": "boom", "type": "server_error"}, "type": ""},
]


@pytest.mark.feature("P7")
@pytest.mark.parametrize("failure", FAILURES)
def test_an_error_within_a_stream_is_one(failure: dict[str, Any]) -> None:
    with pytest.raises(RefusedInStream, match="boom"):
        decode_stream(WIRE, [responses_sse([CREATED, text("x"), failure])])


@pytest.mark.feature("P7")
def test_a_whole_answer_that_failed_is_an_error() -> None:
    for document in (response("failed", error={"code": "server_error", "message": "boom"}), {"error": {"message": "boom"}}):
        with pytest.raises(RefusedInStream, match="boom"):
            WIRE.decode(responses_body(document))
    with pytest.raises(RefusedInStream, match="without a reason"):
        whole(status="failed")
    with pytest.raises(ProviderResponseInvalid, match="without an answer"):
        whole(status="in_progress")


@pytest.mark.feature("P7")
@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("server_error", ProviderUnavailable),
        ("rate_limit_exceeded", ProviderRateLimited),
        ("insufficient_quota", ProviderRateLimited),
        ("vector_store_timeout", ProviderTimeout),
        ("invalid_prompt", ProviderRequestRefused),
        ("image_file_not_found", ProviderRequestRefused),
        ("unsupported_image_media_type", ProviderRequestRefused),
        ("bio_policy", ProviderRequestRefused),
        ("data_residency_mismatch", ProviderPermissionDenied),
        ("something new", ProviderUnavailable),
    ],
)
def test_a_failed_response_is_the_fault_that_its_code_means(code: str, fault: type[Fault]) -> None:
    assert type(fault_of(Refusal(code=code, message="boom"), Refused("acme", "m"))) is fault


@pytest.mark.feature("P7")
@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"nonsense",
        b'{"type":5}',
        b'{"type":"response.completed"}',
        b'{"type":"response.output_text.delta","delta":5}',
        b'{"type":"response.output_text.delta","delta":"\xff"}',
        b'{"type":"response.output_item.done"}',
        b'{"type":"response.output_item.done","item":[]}',
        b'{"type":"response.output_item.done","item":{"type":"function_call"}}',
        b'{"type":"response.output_item.done","item":{"type":"message","content":[5]}}',
    ],
)
def test_garbage_is_refused_and_shown(data: bytes) -> None:
    with pytest.raises(ProviderResponseInvalid, match="not its protocol"):
        decode_stream(WIRE, [b"data: " + data + b"\n\n"])


@pytest.mark.feature("P7")
@pytest.mark.parametrize("data", [b"{}", b"[]", b"nonsense", b'{"output":5}', b'{"output":[5]}', b'{"output":[{"type":"function_call"}]}'])
def test_a_whole_answer_that_is_garbage_is_refused_and_shown(data: bytes) -> None:
    with pytest.raises(ProviderResponseInvalid, match="not its protocol"):
        WIRE.decode(data)


@pytest.mark.feature("P7")
def test_events_that_do_not_exist_yet_say_nothing() -> None:
    news = [{"type": "response.new", "delta": {"a": 1}, "output_index": None}, {"type": "keepalive", "item": 5}]
    assert streamed(*RESPONSES_STREAM[:3], *news, *RESPONSES_STREAM[3:]) == streamed(*RESPONSES_STREAM)


@pytest.mark.feature("P7")
def test_blocks_of_the_providers_own_tools_count_towards_the_bound_on_memory() -> None:
    picture = {"type": "image_generation_call", "id": "ig", "result": "A" * (9 * 1024 * 1024)}
    with pytest.raises(ProviderResponseInvalid, match="answer of more than"):
        whole(picture, picture, picture, picture)


def test_summaries_are_paragraphs_of_their_own() -> None:
    events = [CREATED, summary("a", 0), summary("b", 0), summary("c", 1), done(0, THOUGHT), told("completed")]
    assert said(streamed(*events).message)[1] == "ab\n\nc"
