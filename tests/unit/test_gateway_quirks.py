"""What servers that speak Chat Completions answer, each in its own way, and what it means: the same for every one of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    ProviderContextOverflow,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    ProviderUnavailable,
    StreamIncomplete,
)
from kit.provider_decoding import check_order, cut, decode_stream, result_of, said
from provider_gateway.adapters.http.refusals import Refused, fault_of
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.openai.dialect import DIALECTS, Dialect
from provider_gateway.adapters.wire import RefusedInStream
from provider_gateway.domain.answers import FinishReason, Usage
from provider_gateway.domain.chat import ChatRequest, Message, ReasoningPart, Role, TextPart, ToolCall
from provider_gateway.operations.ports import ModelCall

pytestmark = pytest.mark.feature("P5")
WIRE = OpenAiWire("acme")
USER = Message(Role.USER, (TextPart("hi"),))
Chunks = list[dict[str, Any]]


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **fields}


def call(arguments: Any, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return chunk({"tool_calls": [{"type": "function", "function": function, **fields}]})


def sse(*chunks: dict[str, Any], done: bool = True) -> bytes:
    lines = [*map(json.dumps, chunks), *(["[DONE]"] if done else [])]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


WEATHER, TIME = ToolCall("a", "weather", b'{"city":"Paris"}'), ToolCall("b", "time", b'{"zone":"CET"}')
PARIS, CET = '{"city":"Paris"}', '{"zone":"CET"}'
NUMBERINGS: dict[str, Chunks] = {
    "whole calls in one delta": [
        chunk(
            {
                "tool_calls": [
                    {"index": 0, "id": "a", "function": {"name": "weather", "arguments": PARIS}},
                    {"index": 1, "id": "b", "function": {"name": "time", "arguments": CET}},
                ]
            }
        )
    ],
    "arguments as objects": [call({"city": "Paris"}, "weather", index=0, id="a"), call({"zone": "CET"}, "time", index=1, id="b")],
    "every index zero": [call(PARIS, "weather", index=0, id="a"), call(CET, "time", index=0, id="b")],
    "no index": [call(PARIS, "weather", id="a"), call(CET, "time", id="b")],
    "no index and in pieces": [
        call("", "weather", id="a"),
        call('{"city":'),
        call('"Paris"}'),
        call("", "time", id="b"),
        call(CET),
    ],
    "an id with each piece": [
        call('{"city":', "weather", index=0, id="a"),
        call('"Paris"}', index=0, id="a"),
        call(CET, "time", index=1, id="b"),
    ],
    "the name again with each piece": [
        call('{"city":', "weather", index=0, id="a"),
        call('"Paris"}', "weather", index=0, id="a"),
        call(CET, "time", index=1, id="b"),
    ],
    "an empty id and name with later pieces": [
        call('{"city":', "weather", index=0, id="a"),
        call('"Paris"}', index=0, id="", name=""),
        call(CET, "time", index=1, id="b"),
    ],
}


@pytest.mark.feature("P3")
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
@pytest.mark.parametrize("chunks", NUMBERINGS.values(), ids=NUMBERINGS)
def test_calls_are_told_apart_and_are_calls_whatever_the_finish_says(chunks: Chunks, finish: str) -> None:
    events = decode_stream(WIRE, [sse(*chunks, chunk(finish=finish))])
    check_order(events)
    result = result_of(events)
    assert result.message.tool_calls == (WEATHER, TIME)
    assert (result.finish_reason, result.finish_reason_raw) == (FinishReason.TOOL_CALLS, finish)


NAMELESS: dict[str, Chunks] = {
    "one index": [call(PARIS, "weather", index=0), call(CET, "time", index=0)],
    "one index and empty ids": [call(PARIS, "weather", index=0, id=""), call(CET, "time", index=0, id="")],
    "one index and one tool": [call(PARIS, "weather", index=0), call('{"city":"Rome"}', "weather", index=0)],
    "one index and the name with each piece": [
        call('{"city":', "weather", index=0),
        call('"Paris"}', "weather", index=0),
        call(CET, "time", index=0),
    ],
    "no index": [call(PARIS, "weather"), call(CET, "time")],
    "an index each": [call(PARIS, "weather", index=0, id=None), call(CET, "time", index=1, id=None)],
}


@pytest.mark.parametrize("chunks", NAMELESS.values(), ids=NAMELESS)
def test_calls_without_ids_get_some_that_no_other_answer_has(chunks: Chunks) -> None:
    def ids(answer: str) -> list[str]:
        streamed = [{**piece, "id": answer} for piece in [*chunks, chunk(finish="stop")]]
        calls = result_of(decode_stream(WIRE, [sse(*streamed)])).message.tool_calls
        assert len(calls) == 2
        assert calls[0] == ToolCall(calls[0].id, "weather", PARIS.encode())
        return [one.id for one in calls]

    assert len({*ids("one"), *ids("other")}) == 4


def test_calls_without_any_id_around_them_are_told_apart_by_when_they_were_made() -> None:
    def ids(created: int) -> set[str]:
        chunks = [{**piece, "id": None, "created": created} for piece in [call(PARIS, "weather", index=0), chunk(finish="stop")]]
        return {one.id for one in result_of(decode_stream(WIRE, [sse(*chunks)])).message.tool_calls}

    assert ids(1) != ids(2)


REASONINGS: dict[str, Chunks] = {
    "reasoning_content: DeepSeek, vLLM, Moonshot": [chunk({"reasoning_content": "Let "}), chunk({"reasoning_content": "me."})],
    "reasoning: Groq, newer vLLM": [chunk({"reasoning": "Let "}), chunk({"reasoning": "me."})],
    "both at once: OpenRouter": [
        chunk({"reasoning": "Let ", "reasoning_content": "Let "}),
        chunk({"reasoning": "me.", "reasoning_content": "me."}),
    ],
    "with details": [
        chunk({"reasoning": "Let ", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "Let "}]}),
        chunk({"reasoning": "me.", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "me."}]}),
    ],
    "content that thinks: Mistral": [
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Let "}]}]}),
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "me."}]}]}),
    ],
}


@pytest.mark.feature("P2")
@pytest.mark.parametrize("chunks", REASONINGS.values(), ids=REASONINGS)
def test_reasoning_is_read_once_from_wherever_it_is_and_goes_back_within_its_turn(chunks: Chunks) -> None:
    events = decode_stream(WIRE, [sse(*chunks, chunk({"content": "Hi"}), chunk(finish="stop"))])
    check_order(events)
    message = result_of(events).message
    assert said(message) == ("Hi", "Let me.", "")
    encoded = WIRE.encode(ModelCall(ChatRequest((USER, message)), "m"), stream=False)
    assert "Let me." in encoded.body.decode()
    assert encoded.warnings == ()


@pytest.mark.feature("P2")
def test_mistral_gets_the_signature_of_its_thinking_back() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "S"}
    document = {"id": "c", "choices": [{"message": {"content": [thinking, {"type": "text", "text": "Hi"}]}, "finish_reason": "stop"}]}
    message = WIRE.decode(json.dumps(document).encode()).message
    assert [type(part) for part in message.parts] == [ReasoningPart, TextPart]
    body = json.loads(WIRE.encode(ModelCall(ChatRequest((USER, message)), "m"), stream=False).body)
    assert body["messages"][1]["content"] == [thinking, {"type": "text", "text": "Hi"}]


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
USAGES: dict[str, Chunks] = {
    "in a last chunk without choices": [chunk({"content": "Hi"}, "stop"), {"id": "c", "choices": [], "usage": USAGE}],
    "in the last chunk with the finish": [chunk({"content": "Hi"}), chunk({}, "stop", usage=USAGE)],
    "in every chunk, growing: Perplexity": [
        chunk({"content": "Hi"}, usage={**USAGE, "completion_tokens": 1, "total_tokens": 8}),
        chunk({}, "stop", usage=USAGE),
    ],
    "in x_groq": [chunk({"content": "Hi"}), chunk({}, "stop", x_groq={"id": "req", "usage": USAGE})],
    "without choices at all": [chunk({"content": "Hi"}, "stop"), {"id": "c", "choices": None, "usage": USAGE}],
    "null until the end": [chunk({"content": "Hi"}, usage=None), chunk({}, "stop", usage=None), {"choices": [], "usage": USAGE}],
}


@pytest.mark.feature("P8")
@pytest.mark.parametrize("done", [True, False], ids=["[DONE]", "no [DONE]"])
@pytest.mark.parametrize("chunks", USAGES.values(), ids=USAGES)
def test_usage_is_found_wherever_it_is(chunks: Chunks, done: bool) -> None:
    result = result_of(decode_stream(WIRE, [sse(*chunks, done=done)]))
    assert (result.message.text(), result.usage) == ("Hi", Usage(7, 3))


@pytest.mark.feature("P8")
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, Usage(7, 3, cache_read_tokens=4)),
        ({"cached_tokens": 4}, Usage(7, 3, cache_read_tokens=4)),  # Moonshot
        ({"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 3}, Usage(7, 3, cache_read_tokens=4)),  # DeepSeek
        ({"reasoning_tokens": 2}, Usage(7, 3, reasoning_tokens=2)),  # Perplexity
        ({"completion_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 15}, Usage(7, 8, reasoning_tokens=5)),  # xAI
    ],
)
def test_cached_and_reasoning_tokens_have_many_names(usage: dict[str, Any], expected: Usage) -> None:
    assert result_of(decode_stream(WIRE, [sse(chunk({"content": "Hi"}, "stop", usage={**USAGE, **usage}))])).usage == expected


@pytest.mark.feature("P22")
@pytest.mark.parametrize(
    "usage",
    [
        {"cost": 0.000735, "cost_details": {"upstream_inference_cost": None}},
        {"cost": {"input_tokens_cost": 0.0, "total_cost": 0.000735}},
        {"cost_in_usd_ticks": 7_350_000},
    ],
    ids=["OpenRouter", "Perplexity", "xAI"],
)
def test_what_a_server_charges_is_the_cost_where_no_price_is_set(usage: dict[str, Any]) -> None:
    usage_of = result_of(decode_stream(WIRE, [sse(chunk({"content": "Hi"}, "stop", usage={**USAGE, **usage}))])).usage
    assert usage_of == Usage(7, 3, cost_nano_usd=735_000, cost_known=True)


@pytest.mark.feature("P7")
def test_done_ends_an_answer_without_a_finish_reason_only_where_that_is_said_to_be_so() -> None:
    body = sse(chunk({"content": "Hi"}))
    with pytest.raises(StreamIncomplete):
        decode_stream(WIRE, [body])
    lenient = OpenAiWire("acme", Dialect(done_suffices=True))
    result = result_of(decode_stream(lenient, [body]))
    assert (result.message.text(), result.finish_reason) == ("Hi", FinishReason.UNKNOWN)
    with pytest.raises(StreamIncomplete):
        decode_stream(lenient, [sse(chunk({"content": "Hi"}), done=False)])


@pytest.mark.feature("P7")
def test_an_empty_finish_reason_is_none() -> None:
    with pytest.raises(StreamIncomplete):
        decode_stream(WIRE, [sse(chunk({"content": "Hi"}, ""))])


ERRORS: dict[str, tuple[bytes, type[Exception], str]] = {
    "OpenAI, Groq, Together": (
        b'data: {"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}\n\n',
        ProviderRateLimited,
        "slow down",
    ),
    "OpenRouter": (
        b'data: {"id":"g","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],'
        b'"error":{"code":429,"message":"slow down"}}\n\n',
        ProviderRateLimited,
        "slow down",
    ),
    "within a choice": (
        b'data: {"id":"g","choices":[{"index":0,"delta":{},"error":{"code":502,"message":"bad gateway"}}]}\n\n',
        ProviderUnavailable,
        "bad gateway",
    ),
    "vLLM, Mistral": (
        b'data: {"object":"error","message":"too long","type":"BadRequestError","param":null,"code":400}\n\n',
        ProviderRequestRefused,
        "too long",
    ),
    "vLLM, too long": (
        b'data: {"object":"error","message":"This model\'s maximum context length is 4096 tokens","code":400}\n\n',
        ProviderContextOverflow,
        "4096",
    ),
    "FastAPI": (b'data: {"detail":"the worker died"}\n\n', ProviderUnavailable, "the worker died"),
    "an event of its own": (
        b'event: error\ndata: {"error":{"message":"over capacity","code":503}}\n\n',
        ProviderUnavailable,
        "over capacity",
    ),
    "an event with the bare error": (b'event: error\ndata: {"code":503,"message":"Loading model"}\n\n', ProviderUnavailable, "Loading"),
    "an event with plain text": (b"event: error\ndata: upstream went away\n\n", ProviderUnavailable, "upstream went away"),
    "Ollama, llama.cpp": (b'data: {"error":"model runner has stopped"}\n\n', ProviderUnavailable, "model runner has stopped"),
    "DeepSeek": (
        b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"insufficient_system_resource"}]}\n\n',
        ProviderUnavailable,
        "broke the answer off",
    ),
}


@pytest.mark.feature("P7")
@pytest.mark.parametrize("begun", [b"", sse(chunk({"content": "Hi"}), done=False)], ids=["at once", "in the middle"])
@pytest.mark.parametrize(("event", "fault", "words"), ERRORS.values(), ids=ERRORS)
def test_an_error_within_a_good_answer_is_one_in_each_server_s_shape(
    begun: bytes, event: bytes, fault: type[Exception], words: str
) -> None:
    with pytest.raises(RefusedInStream, match=words) as caught:
        decode_stream(WIRE, [begun + event + b"data: [DONE]\n\n"])
    assert type(fault_of(caught.value.refusal, Refused("acme", "m"))) is fault


@pytest.mark.feature("P7")
@pytest.mark.parametrize("data", [b'{"id":null,"object":"chat.completion.chunk"}', b'{"status":"ok"}', b'{"ping":1}'])
def test_what_is_neither_a_chunk_nor_an_error_is_no_protocol(data: bytes) -> None:
    with pytest.raises(ProviderResponseInvalid):
        decode_stream(WIRE, [b"data: " + data + b"\n\n"])


@pytest.mark.feature("P6")
def test_comments_that_keep_a_stream_alive_say_nothing() -> None:
    body = b": OPENROUTER PROCESSING\n\n: keep-alive\n\n" + sse(chunk({"content": "Hi"}), chunk(finish="stop"))
    assert result_of(decode_stream(WIRE, [body])).message.text() == "Hi"


def test_azure_s_filter_results_come_first_without_choices_and_are_kept() -> None:
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}
    filtered = chunk({}, "content_filter")
    filtered["choices"][0]["content_filter_results"] = {"violence": {"filtered": True, "severity": "high"}}
    events = decode_stream(WIRE, [sse(first, chunk({"content": "Hi"}), filtered)])
    check_order(events)
    result = result_of(events)
    assert (result.finish_reason, result.model) == (FinishReason.CONTENT_FILTER, "m")
    kept = {state.kind: json.loads(state.data) for state in result.message.provider_state}
    assert kept["content_filter_results"] == [{"violence": {"filtered": True, "severity": "high"}}]
    assert kept["prompt_filter_results"] == first["prompt_filter_results"]


@pytest.mark.feature("P4")
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("eos", FinishReason.STOP),
        ("model_length", FinishReason.LENGTH),
        ("max_tokens", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("sensitive", FinishReason.CONTENT_FILTER),
        ("abort", FinishReason.ERROR),
    ],
)
def test_followers_words_for_the_end_are_understood_and_kept(word: str, reason: FinishReason) -> None:
    result = result_of(decode_stream(WIRE, [sse(chunk({"content": "Hi"}, word))]))
    assert (result.finish_reason, result.finish_reason_raw) == (reason, word)


TAGGED = OpenAiWire("acme", Dialect(think_tags=True))


def contents(*pieces: str) -> bytes:
    return sse(*[chunk({"content": piece}) for piece in pieces], chunk(finish="stop"))


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nLet me.\n</think>\n\nHi", ("Hi", "Let me.\n", "")),
        ("\n<think>Let me.</think>Hi", ("Hi", "Let me.", "")),
        ("<think>\n\n</think>\n\nHi", ("Hi", "", "")),
        ("<think>Let me", ("", "Let me", "")),
        ("<think>a </thin b</think>Hi", ("Hi", "a </thin b", "")),
        ("Hi <think>there</think>", ("Hi <think>there</think>", "", "")),
        ("<thin", ("<thin", "", "")),
        ("  Hi", ("  Hi", "", "")),
        ("", ("", "", "")),
    ],
)
def test_reasoning_in_the_text_is_told_apart_where_the_server_is_known_to_leave_it_there(text: str, expected: tuple[str, str, str]) -> None:
    assert said(result_of(decode_stream(TAGGED, [contents(text)])).message) == expected
    assert said(result_of(decode_stream(TAGGED, [contents(*text)])).message) == expected, "a character at a time"
    assert said(result_of(decode_stream(WIRE, [contents(text)])).message) == (text, "", "")


@pytest.mark.feature("P2")
@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", "/", "\n", "a", " "]), max_size=12))
def test_reasoning_in_the_text_is_the_same_however_the_text_is_cut(pieces: list[str]) -> None:
    events = decode_stream(TAGGED, [contents(*pieces)])
    check_order(events)
    assert said(result_of(events).message) == said(result_of(decode_stream(TAGGED, [contents("".join(pieces))])).message)


@pytest.mark.feature("P2")
def test_reasoning_from_the_text_goes_back_in_the_text_within_its_turn() -> None:
    message = result_of(decode_stream(TAGGED, [contents("<think>\nhm\n</think>\nHi")])).message
    for history, content in (((USER, message), "<think>\nhm\n</think>\nHi"), ((USER, message, USER), "Hi")):
        encoded = TAGGED.encode(ModelCall(ChatRequest(history), "m"), stream=False)
        assert json.loads(encoded.body)["messages"][1]["content"] == content
        assert encoded.warnings == ()


EVERY_QUIRK = [
    sse(*chunks, chunk(finish="stop"))
    for table in (NUMBERINGS, NAMELESS, REASONINGS)
    for chunks in table.values()  # type: ignore[attr-defined]
]


@pytest.mark.feature("P6")
@given(st.sampled_from(EVERY_QUIRK), st.lists(st.integers(1, 1000), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_every_quirk_decodes_alike_however_it_is_cut(body: bytes, places: list[int], ending: bytes) -> None:
    body = body.replace(b"\n", ending)
    events = decode_stream(WIRE, cut(body, places))
    check_order(events)
    assert result_of(events) == result_of(decode_stream(WIRE, [body]))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_reads_the_same(dialect: str) -> None:
    body = sse(*NUMBERINGS["every index zero"], chunk(finish="stop"))
    assert result_of(decode_stream(OpenAiWire("acme", DIALECTS[dialect]), [body])) == result_of(decode_stream(WIRE, [body]))
