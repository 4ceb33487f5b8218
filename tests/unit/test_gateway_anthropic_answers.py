"""What Claude gives beside text and calls is told in the contract's words where it has them, and goes back as it came."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    Fault,
    ModelNotFound,
    ProviderContextOverflow,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderTimeout,
    ProviderUnavailable,
)
from chassis.world import SystemClock
from kit.anthropic_types import complaint
from kit.provider_decoding import check_order, decode_stream, result_of
from kit.provider_upstream import Upstream, open_upstream, stream, whole
from kit.provider_wires import ANTHROPIC_STREAM, ANTHROPIC_WHOLE, anthropic_sse
from provider_gateway.adapters.anthropic import AnthropicProvider, AnthropicWire
from provider_gateway.adapters.anthropic.provider import MOST_PAUSES
from provider_gateway.adapters.http.aiohttp_client import AiohttpClient, HttpOptions
from provider_gateway.adapters.http.provider import Endpoint
from provider_gateway.domain.answers import ChatEvent, ChatResult, FinishReason, Usage, UsageReport
from provider_gateway.domain.chat import (
    Blob,
    CachingMode,
    ChatRequest,
    Citation,
    DocumentPart,
    FormatKind,
    ImagePart,
    Message,
    Notes,
    OpaquePart,
    OpaqueState,
    PromptCaching,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.operations.ports import ModelCall

WIRE = AnthropicWire("claude")
USER = Message(Role.USER, (TextPart("hi"),))
ASK = ModelCall(ChatRequest((USER,)), "claude-sonnet-4-5")

SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "url": "https://a.example", "title": "A", "encrypted_content": "E=="}],
}
CODE = {"type": "server_tool_use", "id": "srvtoolu_2", "name": "bash_code_execution", "input": {"command": "ls"}}
RAN = {
    "type": "bash_code_execution_tool_result",
    "tool_use_id": "srvtoolu_2",
    "content": {"type": "bash_code_execution_result", "stdout": "a", "stderr": "", "return_code": 0, "content": []},
}
REMOTE = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "echo", "server_name": "s", "input": {"a": 1}}
REPLIED = {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": False, "content": [{"type": "text", "text": "1"}]}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "S=="}
HIDDEN = {"type": "redacted_thinking", "data": "R=="}
PAGE = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "so", "encrypted_index": "I=="}
CITED = {"type": "text", "text": "It is so.", "citations": [PAGE]}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def call(number: int) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": "weather", "input": {"n": number}}


def whole_of(*content: Any, stop: str = "end_turn", **fields: Any) -> dict[str, Any]:
    return {**ANTHROPIC_WHOLE, "content": list(content), "stop_reason": stop, **fields}


def stream_of(*content: Any, stop: str = "end_turn", usage: dict[str, int] | None = None) -> bytes:
    """The same answer block by block, each with all it has from the start but for what is always streamed."""
    events: list[dict[str, Any]] = [ANTHROPIC_STREAM[0]]
    for index, block in enumerate(content):
        events.append({"type": "content_block_start", "index": index, "content_block": _opening(block)})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block)]
        events.append({"type": "content_block_stop", "index": index})
    end = {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage or {"output_tokens": 50}}
    return anthropic_sse([*events, end, {"type": "message_stop"}])


def _opening(block: dict[str, Any]) -> dict[str, Any]:
    blank = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {key: blank.get(key, value) for key, value in block.items() if key != "citations"}


def _deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    match block["type"]:
        case "text":
            cited = [{"type": "citations_delta", "citation": citation} for citation in block.get("citations", ())]
            return [{"type": "text_delta", "text": block["text"]}, *cited]
        case "thinking":
            thought = {"type": "thinking_delta", "thinking": block["thinking"]}
            return [thought, {"type": "signature_delta", "signature": block["signature"]}]
        case _ if "input" in block:
            return [{"type": "input_json_delta", "partial_json": json.dumps(block["input"], separators=(",", ":"))}]
    return []


def decoded(*content: Any, stop: str = "end_turn") -> ChatResult:
    """The answer, which is the same whole and streamed."""
    result = WIRE.decode(json.dumps(whole_of(*content, stop=stop)).encode())
    events = decode_stream(WIRE, [stream_of(*content, stop=stop)])
    check_order(events)
    assert result_of(events).message == result.message
    return result


def sent(*messages: Message, **fields: Any) -> dict[str, Any]:
    return json.loads(WIRE.encode(ModelCall(ChatRequest(messages, **fields), "claude-sonnet-4-5"), stream=False).body)


# Citations


@pytest.mark.feature("P2")
@pytest.mark.parametrize(
    ("given_", "citation"),
    [
        (PAGE, Citation("https://a.example", "A", "so")),
        (
            {
                "type": "char_location",
                "cited_text": "q",
                "document_index": 0,
                "document_title": "D",
                "start_char_index": 0,
                "end_char_index": 1,
            },
            Citation("", "D", "q"),
        ),
        (
            {
                "type": "page_location",
                "cited_text": "q",
                "document_index": 0,
                "document_title": None,
                "start_page_number": 1,
                "end_page_number": 2,
            },
            Citation("", "", "q"),
        ),
        (
            {"type": "search_result_location", "cited_text": "q", "source": "kb/1", "title": None, "search_result_index": 0}
            | {"start_block_index": 0, "end_block_index": 1},
            Citation("", "kb/1", "q"),
        ),
    ],
)
def test_what_a_text_rests_on_is_told_and_goes_back_as_it_came(given_: dict[str, Any], citation: Citation) -> None:
    block = {**CITED, "citations": [given_]}
    message = decoded(said("First. "), block).message
    assert [part.citations for part in message.parts] == [(), (citation,)]
    body = sent(USER, message, USER)
    assert body["messages"][1]["content"] == [said("First. "), block]
    assert complaint(body) == ""


@pytest.mark.feature("P2")
def test_citations_that_were_kept_as_a_block_of_their_own_still_go_back() -> None:
    kept = OpaquePart(OpaqueState("anthropic", "citations", json.dumps([PAGE]).encode()))
    assert sent(USER, Message(Role.ASSISTANT, (TextPart("It is so."), kept)))["messages"][1]["content"] == [CITED]


@pytest.mark.feature("P1")
def test_a_document_can_be_made_citable_by_the_providers_own_field() -> None:
    note = Notes(provider_state=(OpaqueState("anthropic", "citations", b'{"enabled":true}'), OpaqueState("other", "x", b"1")))
    body = sent(Message(Role.USER, (DocumentPart(Blob(data=b"text", media_type="text/plain", name="D"), note),)))
    block = body["messages"][0]["content"][0]
    assert (block["citations"], block["title"], "x" in block) == ({"enabled": True}, "D", False)
    assert complaint(body) == ""


# Order, server tools, thinking

BLOCKS = st.sampled_from([said("a"), CITED, THOUGHT, HIDDEN, SEARCH, FOUND, CODE, RAN, REMOTE, REPLIED, "call"])


@pytest.mark.feature("P2")
@given(st.lists(BLOCKS, min_size=1, max_size=8))
def test_every_block_goes_back_in_its_place_whatever_stands_between(kinds: list[Any]) -> None:
    """Calls in the middle, thoughts between them, tools of the server's own: thoughts that moved would be refused."""
    content = [call(number) if kind == "call" else kind for number, kind in enumerate(kinds)]
    assert sent(USER, decoded(*content).message, USER)["messages"][1]["content"] == content


