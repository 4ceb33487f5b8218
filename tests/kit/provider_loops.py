"""Recorded tool loops: several exchanges of one conversation with one provider, as something a suite can be put in front of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kit.provider_recordings import FOLDER, Reading, Recording, read_anthropic, read_gemini, read_openai, read_responses

READERS = {"openai": read_openai, "openai-responses": read_responses, "anthropic": read_anthropic, "gemini": read_gemini}
SIGNED = ("signature", "thoughtSignature", "encrypted_content")


@dataclass(frozen=True)
class Loop:
    """A conversation: the order, what the model answered in each turn, and what the tools gave back, in the order of the calls."""

    id: str
    adapter: str
    model: str
    order: str
    answers: tuple[Recording, ...]
    results: tuple[str, ...]

    def readings(self) -> list[Reading]:
        """What each answer says, read plainly."""
        return [READERS[self.adapter](answer) for answer in self.answers]

    def signatures(self) -> list[str]:
        """What the provider wants back of the answers that are not the last."""
        return [found for answer in self.answers[:-1] for found in _found(answer)]

    def __str__(self) -> str:
        return f"{self.id}-{self.adapter}"


def loops() -> list[Loop]:
    """Every recorded loop whose tools a Python function can stand in for."""
    if not FOLDER.is_dir():
        return []
    entries = json.loads((FOLDER / "MANIFEST.json").read_text())
    return [loop for entry in entries for loop in _of(entry["id"])]


def _of(name: str) -> Iterator[Loop]:
    exchanges = json.loads((FOLDER / f"{name}.cassette.json").read_text())["interactions"]
    adapters = {_adapter(exchange["request"]["uri"]) for exchange in exchanges}
    requests = [json.loads(exchange["request"]["body"] or "null") for exchange in exchanges]
    if len(exchanges) < 2 or len(adapters) > 1 or "" in adapters or not all(isinstance(request, dict) for request in requests):
        return
    (adapter,) = adapters
    answers = tuple(
        Recording(f"{name}.{number}", adapter, adapter, exchange["response"]["status"]["code"], _body(exchange), requests[number])
        for number, exchange in enumerate(exchanges)
    )
    results, order = tuple(_results(adapter, requests[-1])), _order(adapter, requests[0])
    model = requests[0].get("model") or exchanges[0]["request"]["uri"].rpartition("/")[2].partition(":")[0]
    loop = Loop(name, adapter, model, order, answers, results)
    readings = loop.readings()
    asked = [call for reading in readings for call in reading.calls]
    if order and asked and len(asked) == len(results) and not readings[-1].calls and all(call[1].isidentifier() for call in asked):
        yield loop


def _adapter(uri: str) -> str:
    path = uri.partition("?")[0]
    ends = {"/chat/completions": "openai", "/responses": "openai-responses", "/messages": "anthropic"}
    ends |= {":generateContent": "gemini", ":streamGenerateContent": "gemini"}
    return next((adapter for end, adapter in ends.items() if path.endswith(end)), "")


def _body(exchange: dict[str, Any]) -> bytes:
    text: str = (exchange["response"]["body"] or {}).get("string", "")
    return text.encode()


def _order(adapter: str, request: dict[str, Any]) -> str:
    """The text of the user's message; empty when there is more than text."""
    match adapter:
        case "gemini":
            pieces = request["contents"][-1]["parts"]
        case "openai-responses":
            pieces = request["input"] if isinstance(request["input"], str) else request["input"][-1].get("content")
        case _:
            pieces = request["messages"][-1]["content"]
    if isinstance(pieces, str):
        return pieces
    return "" if any("text" not in piece for piece in pieces or ()) else "".join(piece["text"] for piece in pieces or ())


def _results(adapter: str, request: dict[str, Any]) -> Iterator[str]:
    match adapter:
        case "gemini":
            parts = [part for content in request["contents"] for part in content["parts"]]
            yield from (json.dumps(part["functionResponse"]["response"]) for part in parts if "functionResponse" in part)
        case "openai-responses":
            items = request["input"] if isinstance(request["input"], list) else []
            yield from (_text(item["output"]) for item in items if item.get("type") == "function_call_output")
        case "openai":
            yield from (_text(message["content"]) for message in request["messages"] if message["role"] == "tool")
        case _:
            blocks = [block for m in request["messages"] if isinstance(m["content"], list) for block in m["content"]]
            yield from (_text(block["content"]) for block in blocks if block["type"] == "tool_result")


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(piece.get("text", "") for piece in content)


def _found(answer: Recording) -> Iterator[str]:
    """The signatures of an answer; of a stream's pieces the joined one."""
    if answer.is_stream and answer.protocol == "anthropic":
        return
    text = answer.body.decode()
    pieces = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and "[DONE]" not in line]
    yield from dict.fromkeys(found for piece in (pieces if answer.is_stream else [json.loads(text)]) for found in _signed(piece))


def _signed(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in SIGNED and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from _signed(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _signed(inner)
