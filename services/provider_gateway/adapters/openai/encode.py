"""Writes a request in the words of OpenAI Chat Completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provider_gateway.adapters.openai.dialect import Dialect
from provider_gateway.adapters.wire import adapted_schema, data_url, in_order, json_bytes, not_expressible, raw, unmarkable
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
    OpaqueState,
    Part,
    ReasoningEffort,
    ReasoningPart,
    RefusalPart,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.domain.schemas import OPENAI, Subset
from provider_gateway.operations.ports import ModelCall

Body = dict[str, Any]

_EMPTY_SCHEMA = b'{"type":"object","properties":{}}'
_CHOICES: Mapping[ToolChoiceMode, str] = {
    ToolChoiceMode.AUTO: "auto",
    ToolChoiceMode.NONE: "none",
    ToolChoiceMode.REQUIRED: "required",
}
_REASONING_FIELDS = ("reasoning_content", "reasoning")


@dataclass(slots=True)
class OpenAiEncoder:
    """Writes one request, collecting what had to be adapted."""

    origin: str
    dialect: Dialect
    warnings: list[RequestWarning]

    def body(self, call: ModelCall, stream: bool) -> bytes:
        """The request's body."""
        request = call.request
        self.warnings += unmarkable(request, self.origin)
        body: Body = {"model": call.model, "messages": self._messages(request.messages)}
        if request.tools:
            body["tools"] = [self._tool(place, tool) for place, tool in in_order(request.tools)]
        body |= self._tool_use(request)
        body |= self._format(request.response_format)
        body |= self._sampling(request.sampling)
        body |= self._labels(request.metadata)
        body |= self._going_on(request, body["messages"])
        if stream:
            body["stream"] = True
            if self.dialect.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return json_bytes(body)

    def _messages(self, messages: tuple[Message, ...]) -> list[Body]:
        last_user = max((place for place, m in enumerate(messages) if m.role is Role.USER), default=-1)
        return [self._message(f"messages[{place}]", m, this_turn=place > last_user) for place, m in enumerate(messages)]

    def _going_on(self, request: ChatRequest, messages: list[Body]) -> Body:
        """Tells the server in its own way to go on with an answer that was begun; marks the message where that is the way."""
        last = request.messages[-1] if request.messages else None
        if last is None or last.role is not Role.ASSISTANT or last.tool_calls:
            return {}
        if self.dialect.continue_by == "prefix":
            messages[-1]["prefix"] = True
        elif self.dialect.continue_by == "continue_final_message":
            return {"continue_final_message": True, "add_generation_prompt": False}
        return {}

    def _message(self, path: str, message: Message, this_turn: bool) -> Body:
        match message.role:
            case Role.SYSTEM:
                return {"role": "system", "content": self._text_only(path, message)}
            case Role.USER:
                return {"role": "user", "content": self._content(path, message)}
            case Role.ASSISTANT:
                return self._assistant(path, message, this_turn)
            case Role.TOOL:
                return {"role": "tool", "tool_call_id": message.tool_call_id, "content": self._tool_result(path, message)}

    def _text_only(self, path: str, message: Message) -> str:
        return "\n".join(self._plain(f"{path}.parts[{place}]", part) for place, part in enumerate(message.parts))

    def _plain(self, path: str, part: Part) -> str:
        match part:
            case TextPart(text) | RefusalPart(text):
                return text
            case JsonPart(data):
                return data.decode()
        raise not_expressible(path, self.origin, "such a message holds text and JSON only; move the rest into a user message")

    def _tool_result(self, path: str, message: Message) -> str:
        text = self._text_only(path, message)
        return f"Error: {text}" if message.is_error else text

    def _content(self, path: str, message: Message) -> str | list[Body]:
        if not message.parts:
            return ""
        if len(message.parts) == 1 and isinstance(message.parts[0], TextPart):
            return message.parts[0].text
        return [self._user_part(f"{path}.parts[{place}]", part) for place, part in enumerate(message.parts)]

    def _user_part(self, path: str, part: Part) -> Body:
        match part:
            case TextPart(text):
                return {"type": "text", "text": text}
            case JsonPart(data):
                return {"type": "text", "text": data.decode()}
            case ImagePart(blob):
                return {"type": "image_url", "image_url": {"url": blob.url or data_url(blob)}}
            case DocumentPart(blob):
                return {"type": "file", "file": self._file(path, blob)}
        raise not_expressible(path, self.origin, "user messages hold text, JSON, images and documents")

    def _file(self, path: str, blob: Blob) -> Body:
        if blob.url:
            raise not_expressible(f"{path}.document.url", self.origin, "send the document's bytes as data")
        return {"filename": blob.name or "document", "file_data": data_url(blob)}

    def _assistant(self, path: str, message: Message, this_turn: bool) -> Body:
        body: Body = {"role": "assistant", "content": None}
        content: list[Body] = []
        for place, part in enumerate(message.parts):
            where = f"{path}.parts[{place}]"
            match part:
                case TextPart(text):
                    content.append({"type": "text", "text": text})
                case JsonPart(data):
                    content.append({"type": "text", "text": data.decode()})
                case RefusalPart(text):
                    content.append({"type": "refusal", "refusal": text})
                case ReasoningPart():
                    self._reasoning(where, part, body, content, this_turn)
                case OpaquePart(state):
                    self._opaque(where, state, content)
                case _:
                    raise not_expressible(where, self.origin, "assistant messages hold text only; move it into a user message")
        if content:
            plain = all(item["type"] == "text" for item in content)
            body["content"] = "".join(item["text"] for item in content) if plain else content
        if message.tool_calls:
            body["tool_calls"] = [self._call(call) for call in message.tool_calls]
        elif body["content"] is None:
            body["content"] = ""
        return body

    def _reasoning(self, path: str, part: ReasoningPart, body: Body, content: list[Body], this_turn: bool) -> None:
        state = part.state
        if state is None or state.provider != self.origin:
            self._warn(path, f"reasoning that {self.origin} did not produce is not sent to it")
        elif state.kind == "reasoning_details":
            body["reasoning_details"] = raw(state.data)
        elif state.kind == "thinking":
            content.append({"type": "thinking", "thinking": [{"type": "text", "text": part.text}]})
        elif this_turn and state.kind in _REASONING_FIELDS:  # servers want it back within the turn and refuse or ignore it afterwards
            body[state.kind] = body.get(state.kind, "") + part.text

    def _opaque(self, path: str, state: OpaqueState, content: list[Body]) -> None:
        if state.provider == self.origin and state.kind == "content":
            content.append({"type": "", **_loaded(state.data)})
        else:
            self._warn(path, f"a block of {state.provider} is not sent to {self.origin}")

    def _call(self, call: ToolCall) -> Body:
        arguments = call.arguments.decode("utf-8", "replace")
        body: Body = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
        own = [state for state in call.provider_state if state.provider == self.origin]
        return body | {state.kind: raw(state.data) for state in own}

    def _tool(self, place: int, tool: ToolDefinition) -> Body:
        subset = self.dialect.strict if tool.strict else OPENAI
        schema = self._schema(tool.parameters or _EMPTY_SCHEMA, subset, f"tools[{place}].parameters")
        function: Body = {"name": tool.name, "parameters": schema}
        if tool.description:
            function["description"] = tool.description
        if tool.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    def _format(self, answer: ResponseFormat) -> Body:
        match answer.kind:
            case FormatKind.JSON_OBJECT:
                return {"response_format": {"type": "json_object"}}
            case FormatKind.JSON_SCHEMA:
                written = (
                    self._schema(answer.schema, self.dialect.strict, "response_format.schema") if answer.strict else raw(answer.schema)
                )
                schema: Body = {"name": answer.name or "answer", "schema": written, "strict": answer.strict}
                return {"response_format": {"type": "json_schema", "json_schema": schema}}
        return {}

    def _schema(self, schema: bytes, subset: Subset, path: str) -> Any:
        return raw(adapted_schema(schema, subset, path, self.origin, self.warnings))

    def _tool_use(self, request: ChatRequest) -> Body:
        if not request.tools:
            return {}
        body = _choice(request.tool_choice)
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
        return body

    def _sampling(self, sampling: Sampling) -> Body:
        body: Body = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.dialect.max_tokens_field: sampling.max_output_tokens,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        if sampling.reasoning_effort is not ReasoningEffort.UNSPECIFIED:
            body["reasoning_effort"] = sampling.reasoning_effort.name.lower()
        return {name: value for name, value in body.items() if value is not None}

    def _labels(self, metadata: Mapping[str, str]) -> Body:
        kept = sorted(set(metadata) - {"user_id"})
        if kept:
            self._warn("metadata", f"{', '.join(kept)} stay in behest's records; only user_id is sent to {self.origin}")
        return {"user": metadata["user_id"]} if "user_id" in metadata else {}

    def _warn(self, path: str, message: str) -> None:
        self.warnings.append(RequestWarning(path, message))


def _choice(choice: ToolChoice) -> Body:
    if choice.mode is ToolChoiceMode.NAMED:
        return {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
    word = _CHOICES.get(choice.mode)
    return {"tool_choice": word} if word else {}


def _loaded(data: bytes) -> Body:
    import msgspec

    loaded = msgspec.json.decode(data)
    return loaded if isinstance(loaded, dict) else {}
