"""Hand-written traffic of both protocols: small, readable, and each line there for a reason."""

from __future__ import annotations

import json
from typing import Any

OPENAI_TEXT = [
    {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "Grüß "}}]},
    {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "Gott 🌍"}}]},
    {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {
        "id": "c1",
        "model": "m-1",
        "choices": [],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": 5,
            "total_tokens": 25,
            "prompt_tokens_details": {"cached_tokens": 16},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    },
]


def _call(index: int | None, id_: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    call = {"index": index, "id": id_, "type": "function", "function": function}
    return {"id": "c2", "model": "m-1", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


FINISH_CALLS = {"id": "c2", "model": "m-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
OPENAI_CALLS = [
    _call(0, "call_a", "weather", ""),
    _call(0, None, None, '{"city":'),
    _call(1, "call_b", "time", '{"zone"'),
    _call(0, None, "", '"Paris"}'),
    _call(1, None, None, ':"CET"}'),
    FINISH_CALLS,
]
OPENAI_CALLS_ONE_INDEX = [_call(0, "call_a", "weather", '{"city":"Paris"}'), _call(0, "call_b", "time", '{"zone":"CET"}'), FINISH_CALLS]
OPENAI_CALLS_NO_INDEX = [
    _call(None, "call_a", "weather", '{"city":"Paris"}'),
    _call(None, "call_b", "time", '{"zone":"CET"}'),
    FINISH_CALLS,
]

OPENAI_WHOLE = {
    "id": "c3",
    "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": None}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}

ANTHROPIC_STREAM = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 4, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 1},
        },
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "see."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "SIG=="}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "ENC=="}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "Grüß Gott"}},
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "G"}},
    },
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}},
    },
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"query":'}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '"x"}'}},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "content_block_start",
        "index": 4,
        "content_block": {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"type": "web_search_result", "url": "u"}]},
    },
    {"type": "content_block_stop", "index": 4},
    {"type": "content_block_start", "index": 5, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}},
    {"type": "content_block_delta", "index": 5, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 5, "delta": {"type": "input_json_delta", "partial_json": '{"city":"Pa'}},
    {"type": "content_block_delta", "index": 5, "delta": {"type": "input_json_delta", "partial_json": 'ris"}'}},
    {"type": "content_block_stop", "index": 5},
    {"type": "content_block_start", "index": 6, "content_block": {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}},
    {"type": "content_block_stop", "index": 6},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 50}},
    {"type": "message_stop"},
]

ANTHROPIC_WHOLE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "SIG=="},
        {"type": "redacted_thinking", "data": "ENC=="},
        {"type": "text", "text": "Grüß Gott", "citations": [{"type": "char_location", "cited_text": "G"}]},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"type": "web_search_result", "url": "u"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 4, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 50},
}


def openai_sse(chunks: list[dict[str, Any]], done: bool = True) -> bytes:
    """Chunks as a Chat Completions stream."""
    lines = [json.dumps(chunk, ensure_ascii=False, separators=(",", ":")) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in [*lines, *(["[DONE]"] if done else [])]).encode()


def anthropic_sse(events: list[dict[str, Any]]) -> bytes:
    """Events as a Messages stream."""
    lines = [(event["type"], json.dumps(event, ensure_ascii=False, separators=(",", ":"))) for event in events]
    return "".join(f"event: {kind}\ndata: {line}\n\n" for kind, line in lines).encode()


def ndjson(lines: list[dict[str, Any]]) -> bytes:
    """Documents as lines of JSON, as Ollama streams."""
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()
