"""Recorded provider traffic from a folder beside the repository, where it exists, and a plain reading of it to compare with.

The reading here shares no code with the gateway: whole-body JSON and line by line, as one would write it without caring for splits,
bounds or speed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "provider_fixtures"
ABSENT = "optional: the folder ../shared/provider_fixtures with recorded traffic is not there"


@dataclass(frozen=True)
class Recording:
    """One recorded exchange."""

    id: str
    vendor: str
    protocol: str
    status: int
    body: bytes
    request: Any

    @property
    def is_stream(self) -> bool:
        """Whether the answer was streamed."""
        return not self.body.lstrip().startswith((b"{", b"["))

    def __str__(self) -> str:
        return f"{self.id}-{self.vendor}"


def recordings(protocol: str) -> list[Recording]:
    """All exchanges of one protocol: `openai`, `responses`, `anthropic` or `gemini`."""
    if not FOLDER.is_dir():
        return []
    return [recording for recording in _all() if recording.protocol == protocol]


def _all() -> Iterator[Recording]:
    for entry in json.loads((FOLDER / "MANIFEST.json").read_text()):
        cassette = json.loads((FOLDER / f"{entry['id']}.cassette.json").read_text())
        for number, exchange in enumerate(cassette["interactions"]):
            protocol = _protocol(exchange["request"]["uri"])
            body = (exchange["response"]["body"] or {}).get("string", "")
            if protocol and _is_answer(body):
                status, request = exchange["response"]["status"]["code"], _request(exchange["request"]["body"])
                for part, one in enumerate(_streams(body)):
                    name = f"{entry['id']}.{number}.{part}"
                    yield Recording(name, entry["providers"], protocol, status, one.encode(), request)


def _streams(body: str) -> list[str]:
    """A body's streams: some recordings hold the answers of several turns one after another."""
    turns = re.split(r'(?<=\n\n)(?=(?:event: response\.created\n)?data: *{"type":"response\.created")', body)
    if len(turns) > 1:
        return turns
    end = '{"type":"message_stop"}'
    pieces = body.split(end)
    return [piece + end for piece in pieces[:-1]] if len(pieces) > 2 else [body]


def _request(body: str | None) -> Any:
    return json.loads(body) if body else None


def _protocol(uri: str) -> str:
    path = uri.partition("?")[0]
    if path.endswith((":generateContent", ":streamGenerateContent")):
        return "gemini"
    if path.endswith("/responses"):
        return "responses"
    return "openai" if path.endswith("/chat/completions") else "anthropic" if path.endswith("/messages") else ""


def _is_answer(body: str) -> bool:
    """Some recordings filed under chat completions are of other endpoints; those have no choices."""
    if not body.lstrip().startswith("{"):
        return True
    document = json.loads(body)
    return any(key in document for key in ("choices", "content", "candidates", "output", "error"))