@pytest.mark.feature("P2")
def test_blocks_of_server_tools_are_what_the_vendors_types_accept() -> None:
    message = decoded(THOUGHT, HIDDEN, SEARCH, FOUND, CITED, CODE, RAN, call(1), THOUGHT, call(2)).message
    results = [Message(Role.TOOL, (TextPart("ok"),), tool_call_id=one.id, tool_name=one.name) for one in message.tool_calls]
    assert complaint(sent(USER, message, *results, USER)) == ""


@pytest.mark.feature("P2")
def test_a_message_whose_calls_were_changed_has_them_at_its_end() -> None:
    message = decoded(call(1), said("a"), call(2)).message
    content = sent(USER, replace(message, tool_calls=message.tool_calls[:1]))["messages"][1]["content"]
    assert content == [said("a"), call(1)]


@pytest.mark.feature("P1")
def test_a_full_request_is_what_the_vendors_types_accept() -> None:
    """The official SDK's types are the oracle; they know every field that the gateway writes, and no other."""
    schema = b'{"type":"object","properties":{"x":{"type":"string"}},"required":["x"]}'
    parts = (
        TextPart("see"),
        ImagePart(Blob(url="https://x/y.png")),
        ImagePart(Blob(data=b"\x00", media_type="image/png")),
        DocumentPart(Blob(data=b"%PDF", media_type="application/pdf", name="a.pdf")),
        DocumentPart(Blob(url="https://x/y.pdf")),
    )
    system = Message(Role.SYSTEM, (TextPart("rule " * 2000),))
    shown = Message(Role.TOOL, (TextPart("1"), parts[2]), tool_call_id="toolu_1", tool_name="weather", is_error=True)
    request = ChatRequest(
        (system, USER, decoded(said("a"), call(1)).message, shown, Message(Role.USER, parts)),
        tools=(ToolDefinition("weather", "Tells it", schema, strict=True), ToolDefinition("plain")),
        tool_choice=ToolChoice(ToolChoiceMode.AUTO),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", schema, strict=True),
        sampling=Sampling(None, None, 30_000, ("END",), ReasoningEffort.HIGH),
        metadata={"user_id": "u1"},
        parallel_tool_calls=False,
    )
    for model in ("claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-7"):
        for streamed in (True, False):
            asked = ModelCall(request, model, caching=PromptCaching(CachingMode.AUTO))
            body = json.loads(WIRE.encode(asked, stream=streamed).body)
            assert complaint(body) == ""
            assert "cache_control" in json.dumps(body)
    assert "more in" in complaint({**body, "stray": 1})
    assert "Field required" in complaint({key: value for key, value in body.items() if key != "max_tokens"})


