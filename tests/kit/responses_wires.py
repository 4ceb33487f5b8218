"""Hand-written traffic of OpenAI Responses: one answer with an item of every kind, whole and as a stream."""

from __future__ import annotations

import json
from typing import Any

THOUGHT = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "**Look**"}, {"type": "summary_text", "text": "then call"}],
    "encrypted_content": "ENC1==",
}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "wörld"}}
CITED = {"type": "url_citation", "url": "https://x/y", "title": "Y", "start_index": 0, "end_index": 4}
FILED = {"type": "file_citation", "file_id": "file_1", "filename": "a.pdf", "index": 3}
PREAMBLE = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "phase": "commentary",
    "content": [{"type": "output_text", "text": "Grüß Gott 🌍", "annotations": [CITED, FILED]}],
}
WEATHER = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_a", "name": "weather"}
WEATHER_ARGUMENTS = '{"city":"Paris"}'
SILENT_THOUGHT = {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": "ENC2=="}
PROGRAM = {"id": "cm_1", "type": "program", "call_id": "call_p", "code": "await tools.time()", "fingerprint": "F"}
TIME = {
    "id": "fc_2",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_b",
    "name": "time",
    "caller": {"type": "program", "caller_id": "call_p"},
}
OUTPUT = [
    THOUGHT,
    SEARCH,
    PREAMBLE,
    {**WEATHER, "arguments": WEATHER_ARGUMENTS},
    SILENT_THOUGHT,
    PROGRAM,
    {**TIME, "arguments": "{}"},
]
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 4},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 39,
}


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    """A response with this status."""
    shown = {"id": "resp_1", "object": "response", "model": "m-1", "status": status, "error": None, "incomplete_details": None}
    return {**shown, "output": [], "usage": None, **fields}


def event(kind: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    """An event of the stream of one response."""
    return {"type": f"response.{kind}", "output_index": index, **fields}


def told(kind: str, status: str = "completed", **fields: Any) -> dict[str, Any]:
    """An event about the whole response."""
    return {"type": f"response.{kind}", "response": response(status, **fields)}


def added(index: int, item: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An item begins."""
    return event("output_item.added", index, item={**item, **fields})


def done(index: int, item: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An item is done."""
    return event("output_item.done", index, item={**item, **fields})


def text(piece: str, index: int = 0, content: int = 0) -> dict[str, Any]:
    """A message's text grows."""
    return event("output_text.delta", index, item_id="msg_1", content_index=content, delta=piece)


def summary(piece: str, place: int, index: int = 0) -> dict[str, Any]:
    """A summary of reasoning grows."""
    return event("reasoning_summary_text.delta", index, item_id="rs_1", summary_index=place, delta=piece, obfuscation="xyz")


def arguments(piece: str, index: int) -> dict[str, Any]:
    """A call's arguments grow."""
    return event("function_call_arguments.delta", index, item_id="fc", delta=piece)


CREATED = told("created", "in_progress")
COMPLETED = told("completed", output=OUTPUT, usage=USAGE)
RESPONSES_STREAM = [
    CREATED,
    told("in_progress", "in_progress"),
    added(0, THOUGHT, summary=[], encrypted_content="EN"),
    event("reasoning_summary_part.added", 0, summary_index=0, part={"type": "summary_text", "text": ""}),
    summary("**Lo", 0),
    summary("ok**", 0),
    event("reasoning_summary_text.done", 0, summary_index=0, text="**Look**"),
    summary("then call", 1),
    done(0, THOUGHT),
    added(1, SEARCH, status="in_progress"),
    event("web_search_call.searching", 1, item_id="ws_1"),
    done(1, SEARCH),
    added(2, PREAMBLE, status="in_progress", content=[]),
    event("content_part.added", 2, content_index=0, part={"type": "output_text", "text": "", "annotations": []}),
    text("Grüß ", 2),
    event("output_text.annotation.added", 2, content_index=0, annotation_index=0, annotation=CITED),
    text("Gott 🌍", 2),
    event("output_text.done", 2, content_index=0, text="Grüß Gott 🌍"),
    done(2, PREAMBLE),
    added(3, WEATHER, status="in_progress", arguments=""),
    arguments('{"city":', 3),
    arguments('"Paris"}', 3),
    event("function_call_arguments.done", 3, arguments=WEATHER_ARGUMENTS),
    done(3, WEATHER, arguments=WEATHER_ARGUMENTS),
    added(4, SILENT_THOUGHT),
    done(4, SILENT_THOUGHT),
    {"type": "response.something.new", "output_index": "four", "delta": {"not": "text"}},
    added(5, PROGRAM),
    done(5, PROGRAM),
    added(6, TIME, status="in_progress", arguments=""),
    done(6, TIME, arguments="{}"),
    COMPLETED,
]
RESPONSES_WHOLE = response(output=OUTPUT, usage=USAGE)


def message(*contents: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A message item."""
    return {"id": "msg_9", "type": "message", "status": "completed", "role": "assistant", "content": list(contents), **fields}


def output_text(said: str) -> dict[str, Any]:
    """Text of a message."""
    return {"type": "output_text", "text": said, "annotations": []}


def responses_sse(events: list[dict[str, Any]]) -> bytes:
    """Events as a Responses stream."""
    lines = [(one["type"], json.dumps(one, ensure_ascii=False, separators=(",", ":"))) for one in events]
    return "".join(f"event: {kind}\ndata: {line}\n\n" for kind, line in lines).encode()


def responses_body(document: dict[str, Any]) -> bytes:
    """A whole response, written with white space as the vendor does."""
    return json.dumps(document, ensure_ascii=False, indent=2).encode()