@dataclass
class Reading:
    """What an answer says."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    finish: str = ""
    usage: dict[str, int] = field(default_factory=dict)


def documents(body: bytes) -> list[Any]:
    """The JSON documents of a stream, line by line."""
    lines = [line[5:].strip() for line in body.decode().splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line and line != "[DONE]"]


def read_openai(recording: Recording) -> Reading:
    """A Chat Completions answer."""
    reading = Reading()
    pieces = documents(recording.body) if recording.is_stream else [json.loads(recording.body)]
    calls: dict[int, list[str]] = {}
    for piece in pieces:
        for choice in piece.get("choices") or ():
            content = choice.get("delta") or choice.get("message") or {}
            _openai_text(reading, content)
            for place, call in enumerate(content.get("tool_calls") or ()):
                slot = calls.setdefault(call.get("index", place), ["", "", ""])
                slot[0] = slot[0] or call.get("id") or ""
                slot[1] = slot[1] or call["function"].get("name") or ""
                slot[2] += call["function"].get("arguments") or ""
            reading.finish = choice.get("finish_reason") or reading.finish
        usage = piece.get("usage") or (piece.get("x_groq") or {}).get("usage")
        if usage:
            reading.usage = usage
    reading.calls = [tuple(call) for _, call in sorted(calls.items())]  # type: ignore[misc]
    return reading


def _openai_text(reading: Reading, content: dict[str, Any]) -> None:
    said = content.get("content")
    if isinstance(said, str):
        reading.text += said
    for item in said if isinstance(said, list) else ():
        if item["type"] == "text":
            reading.text += item["text"]
        else:
            reading.reasoning += "".join(thought["text"] for thought in item["thinking"])
    reading.reasoning += content.get("reasoning_content") or content.get("reasoning") or ""


def read_responses(recording: Recording) -> Reading:
    """A Responses answer: of a stream what grew, of a whole one its items."""
    if not recording.is_stream:
        return _responses_whole(json.loads(recording.body))
    reading = Reading()
    calls: dict[int, list[str]] = {}
    for event in documents(recording.body):
        place, item = event.get("output_index", 0), event.get("item") or {}
        match event["type"]:
            case "response.output_text.delta":
                reading.text += event["delta"]
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                reading.reasoning += event["delta"]
            case "response.output_item.done" if item["type"] == "function_call":
                calls[place] = [item["call_id"], item["name"], item["arguments"]]
            case "response.completed":
                reading.finish, reading.usage = event["response"]["status"], event["response"]["usage"]
    reading.calls = [tuple(call) for _, call in sorted(calls.items())]  # type: ignore[misc]
    return reading


def _responses_whole(response: dict[str, Any]) -> Reading:
    items = response["output"]
    thoughts = [piece for item in items if item["type"] == "reasoning" for piece in [*item["summary"], *item.get("content", ())]]
    return Reading(
        text="".join(content["text"] for item in items if item["type"] == "message" for content in item["content"]),
        reasoning="".join(piece["text"] for piece in thoughts),
        calls=[(item["call_id"], item["name"], item["arguments"]) for item in items if item["type"] == "function_call"],
        finish=response["status"],
        usage=response["usage"],
    )


def responses_items(recording: Recording) -> list[dict[str, Any]]:
    """The items of a Responses answer as each was when it was done: the vendor encrypts reasoning anew whenever it tells of it."""
    if recording.is_stream:
        told = [event for event in documents(recording.body) if event["type"] == "response.output_item.done"]
        return [event["item"] for event in sorted(told, key=lambda event: int(event["output_index"]))]
    items: list[dict[str, Any]] = json.loads(recording.body)["output"]
    return items


def read_anthropic(recording: Recording) -> Reading:
    """A Messages answer."""
    return _anthropic_stream(recording) if recording.is_stream else _anthropic_whole(json.loads(recording.body))


def _anthropic_whole(message: dict[str, Any]) -> Reading:
    blocks = message["content"]
    return Reading(
        text="".join(block["text"] for block in blocks if block["type"] == "text"),
        reasoning="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        calls=[(block["id"], block["name"], json.dumps(block["input"])) for block in blocks if block["type"] == "tool_use"],
        finish=message["stop_reason"],
        usage=message["usage"],
    )


def _anthropic_stream(recording: Recording) -> Reading:
    reading, calls = Reading(), {}
    for event in documents(recording.body):
        match event["type"]:
            case "message_start":
                reading.usage = dict(event["message"]["usage"])
            case "content_block_start" if event["content_block"]["type"] == "tool_use":
                block = event["content_block"]
                calls[event["index"]] = [block["id"], block["name"], "", block.get("input")]
            case "content_block_delta":
                delta = event["delta"]
                reading.text += delta.get("text", "")
                reading.reasoning += delta.get("thinking", "")
                if event["index"] in calls:
                    calls[event["index"]][2] += delta.get("partial_json", "")
            case "message_delta":
                reading.finish = event["delta"]["stop_reason"] or reading.finish
                reading.usage |= {key: value for key, value in event.get("usage", {}).items() if value is not None}
    reading.calls = [(call[0], call[1], call[2] or json.dumps(call[3] or {})) for _, call in sorted(calls.items())]
    return reading


def read_gemini(recording: Recording) -> Reading:
    """A generateContent answer; ids are the API's own, empty where it gave none."""
    reading = Reading()
    whole = [] if recording.is_stream else json.loads(recording.body)
    pieces = documents(recording.body) if recording.is_stream else whole if isinstance(whole, list) else [whole]
    calls: list[list[Any]] = []
    for piece in pieces:
        for candidate in piece.get("candidates") or ():
            for part in (candidate.get("content") or {}).get("parts") or ():
                _gemini_part(reading, calls, part)
            reading.finish = str(candidate.get("finishReason") or reading.finish)
        reading.usage |= {key: value for key, value in piece.get("usageMetadata", {}).items() if isinstance(value, int)}
    reading.calls = [(id_, name, json.dumps(arguments)) for id_, name, arguments in calls]
    return reading


def _gemini_part(reading: Reading, calls: list[list[Any]], part: dict[str, Any]) -> None:
    if part.get("thought"):
        reading.reasoning += part.get("text", "")
    else:
        reading.text += part.get("text", "")
    call = part.get("functionCall")
    if call and call.get("name"):
        calls.append([call.get("id", ""), call["name"], dict(call.get("args") or {})])
    for piece in (call or {}).get("partialArgs") or ():
        arguments, name = calls[-1][2], piece["jsonPath"].removeprefix("$.")
        arguments[name] = arguments.get(name, "") + piece["stringValue"]