# Pauses


@contextlib.asynccontextmanager
async def provider_at(*replies: Any) -> AsyncIterator[tuple[AnthropicProvider, Upstream]]:
    client = AiohttpClient(HttpOptions())
    try:
        async with open_upstream(*replies) as upstream:
            yield AnthropicProvider("claude", WIRE, Endpoint(upstream.url), client, SystemClock()), upstream
    finally:
        await client.close()


PIECES = ((THOUGHT, said("Let me look. "), SEARCH), (FOUND, CITED, CODE), (RAN, said("Done."), call(1)))
STOPS = ("pause_turn", "pause_turn", "tool_use")
CONTAINER = {"id": "cont_1", "expires_at": "2026-01-01T00:00:00Z"}


def _check_whole(result: ChatResult, upstream: Upstream) -> None:
    content = [block for piece in PIECES for block in piece]
    assert sent(USER, result.message)["messages"][1]["content"] == content
    assert (result.finish_reason, result.finish_reason_raw) == (FinishReason.TOOL_CALLS, "tool_use")
    assert result.usage == Usage(3 * 114, 3 * 50, cache_read_tokens=300, cache_write_tokens=30, calls=3)
    bodies = [received.document for received in upstream.received]
    assert [body["messages"][1:] for body in bodies] == [
        [],
        [{"role": "assistant", "content": list(PIECES[0])}],
        [{"role": "assistant", "content": [*PIECES[0], *PIECES[1]]}],
    ]
    assert [complaint(body) for body in bodies] == ["", "", ""]


