"""Writes a request in the words of OpenAI Chat Completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provider_gateway.adapters.openai.call_ids import accepted_id
from provider_gateway.adapters.openai.dialect import Dialect, ReasoningBack
from provider_gateway.adapters.openai.effort import effort_fields
from provider_gateway.adapters.openai.think_tags import CLOSE, OPEN
from provider_gateway.adapters.wire import (
    adapted_schema,
    data_url,
    in_order,
    json_bytes,
    not_expressible,
    raw,
    state_raw,
    state_text,
    state_value,
    unmarkable,
)
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
_REASONING_FIELDS = ("reasoning_content", "reasoning")


@dataclass(slots=True)
class OpenAiEncoder:
    """Writes one request, collecting what had to be adapted."""

    origin: str
    dialect: Dialect
    warnings: list[RequestWarning]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, call: ModelCall, stream: bool) -> bytes:
        """The request's body. The extra fields come first: what the request itself says overrides them."""
        request = call.request
        self.warnings += unmarkable(request, self.origin)
        body: Body = {**self.extra, "model": call.model, "messages": self._messages(request.messages)}
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
                call_id = accepted_id(message.tool_call_id, self.dialect)
                return {"role": "tool", "tool_call_id": call_id, "content": self._tool_result(path, message)}

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
                    self._reasoning(where, part, body, content, this_turn or self._keeps_reasoning(message))
                case OpaquePart(state):
                    self._opaque(where, state, content)
                case _:
                    raise not_expressible(where, self.origin, "assistant messages hold text only; move it into a user message")
        if "reasoning_details" in body:  # they hold the text too
            body.pop("reasoning", None)
        if content:
            texts = [item["text"] for item in content if item["type"] == "text" and isinstance(item.get("text"), str)]
            body["content"] = "".join(texts) if len(texts) == len(content) else content
        if message.tool_calls:
            body["tool_calls"] = [self._call(f"{path}.tool_calls[{place}]", call) for place, call in enumerate(message.tool_calls)]
            if self.dialect.reasoning_required:
                body.setdefault(self.dialect.reasoning_required, "")
        elif body["content"] is None:
            body["content"] = ""
        return body

    def _keeps_reasoning(self, message: Message) -> bool:
        return bool(message.tool_calls) and self.dialect.reasoning_back is ReasoningBack.WITH_CALLS

    def _reasoning(self, path: str, part: ReasoningPart, body: Body, content: list[Body], wanted: bool) -> None:
        state = part.state
        if state is None or state.provider != self.origin:
            self._warn(path, f"reasoning that {self.origin} did not produce is not sent to it")
        elif state.kind == "reasoning_details":
            body["reasoning_details"] = state_raw(state.data, path, self.origin)
        elif state.kind == "thinking":
            signature = {"signature": state_text(state.data, path, self.origin)} if state.data else {}
            content.append({"type": "thinking", "thinking": [{"type": "text", "text": part.text}], **signature})
        elif wanted and state.kind == "think_tags":
            content.append({"type": "text", "text": f"{OPEN}\n{part.text}{CLOSE}\n"})
        elif wanted and state.kind in _REASONING_FIELDS:
            body[state.kind] = body.get(state.kind, "") + part.text

    def _opaque(self, path: str, state: OpaqueState, content: list[Body]) -> None:
        if state.provider == self.origin and state.kind == "content":
            content.append({"type": "", **state_value(state.data, path, self.origin, Body)})
        else:
            self._warn(path, f"a block of {state.provider} is not sent to {self.origin}")

    def _call(self, path: str, call: ToolCall) -> Body:
        arguments = call.arguments.decode("utf-8", "replace")
        call_id = accepted_id(call.id, self.dialect)
        body: Body = {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
        own = [state for state in call.provider_state if state.provider == self.origin]
        return body | {state.kind: state_raw(state.data, f"{path}.provider_state", self.origin) for state in own}

    def _tool_use(self, request: ChatRequest) -> Body:
        """Tools and the choice among them, in the server's words."""
        choice, dialect = request.tool_choice, self.dialect
        if not request.tools or (choice.mode is ToolChoiceMode.NONE and not dialect.hears_tool_choice):  # without tools none is called
            return {}
        if choice.forces and not dialect.hears_tool_choice:
            raise not_expressible("tool_choice", self.origin, "it does not look at tool_choice; leave the choice to the model")
        tools, body = in_order(request.tools), self._choice(choice)
        if choice.mode is ToolChoiceMode.NAMED and not dialect.names_tool:
            tools = [(place, tool) for place, tool in tools if tool.name == choice.name]
        body["tools"] = [self._tool(f"tools[{place}]", tool) for place, tool in tools]
        return body | self._parallel(request.parallel_tool_calls)

    def _choice(self, choice: ToolChoice) -> Body:
        match choice.mode:
            case ToolChoiceMode.NAMED if self.dialect.names_tool:
                return {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
            case ToolChoiceMode.NAMED | ToolChoiceMode.REQUIRED:
                return {"tool_choice": self.dialect.required_word}
            case ToolChoiceMode.AUTO | ToolChoiceMode.NONE if self.dialect.hears_tool_choice:
                return {"tool_choice": choice.mode.name.lower()}
        return {}

    def _parallel(self, wanted: bool | None) -> Body:
        if wanted is None:
            return {}
        if self.dialect.parallel_field:
            return {"parallel_tool_calls": wanted}
        if not wanted:
            self._warn("parallel_tool_calls", f"left out: {self.origin} calls as many tools at once as it likes")
        return {}

    def _tool(self, path: str, tool: ToolDefinition) -> Body:
        strict = tool.strict and self.dialect.strict_tools
        subset = self.dialect.strict if strict else OPENAI
        function: Body = {"name": tool.name, "parameters": self._schema(tool.parameters or _EMPTY_SCHEMA, subset, f"{path}.parameters")}
        if tool.description:
            function["description"] = tool.description
        if strict:
            function["strict"] = True
        elif tool.strict:
            self._warn(f"{path}.strict", f"left out: {self.origin} does not hold its arguments to a schema")
        return {"type": "function", "function": function}

    def _format(self, answer: ResponseFormat) -> Body:
        match answer.kind:
            case FormatKind.JSON_OBJECT if not self.dialect.json_object:
                raise not_expressible("response_format.kind", self.origin, "ask for KIND_JSON_SCHEMA instead of KIND_JSON_OBJECT")
            case FormatKind.JSON_SCHEMA if not self.dialect.json_schema:
                remedy = "ask for KIND_JSON_OBJECT and describe the schema in the conversation"
                raise not_expressible("response_format.kind", self.origin, remedy)
            case FormatKind.JSON_OBJECT:
                return {"response_format": {"type": "json_object"}}
            case FormatKind.JSON_SCHEMA:
                strict = self.dialect.strict
                written = self._schema(answer.schema, strict, "response_format.schema") if answer.strict else raw(answer.schema)
                schema: Body = {"name": answer.name or "answer", "schema": written, "strict": answer.strict}
                return {"response_format": {"type": "json_schema", "json_schema": schema}}
        return {}

    def _schema(self, schema: bytes, subset: Subset, path: str) -> Any:
        return raw(adapted_schema(schema, subset, path, self.origin, self.warnings))

    def _sampling(self, sampling: Sampling) -> Body:
        dialect = self.dialect
        if dialect.most_stops and len(sampling.stop) > dialect.most_stops:
            raise not_expressible("sampling.stop", self.origin, f"it takes at most {dialect.most_stops}")
        body: Body = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            dialect.max_tokens_field: sampling.max_output_tokens,
            "stop": list(sampling.stop) or None,
        }
        if dialect.seed_field:
            body[dialect.seed_field] = sampling.seed
        elif sampling.seed is not None:
            self._warn("sampling.seed", f"left out: {self.origin} takes no seed")
        effort, adapted = effort_fields(dialect.efforts, sampling.reasoning_effort)
        if adapted:
            self._warn("sampling.reasoning_effort", adapted)
        return {name: value for name, value in body.items() if value is not None} | self._with_extra(effort)

    def _with_extra(self, fields: Body) -> Body:
        """The fields; an object among them keeps what the extra fields have in it beside."""
        extra = self.extra
        beside = {name: extra[name] for name, value in fields.items() if isinstance(value, dict) and isinstance(extra.get(name), dict)}
        return fields | {name: {**given, **fields[name]} for name, given in beside.items()}

    def _labels(self, metadata: Mapping[str, str]) -> Body:
        user_field = self.dialect.user_field
        kept = sorted(set(metadata) - ({"user_id"} if user_field else set()))
        if kept:
            sent = "only user_id is sent" if user_field else "none is sent"
            self._warn("metadata", f"{', '.join(kept)} stay in behest's records; {sent} to {self.origin}")
        return {user_field: metadata["user_id"]} if user_field and "user_id" in metadata else {}

    def _warn(self, path: str, message: str) -> None:
        self.warnings.append(RequestWarning(path, message))
