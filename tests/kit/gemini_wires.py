"""Hand-written traffic of generateContent: small, readable, and each line there for a reason."""

from __future__ import annotations

import json
from typing import Any

_HEAD = {"modelVersion": "gemini-x", "responseId": "r1"}
_EXECUTED = [
    {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
]
_CALLS = [
    {"functionCall": {"name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "U0lH"},
    {"functionCall": {"id": "own-1", "name": "now"}},
]
_GROUNDING = {
    "webSearchQueries": ["greeting"],
    "groundingChunks": [{"web": {"uri": "https://a.example/", "title": "A"}}, {"web": {"uri": "https://b.example/", "title": "B"}}],
    "groundingSupports": [{"segment": {"startIndex": 7, "endIndex": 11, "text": "Gott"}, "groundingChunkIndices": [0, 1]}],
}
_USAGE = {
    "promptTokenCount": 20,
    "cachedContentTokenCount": 16,
    "toolUsePromptTokenCount": 3,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 35,
}


def piece(*parts: Any, finish: str = "", **more: Any) -> dict[str, Any]:
    """One event of a stream."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate | more.pop("candidate", {})], **_HEAD, **more}


GEMINI_STREAM = [
    piece({"text": "Let me ", "thought": True}, usageMetadata={"promptTokenCount": 20, "totalTokenCount": 20}),
    piece({"text": "see.", "thought": True}),
    piece({"text": "Grüß "}),
    piece({"text": "Gott"}),
    piece(*_EXECUTED),
    piece(*_CALLS),
    piece({"text": ""}, finish="STOP", usageMetadata=_USAGE, candidate={"groundingMetadata": _GROUNDING}),
]

GEMINI_PARTS = [{"text": "Let me see.", "thought": True}, {"text": "Grüß Gott"}, *_EXECUTED, *_CALLS]
GEMINI_WHOLE = piece(*GEMINI_PARTS, finish="STOP", usageMetadata=_USAGE, candidate={"groundingMetadata": _GROUNDING})

GEMINI_TEXT = [
    piece({"text": "Grüß "}),
    piece({"text": "Gott 🌍"}),
    piece(finish="STOP", usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 2}),
]


def gemini_sse(events: list[dict[str, Any]]) -> bytes:
    """Events as a stream of generateContent."""
    return "".join(f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\r\n\r\n" for event in events).encode()