@pytest.mark.feature("P4")
@pytest.mark.feature("P8")
async def test_a_paused_answer_is_gone_on_with_and_is_one_answer() -> None:
    replies = [whole(whole_of(*piece, stop=stop)) for piece, stop in zip(PIECES, STOPS, strict=True)]
    async with provider_at(*replies) as (provider, upstream):
        _check_whole(await provider.complete(ASK), upstream)


@pytest.mark.feature("P3")
@pytest.mark.feature("P8")
async def test_a_paused_stream_is_gone_on_with_and_is_one_stream() -> None:
    replies = [stream(stream_of(*piece, stop=stop)) for piece, stop in zip(PIECES, STOPS, strict=True)]
    async with provider_at(*replies) as (provider, upstream):
        events = [event async for batch in provider.stream(ASK) for event in batch]
    check_order(events)
    _check_whole(result_of(events), upstream)
    reports = [event.usage for event in events if isinstance(event, UsageReport)]
    assert [usage.output_tokens for usage in reports] == [1, 50, 51, 100, 101, 150]


@pytest.mark.feature("P2")
async def test_the_container_of_a_paused_answer_is_used_again() -> None:
    replies = whole(whole_of(CODE, stop="pause_turn", container=CONTAINER)), whole(whole_of(RAN, container=CONTAINER))
    async with provider_at(*replies) as (provider, upstream):
        result = await provider.complete(ASK)
    assert upstream.received[1].document["container"] == "cont_1"
    assert [state.kind for state in result.message.provider_state] == ["container"]


@pytest.mark.feature("P4")
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_pauses_without_end_ends_as_what_it_is_and_loses_nothing(streamed: bool) -> None:
    reply = stream(stream_of(SEARCH, stop="pause_turn")) if streamed else whole(whole_of(SEARCH, stop="pause_turn"))
    async with provider_at(reply) as (provider, upstream):
        if streamed:
            result = result_of([event async for batch in provider.stream(ASK) for event in batch])
        else:
            result = await provider.complete(ASK)
    assert len(upstream.received) == MOST_PAUSES + 1
    assert (result.finish_reason, result.finish_reason_raw) == (FinishReason.UNKNOWN, "pause_turn")
    assert len(result.message.parts) == result.usage.calls == MOST_PAUSES + 1
    assert sent(USER, result.message)["messages"][-1]["role"] == "assistant"


@pytest.mark.feature("P7")
async def test_a_stream_that_fails_after_a_pause_is_a_failure() -> None:
    replies = stream(stream_of(said("a"), stop="pause_turn")), whole({"type": "error", "error": {"type": "overloaded_error"}}, 529)
    seen: list[ChatEvent] = []
    async with provider_at(*replies) as (provider, _):
        with pytest.raises(ProviderUnavailable):
            async for batch in provider.stream(ASK):
                seen += batch
    assert seen


# Errors within a success


@pytest.mark.feature("P7")
@pytest.mark.parametrize("begun", [False, True], ids=["at the start", "in the middle"])
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("overloaded_error", ProviderUnavailable),
        ("api_error", ProviderUnavailable),
        ("timeout_error", ProviderTimeout),
        ("rate_limit_error", ProviderRateLimited),
        ("authentication_error", ProviderCredentialsRefused),
        ("permission_error", ProviderPermissionDenied),
        ("billing_error", ProviderPermissionDenied),
        ("not_found_error", ModelNotFound),
        ("invalid_request_error", ProviderRequestRefused),
        ("request_too_large", ProviderRequestRefused),
        ("prompt is too long", ProviderContextOverflow),
    ],
)
async def test_an_error_within_a_stream_of_any_kind_is_the_fault_that_it_would_have_been(
    kind: str, fault: type[Fault], begun: bool
) -> None:
    error = {"type": "error", "error": {"type": kind.replace(" ", "_"), "message": kind}, "request_id": "req_1"}
    body = anthropic_sse([*(ANTHROPIC_STREAM[:5] if begun else []), {"type": "ping"}, error])
    async with provider_at(stream(body)) as (provider, _):
        with pytest.raises(fault):
            async for _ in provider.stream(ASK):
                pass
