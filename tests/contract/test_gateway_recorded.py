"""Recorded traffic of every vendor decodes to what was said, however the bytes arrive. Skips where the recordings are not there."""

from __future__ import annotations

import json
import random

import pytest

from chassis.faults import (
    Fault,
    ModelNotFound,
    ProviderCredentialsRefused,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    StreamIncomplete,
)
from kit.anthropic_types import complaint
from kit.provider_decoding import check_order, cut, decode_stream, result_of, said
from kit.provider_recordings import ABSENT, Reading, Recording, read_anthropic, read_gemini, read_openai, read_responses, recordings
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.http.refusals import Refused, fault_of, refusal_of
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.openai_responses import Dialect, OpenAiResponsesWire
from provider_gateway.adapters.wire import RefusedInStream, Wire
from provider_gateway.domain.answers import ChatResult, FinishReason
from provider_gateway.domain.chat import ChatRequest, Message, Role, TextPart
from provider_gateway.operations.ports import ModelCall

OPENAI, ANTHROPIC, GEMINI = recordings("openai"), recordings("anthropic"), recordings("gemini")
RESPONSES = recordings("responses")
EVERYTHING = OPENAI + ANTHROPIC + GEMINI + RESPONSES
SPLICED = [r for r in ANTHROPIC if r.body.count(b'"type":"message_start"') > 1]
FAILED = [r for r in RESPONSES if b'"type":"response.failed"' in r.body]
BROKEN = [r for r in RESPONSES if b'"metadata":{}}\n' in r.body]  # an event that lacks its last brace
ANSWERS = [r for r in EVERYTHING if r.status == 200 and r not in SPLICED + FAILED + BROKEN]
STREAMS = [r for r in ANSWERS if r.is_stream]
SMALL = 4_000  # bytes; every way to cut a stream in two is tried up to here

pytestmark = pytest.mark.skipif(not EVERYTHING, reason=ABSENT)

FINISH = {
    "stop": FinishReason.STOP,
    "completed": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "refusal": FinishReason.REFUSAL,
    "STOP": FinishReason.STOP,
    "1": FinishReason.STOP,
    "2": FinishReason.LENGTH,
}
FINISH_NAMES = {"1": "STOP", "2": "MAX_TOKENS"}  # where Vertex AI was asked for numbers
REFUSALS = {400: ProviderRequestRefused, 401: ProviderCredentialsRefused, 404: ModelNotFound, 429: ProviderRateLimited}
WIRES: dict[str, Wire] = {
    "openai": OpenAiWire("vendor"),
    "anthropic": AnthropicWire("vendor"),
    "gemini": GeminiWire("vendor"),
    "responses": OpenAiResponsesWire("vendor", Dialect(store=True)),  # most of the recordings were of stored responses
}
READINGS = {"openai": read_openai, "anthropic": read_anthropic, "gemini": read_gemini, "responses": read_responses}
FINISH_MARKERS = {
    "openai": b'"finish_reason":"',
    "anthropic": b"message_stop",
    "gemini": b'"finishReason":"',
    "responses": b'"type":"response.completed"',
}


