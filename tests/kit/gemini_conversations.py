"""Recorded requests of generateContent as conversations in the contract's words, and the vendor's own types to hold ours against."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from provider_gateway.adapters.gemini.decode import SIGNATURE
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    FormatKind,
    ImagePart,
    Message,
    Notes,
    OpaqueState,
    Part,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolDefinition,
)

TYPES = {
    "contents": "Content",
    "systemInstruction": "Content",
    "tools": "Tool",
    "toolConfig": "ToolConfig",
    "generationConfig": "GenerationConfig",
}
"""The fields of a request and their types in google.genai.types."""


def check_accepted(document: dict[str, Any], types: Any) -> None:
    """Fails unless the vendor's types know every field of the request by the name it has in JSON, and every value in it."""
    assert document.keys() <= TYPES.keys()
    for name, value in document.items():
        for one in value if isinstance(value, list) else [value]:
            known = getattr(types, TYPES[name]).model_validate(one)
            assert _plain(known.model_dump(mode="json", by_alias=True, exclude_unset=True)) == _plain(one)
    roles = [turn["role"] for turn in document["contents"]]
    assert all(one != other for one, other in pairwise(roles)), "turns alternate"
    assert all(turn["parts"] for turn in document["contents"]), "no turn is empty"


def _plain(value: Any) -> Any:
    """Bytes in one of base64's two alphabets."""
    return json.loads(json.dumps(value, sort_keys=True).replace("-", "+").replace("_", "/").replace("=", ""))


def conversation(request: dict[str, Any]) -> ChatRequest:
    """What a recorded request says."""
    document = _camel(request)
    config = document.get("generationConfig", {})
    system = [Message(Role.SYSTEM, (TextPart(part["text"]),)) for part in document.get("systemInstruction", {}).get("parts", ())]
    return ChatRequest(
        (*system, *_messages(document["contents"])),
        tools=tuple(_tool(one) for tool in document.get("tools", ()) for one in tool["functionDeclarations"]),
        response_format=_format(config),
        sampling=Sampling(
            config.get("temperature"), config.get("topP"), config.get("maxOutputTokens"), tuple(config.get("stopSequences", ()))
        ),
    )


def said_in(contents: list[dict[str, Any]]) -> list[Any]:
    """Every part of a conversation with its speaker, as it matters: without made-up ids, empty texts and marks."""
    return [_said(turn.get("role", "user"), part) for turn in _camel(contents) for part in turn["parts"] if part != {"text": ""}]


def _said(role: str, part: dict[str, Any]) -> Any:
    told = json.loads(json.dumps(part))
    if not re.fullmatch(r"[A-Za-z0-9+/=_-]{40,}", told.get("thoughtSignature", "")):
        told.pop("thoughtSignature", None)
    for kind in ("functionCall", "functionResponse"):
        told.get(kind, {}).pop("id", None)
    response = told.get("functionResponse", {}).get("response", {})
    if "content" in response:
        response["output"] = response.pop("content")
    return _plain([role, told])


def _messages(contents: list[dict[str, Any]]) -> Iterator[Message]:
    calls: dict[str, list[str]] = {}
    for place, turn in enumerate(contents):
        if turn.get("role") == "model":
            yield _assistant(place, turn["parts"], calls)
            continue
        for part in turn["parts"]:
            if "functionResponse" in part:
                yield _result(part["functionResponse"], calls)
            else:
                yield Message(Role.USER, (_part(part),))


def _assistant(place: int, parts: list[dict[str, Any]], calls: dict[str, list[str]]) -> Message:
    found = []
    for number, part in enumerate(parts):
        if "functionCall" in part:
            name, call_id = part["functionCall"]["name"], f"call_{place}_{number}"
            calls.setdefault(name, []).append(call_id)
            arguments = json.dumps(part["functionCall"].get("args", {})).encode()
            found.append(ToolCall(call_id, name, arguments, _signature(part)))
    return Message(Role.ASSISTANT, tuple(_part(part) for part in parts if "functionCall" not in part), tuple(found))


def _result(response: dict[str, Any], calls: dict[str, list[str]]) -> Message:
    """The answer to the oldest open call of that name."""
    call_id = calls[response["name"]].pop(0)
    (text,) = response["response"].values()
    return Message(Role.TOOL, (TextPart(text),), tool_call_id=call_id, tool_name=response["name"])


def _part(part: dict[str, Any]) -> Part:
    if "inlineData" in part:
        data = base64.b64decode(part["inlineData"]["data"], altchars="-_" if re.search("[-_]", part["inlineData"]["data"]) else None)
        return ImagePart(Blob(data=data, media_type=part["inlineData"]["mimeType"]))
    if "fileData" in part:
        return ImagePart(Blob(url=part["fileData"]["fileUri"], media_type=part["fileData"]["mimeType"]))
    return TextPart(part["text"], Notes(provider_state=_signature(part)))


def _signature(part: dict[str, Any]) -> tuple[OpaqueState, ...]:
    signature = part.get("thoughtSignature")
    return (OpaqueState("gemini", SIGNATURE, signature.encode()),) if signature else ()


def _tool(declaration: dict[str, Any]) -> ToolDefinition:
    parameters = declaration.get("parameters")
    schema = json.dumps(_lower(parameters)).encode() if parameters else b""
    return ToolDefinition(declaration["name"], declaration.get("description") or "", schema)


def _format(config: dict[str, Any]) -> ResponseFormat:
    schema = config.get("responseSchema")
    if schema:
        return ResponseFormat(FormatKind.JSON_SCHEMA, "answer", json.dumps(_lower(schema)).encode())
    return ResponseFormat(FormatKind.JSON_OBJECT) if config.get("responseMimeType") else ResponseFormat()


def _lower(schema: Any) -> Any:
    """The API's own dialect of schemas in JSON Schema: types are lower-case words there, and here sometimes numbers."""
    names = {1: "string", 2: "number", 3: "integer", 4: "boolean", 5: "array", 6: "object"}
    if isinstance(schema, list):
        return [_lower(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: names.get(value, str(value).lower()) if name == "type" and not isinstance(value, dict) else _lower(value)
        for name, value in schema.items()
    }


def _camel(value: Any) -> Any:
    """The same with its fields in the case that JSON has them in; what is in arguments and schemas stays."""
    if isinstance(value, list):
        return [_camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = ("args", "response", "properties")
    return {re.sub(r"_(\w)", lambda m: m[1].upper(), name): one if name in kept else _camel(one) for name, one in value.items()}
