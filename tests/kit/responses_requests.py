"""Responses requests as others wrote them, in the contract's words; and the official SDK's types as a judge of what the gateway writes."""

from __future__ import annotations

import functools
import json
from typing import Any

from pydantic import TypeAdapter

from provider_gateway.adapters.wire import blob_of_url
from provider_gateway.domain.chat import (
    NO_NOTES,
    ChatRequest,
    FormatKind,
    ImagePart,
    Message,
    Notes,
    OpaqueState,
    Part,
    ReasoningEffort,
    ReasoningPart,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolDefinition,
)

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "developer": Role.SYSTEM, "system": Role.SYSTEM}


def request_of(recorded: dict[str, Any], origin: str) -> ChatRequest:
    """A recorded request; what the provider gave before is state of origin."""
    known = {"model", "input", "tools", "stream", "include", "reasoning", "store", "text"}
    assert set(recorded) <= known, f"the recording has fields that this reading does not know: {set(recorded) - known}"
    effort = (recorded.get("reasoning") or {}).get("effort")
    return ChatRequest(
        messages=tuple(messages_of(recorded["input"], origin)),
        model=recorded["model"],
        tools=tuple(
            ToolDefinition(t["name"], t.get("description", ""), json.dumps(t["parameters"]).encode(), bool(t.get("strict")))
            for t in recorded.get("tools", ())
        ),
        response_format=_format(recorded.get("text")),
        sampling=Sampling(reasoning_effort=ReasoningEffort[effort.upper()] if effort else ReasoningEffort.UNSPECIFIED),
    )


def messages_of(items: list[dict[str, Any]], origin: str) -> list[Message]:
    """Input items as messages: those of one answer together."""
    messages: list[Message] = []
    parts: list[Part] = []
    calls: list[ToolCall] = []

    def end_answer() -> None:
        if parts or calls:
            messages.append(Message(Role.ASSISTANT, tuple(parts), tuple(calls)))
            parts.clear()
            calls.clear()

    for item in items:
        match item.get("type", "message"):
            case "reasoning":
                if calls:
                    end_answer()
                parts.append(ReasoningPart("", OpaqueState(origin, "reasoning", json.dumps(item).encode())))
            case "function_call":
                kept = {key: item[key] for key in ("id", "status") if key in item}
                state = OpaqueState(origin, "function_call", json.dumps(kept).encode())
                calls.append(ToolCall(item["call_id"], item["name"], item["arguments"].encode(), (state,)))
            case "function_call_output":
                end_answer()
                messages.append(Message(Role.TOOL, (TextPart(item["output"]),), tool_call_id=item["call_id"]))
            case "message":
                end_answer()
                kept = {key: value for key, value in item.items() if key != "content"}
                notes = Notes(provider_state=(OpaqueState(origin, "message", json.dumps(kept).encode()),)) if "id" in item else NO_NOTES
                messages.append(Message(_ROLES[item["role"]], tuple(_parts(item["content"], notes))))
    end_answer()
    return messages


def _parts(content: str | list[dict[str, Any]], notes: Notes) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(content, notes)]
    return [ImagePart(blob_of_url(c["image_url"])) if c["type"] == "input_image" else TextPart(c["text"], notes) for c in content]


def _format(text: dict[str, Any] | None) -> ResponseFormat:
    wanted = (text or {}).get("format", {})
    match wanted.get("type"):
        case "json_object":
            return ResponseFormat(FormatKind.JSON_OBJECT)
        case "json_schema":
            return ResponseFormat(FormatKind.JSON_SCHEMA, wanted["name"], json.dumps(wanted["schema"]).encode(), bool(wanted.get("strict")))
    return ResponseFormat()


def check_by_the_sdk(body: bytes) -> None:
    """Fails unless the official SDK's types have room for the request, to the last item."""
    document = json.loads(body)
    streaming, at_once = _judges()
    judge = streaming if document.get("stream") else at_once
    _walk(judge.validate_python(document))
    assert set(document) <= _fields(), f"the SDK knows no {set(document) - _fields()}"


def check_count_by_the_sdk(body: bytes) -> None:
    """Fails unless the official SDK's types have room for a request that counts, which is a part of one that answers."""
    from openai.types.responses.input_token_count_params import InputTokenCountParams

    check_by_the_sdk(body)
    assert set(json.loads(body)) <= set(InputTokenCountParams.__annotations__)


@functools.cache
def _judges() -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming, ResponseCreateParamsStreaming

    return TypeAdapter(ResponseCreateParamsStreaming), TypeAdapter(ResponseCreateParamsNonStreaming)


@functools.cache
def _fields() -> frozenset[str]:
    from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

    return frozenset(ResponseCreateParamsStreaming.__annotations__)


def _walk(value: Any) -> None:
    """Iterates over everything: the SDK's types have iterables, which are validated only then."""
    if isinstance(value, dict):
        for inner in value.values():
            _walk(inner)
    elif hasattr(value, "__iter__") and not isinstance(value, str | bytes):
        for inner in value:
            _walk(inner)
