"""Writes a request in the words of Ollama's /api/chat and /api/embed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provider_gateway.adapters.wire import adapted_schema, arguments_value, in_order, json_bytes, not_expressible, raw, unmarkable
from provider_gateway.domain.answers import RequestWarning
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    OpaquePart,
    ReasoningEffort,
    ReasoningPart,
    RefusalPart,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.domain.embeddings import EmbedPurpose
from provider_gateway.domain.schemas import OPENAI
from provider_gateway.operations.ports import EmbedCall, ModelCall

Body = dict[str, Any]

_EMPTY_SCHEMA = b'{"type":"object","properties":{}}'
_EFFORTS: Mapping[ReasoningEffort, bool | str] = {
    ReasoningEffort.NONE: False,
    ReasoningEffort.MINIMAL: "low",
    ReasoningEffort.LOW: "low",
    ReasoningEffort.MEDIUM: "medium",
    ReasoningEffort.HIGH: "high",
}


@dataclass(slots=True)
class OllamaEncoder:
    """Writes one request, collecting what had to be adapted. `options` are sent with every request; the request's own win."""

    origin: str
    options: Mapping[str, Any]
    keep_alive: str
    warnings: list[RequestWarning]

    def chat(self, call: ModelCall, stream: bool) -> bytes:
        """The body of a chat. A prompt that is too long is refused, not cut, by servers that know how."""
        request = call.request
        self.warnings += unmarkable(request, self.origin)
        body: Body = {"model": call.model, "messages": self._messages(request.messages), "stream": stream}
        body |= self._tools(request) | self._format(request.response_format) | self._thinking(request.sampling) | self._loading()
        body |= {"options": options} if (options := {**self.options, **self._sampling(request.sampling)}) else {}
        if request.metadata:
            self._warn("metadata", f"{', '.join(sorted(request.metadata))} stay in behest's records; none is sent to {self.origin}")
        return json_bytes(body | {"truncate": False, "shift": False})

    def embed(self, call: EmbedCall) -> bytes:
        """The body of an embedding call."""
        request = call.request
        if not isinstance(request.inputs[0], str):
            raise not_expressible("inputs[0].tokens", self.origin, "send text instead")
        body: Body = {"model": call.model, "input": request.inputs, "truncate": False} | self._loading()
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        if self.options:
            body["options"] = self.options
        if request.purpose is not EmbedPurpose.UNSPECIFIED:
            self._warn("purpose", f"left out: {self.origin} makes the same vectors for every purpose")
        if request.metadata:
            self._warn("metadata", f"{', '.join(sorted(request.metadata))} stay in behest's records; none is sent to {self.origin}")
        return json_bytes(body)

    def _messages(self, messages: tuple[Message, ...]) -> list[Body]:
        last_user = max((place for place, m in enumerate(messages) if m.role is Role.USER), default=-1)
        return [self._message(f"messages[{place}]", m, this_turn=place > last_user) for place, m in enumerate(messages)]

    def _message(self, path: str, message: Message, this_turn: bool) -> Body:
        body: Body = {"role": message.role.name.lower(), "content": ""}
        for place, part in enumerate(message.parts):
            where = f"{path}.parts[{place}]"
            match part:
                case TextPart(text) | RefusalPart(text):
                    _join(body, text, message.role)
                case JsonPart(data):
                    _join(body, data.decode(), message.role)
                case ImagePart(blob) if message.role is not Role.ASSISTANT:
                    body.setdefault("images", []).append(self._image(where, blob))
                case DocumentPart(blob) if blob.data and blob.media_type.startswith("text/") and message.role is Role.USER:
                    _join(body, blob.data.decode("utf-8", "replace"), message.role)
                case ReasoningPart() if message.role is Role.ASSISTANT:
                    self._reasoning(where, part, body, this_turn)
                case OpaquePart(state):
                    self._warn(where, f"a block of {state.provider} is not sent to {self.origin}")
                case _:
                    raise not_expressible(where, self.origin, "it takes text, JSON, pictures and text documents; convert the rest")
        return body | self._tool_parts(path, message)

    def _tool_parts(self, path: str, message: Message) -> Body:
        body: Body = {}
        if message.tool_calls:
            body["tool_calls"] = [self._call(f"{path}.tool_calls[{place}]", call) for place, call in enumerate(message.tool_calls)]
        if message.role is Role.TOOL:
            body |= {"tool_call_id": message.tool_call_id} | ({"tool_name": message.tool_name} if message.tool_name else {})
        return body

    def _image(self, path: str, blob: Blob) -> str:
        if blob.url:
            raise not_expressible(f"{path}.image.url", self.origin, "send the picture's bytes as data")
        return base64.b64encode(blob.data).decode()

    def _reasoning(self, path: str, part: ReasoningPart, body: Body, this_turn: bool) -> None:
        if part.state is None or part.state.provider != self.origin:
            self._warn(path, f"reasoning that {self.origin} did not produce is not sent to it")
        elif this_turn:  # models that think between tool calls want it back within the turn, and none afterwards
            body["thinking"] = body.get("thinking", "") + part.text

    def _call(self, path: str, call: ToolCall) -> Body:
        arguments = arguments_value(call.arguments)
        if not isinstance(arguments, dict):
            self._warn(f"{path}.arguments", "not a JSON object; sent as {'invalid_arguments': text}")
            arguments = {"invalid_arguments": call.arguments.decode("utf-8", "replace")}
        return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}

    def _tools(self, request: ChatRequest) -> Body:
        if not request.tools or request.tool_choice.mode is ToolChoiceMode.NONE:  # without tools none is called
            return {}
        if request.tool_choice.forces:
            raise not_expressible("tool_choice", self.origin, "it cannot be made to call a tool; leave the choice to the model")
        if request.parallel_tool_calls is False:
            self._warn("parallel_tool_calls", f"left out: {self.origin} calls as many tools at once as it likes")
        return {"tools": [self._tool(f"tools[{place}]", tool) for place, tool in in_order(request.tools)]}

    def _tool(self, path: str, tool: ToolDefinition) -> Body:
        if tool.strict:
            self._warn(f"{path}.strict", f"left out: {self.origin} does not hold its arguments to a schema")
        schema = adapted_schema(tool.parameters or _EMPTY_SCHEMA, OPENAI, f"{path}.parameters", self.origin, self.warnings)
        return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": raw(schema)}}

    def _format(self, answer: ResponseFormat) -> Body:
        match answer.kind:
            case FormatKind.JSON_OBJECT:
                return {"format": "json"}
            case FormatKind.JSON_SCHEMA:
                return {"format": raw(answer.schema)}
        return {}

    def _thinking(self, sampling: Sampling) -> Body:
        effort = sampling.reasoning_effort
        if effort is ReasoningEffort.MINIMAL:
            self._warn("sampling.reasoning_effort", "minimal is sent as low, the nearest that the server knows")
        return {} if effort is ReasoningEffort.UNSPECIFIED else {"think": _EFFORTS[effort]}

    def _sampling(self, sampling: Sampling) -> Body:
        options = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "num_predict": sampling.max_output_tokens,
            "stop": list(sampling.stop) or None,
            "seed": sampling.seed,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _loading(self) -> Body:
        return {"keep_alive": self.keep_alive} if self.keep_alive else {}

    def _warn(self, path: str, message: str) -> None:
        self.warnings.append(RequestWarning(path, message))


def _join(body: Body, text: str, role: Role) -> None:
    """Adds a part to the content, which is one text: an assistant's parts ran on, others stand below each other."""
    between = "\n" if body["content"] and role is not Role.ASSISTANT else ""
    body["content"] += between + text