def each(some: list[Recording]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recording", some or [pytest.param(None, marks=pytest.mark.skip(reason=ABSENT))], ids=str)


def wire_of(recording: Recording) -> Wire:
    return WIRES[recording.protocol]


def reading_of(recording: Recording) -> Reading:
    return READINGS[recording.protocol](recording)


def decoded(recording: Recording) -> ChatResult:
    wire = wire_of(recording)
    return result_of(decode_stream(wire, [recording.body])) if recording.is_stream else wire.decode(recording.body)


@pytest.mark.feature("P5")
@pytest.mark.feature("P4")
@each(ANSWERS)
def test_an_answer_has_the_recorded_text_calls_and_finish(recording: Recording) -> None:
    result, reading = decoded(recording), reading_of(recording)
    text, reasoning, _ = said(result.message)
    assert text == reading.text
    assert reasoning == reading.reasoning
    assert result.finish_reason_raw == FINISH_NAMES.get(reading.finish, reading.finish)
    expected = FINISH[reading.finish]
    assert result.finish_reason is (FinishReason.TOOL_CALLS if expected is FinishReason.STOP and reading.calls else expected)
    calls = [(call.id, call.name, json.loads(call.arguments)) for call in result.message.tool_calls]
    recorded = [(id_, name, json.loads(arguments or "{}")) for id_, name, arguments in reading.calls]
    assert calls == [(id_ or call[0], name, arguments) for call, (id_, name, arguments) in zip(calls, recorded, strict=True)]
    assert len({call[0] for call in calls}) == len(calls), "made-up ids are distinct"


@pytest.mark.feature("P8")
@each(ANSWERS)
def test_an_answer_has_the_recorded_usage(recording: Recording) -> None:
    usage, recorded = decoded(recording).usage, reading_of(recording).usage
    if recording.protocol == "openai":
        assert usage.input_tokens == recorded.get("prompt_tokens", 0)
        assert usage.output_tokens >= recorded.get("completion_tokens", 0)
        if recorded:
            assert usage.input_tokens + usage.output_tokens == recorded["total_tokens"]
        return
    if recording.protocol == "gemini":
        assert usage.input_tokens == recorded["promptTokenCount"]
        assert usage.reasoning_tokens == recorded.get("thoughtsTokenCount", 0)
        assert usage.input_tokens + usage.output_tokens == recorded["totalTokenCount"]
        return
    if recording.protocol == "responses":
        assert (usage.input_tokens, usage.output_tokens) == (recorded["input_tokens"], recorded["output_tokens"])
        assert usage.cache_read_tokens == recorded["input_tokens_details"]["cached_tokens"]
        assert usage.reasoning_tokens == recorded["output_tokens_details"]["reasoning_tokens"]
        return
    cached = (recorded.get("cache_read_input_tokens") or 0) + (recorded.get("cache_creation_input_tokens") or 0)
    assert usage.input_tokens == recorded["input_tokens"] + cached
    assert usage.output_tokens == recorded["output_tokens"]


@pytest.mark.feature("P3")
@each(STREAMS)
def test_a_stream_obeys_the_order_of_the_contract(recording: Recording) -> None:
    check_order(decode_stream(wire_of(recording), [recording.body]))


@pytest.mark.feature("P6")
@each([r for r in STREAMS if len(r.body) <= SMALL])
def test_every_way_to_cut_a_small_stream_in_two_decodes_alike(recording: Recording) -> None:
    wire = wire_of(recording)
    whole = result_of(decode_stream(wire, [recording.body]))
    for place in range(1, len(recording.body)):
        assert result_of(decode_stream(wire, cut(recording.body, [place]))) == whole


@pytest.mark.feature("P6")
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@each(STREAMS)
def test_any_pieces_and_line_endings_decode_alike(recording: Recording, ending: bytes) -> None:
    wire = wire_of(recording)
    whole = result_of(decode_stream(wire, [recording.body]))
    body = recording.body.replace(b"\r\n", b"\n").replace(b"\n", ending)
    dice = random.Random(recording.id)
    for pieces in (2, 7, 60):
        places = [dice.randrange(len(body)) for _ in range(pieces)]
        assert result_of(decode_stream(wire, cut(body, places))) == whole
    assert result_of(decode_stream(wire, [body.rstrip(b"\r\n")])) == whole, "without the last blank line"


@pytest.mark.feature("P7")
@each(STREAMS)
def test_a_stream_cut_before_its_finish_never_succeeds(recording: Recording) -> None:
    body = recording.body.replace(b'"finish_reason": "', b'"finish_reason":"').replace(b'"finishReason": "', b'"finishReason":"')
    end = body.index(FINISH_MARKERS["gemini"]) if recording.protocol == "gemini" else body.rindex(FINISH_MARKERS[recording.protocol])
    dice = random.Random(recording.id)
    for place in [end, *(dice.randrange(1, end) for _ in range(10))]:
        with pytest.raises(Fault) as caught:
            decode_stream(wire_of(recording), [body[:place]])
        assert caught.value.retryable


@pytest.mark.feature("P12")
@each(SPLICED)
def test_a_stream_that_begins_again_in_the_middle_is_not_told_twice(recording: Recording) -> None:
    with pytest.raises(StreamIncomplete, match="began another"):
        decode_stream(wire_of(recording), [recording.body])


@pytest.mark.feature("P7")
@each(FAILED)
def test_a_stream_that_says_that_it_failed_is_a_failure(recording: Recording) -> None:
    with pytest.raises(RefusedInStream, match="exceeded your current quota"):
        decode_stream(wire_of(recording), [recording.body])


@pytest.mark.feature("P7")
@each(BROKEN)
def test_a_recording_that_is_not_json_is_refused(recording: Recording) -> None:
    with pytest.raises(ProviderResponseInvalid, match="not its protocol"):
        decode_stream(wire_of(recording), [recording.body])


@pytest.mark.feature("P2")
@each(ANSWERS)
def test_an_answer_can_be_sent_back_to_its_provider(recording: Recording) -> None:
    """What the provider gave is accepted as history, and nothing of it is reported as left out."""
    answer = decoded(recording)
    message = answer.message
    results = [Message(Role.TOOL, (TextPart("done"),), tool_call_id=call.id, tool_name=call.name) for call in message.tool_calls]
    history = (Message(Role.USER, (TextPart("hi"),)), message, *results, Message(Role.USER, (TextPart("go on"),)))
    images = any(type(part).__name__ == "ImagePart" for part in message.parts)
    if not images:
        encoded = wire_of(recording).encode(ModelCall(ChatRequest(history), answer.model or "m"), stream=True)
        document = json.loads(encoded.body)
        assert document.get("messages") or document.get("contents") or document.get("input")
        assert encoded.warnings == ()
        if recording.protocol == "anthropic":
            assert complaint(json.loads(encoded.body)) == ""


@pytest.mark.feature("P2")
@each([r for r in ANTHROPIC if r in ANSWERS and not r.is_stream])
def test_every_block_of_an_answer_goes_back_in_its_place_as_it_came(recording: Recording) -> None:
    given = [block for block in json.loads(recording.body)["content"] if block.get("text", "x").strip()]
    history = (Message(Role.USER, (TextPart("hi"),)), decoded(recording).message)
    body = json.loads(wire_of(recording).encode(ModelCall(ChatRequest(history), "m"), stream=False).body)
    sent = body["messages"][1]["content"] if given else []  # a refusal may say nothing
    assert [_plain(block) for block in sent] == [_plain(block) for block in given]


def _plain(block: dict[str, object]) -> dict[str, object]:
    """The block without what says nothing: empty fields, and that a tool was called by the model itself."""
    return {key: value for key, value in block.items() if value is not None and value != {"type": "direct"}}


@each([r for r in EVERYTHING if r.status != 200])
def test_a_recorded_refusal_has_its_type(recording: Recording) -> None:
    fault = fault_of(refusal_of(recording.status, recording.body), Refused("vendor", "m"))
    limited = b"insufficient_quota" in recording.body
    expected = ProviderRateLimited if limited else REFUSALS[recording.status]
    assert type(fault) is (ProviderCredentialsRefused if b"API_KEY_INVALID" in recording.body else expected)
    assert fault.retry_after == (34.4 if b"34.4s" in recording.body else None)
