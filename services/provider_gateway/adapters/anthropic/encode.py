"""Writes a request in the words of Anthropic Messages."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from provider_gateway.adapters.anthropic.cache_marks import MOST_MARKS, NO_MARKS, NO_PLAN, mark
from provider_gateway.adapters.anthropic.call_ids import accepted_id
from provider_gateway.adapters.anthropic.pauses import calls_after
from provider_gateway.adapters.anthropic.thinking import Thinking, takes_sampling, thinking
from provider_gateway.adapters.wire import (
    adapted_schema,
    in_order,
    json_bytes,
    leading_systems,
    not_expressible,
    object_arguments,
    raw,
    state_raw,
    state_text,
    state_value,
    states,
    system_text,
)
from provider_gateway.domain.answers import RequestWarning
from provider_gateway.domain.chat import (
    NO_NOTES,
    Blob,
    CacheLifetime,
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
    Role,
    TextPart,
    ToolCall,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.domain.prompt_cache import END, CachePlan, cache_plan
from provider_gateway.domain.schemas import ANTHROPIC, ANTHROPIC_OUTPUT, ANTHROPIC_STRICT, ANTHROPIC_STRICT_OUTPUT, Subset
from provider_gateway.operations.ports import ModelCall

Body = dict[str, Any]
Blocks = list[Body]

PROVIDER = "anthropic"
DEFAULT_MAX_TOKENS = 4096  # the API demands a number; used where neither the request nor the catalogue has one
MAX_DEFAULT_TOKENS = 32_000  # what is asked for unasked, however much the model could write
_EMPTY_SCHEMA = b'{"type":"object","properties":{}}'
_CHOICES: Mapping[ToolChoiceMode, str] = {
    ToolChoiceMode.AUTO: "auto",
    ToolChoiceMode.NONE: "none",
    ToolChoiceMode.REQUIRED: "any",
    ToolChoiceMode.NAMED: "tool",
}


class _Container(msgspec.Struct):
    """Where the model's own tools ran."""

    id: str


@dataclass(slots=True)
class AnthropicEncoder:
    """Writes one request, collecting what had to be adapted."""

    warnings: list[RequestWarning]
    plan: CachePlan = NO_PLAN

    def body(self, call: ModelCall, stream: bool) -> bytes:
        """The request's body."""
        request = call.request
        self.plan = cache_plan(request, call.caching, MOST_MARKS)
        self.warnings += self.plan.warnings
        thought = self._thinking(call)
        body: Body = {"model": call.model, "max_tokens": thought.max_tokens, "messages": self._messages(request)}
        system = self._system(request.messages)
        if system:
            body["system"] = system
        if request.tools:
            body["tools"] = [self._tool(place, tool) for place, tool in in_order(request.tools)]
        body |= self._choice(request)
        body |= self._sampling(call, thinks=bool(thought.fields))
        body |= thought.fields
        body |= self._output(request, thought)
        body |= self._labels(request)
        if stream:
            body["stream"] = True
        return json_bytes(body)

    def _thinking(self, call: ModelCall) -> Thinking:
        request, sampling = call.request, call.request.sampling
        limit = sampling.max_output_tokens or min(call.max_output_tokens, MAX_DEFAULT_TOKENS) or DEFAULT_MAX_TOKENS
        thought = thinking(sampling.reasoning_effort, call.model, limit, bool(request.tools) and request.tool_choice.forces)
        if thought.off:
            self._warn("sampling.reasoning_effort", thought.off)
        return thought

    def _system(self, messages: tuple[Message, ...]) -> Blocks:
        blocks: Blocks = []
        for place, message in enumerate(messages[: leading_systems(messages)]):
            marks = self.plan.parts.get(place, NO_MARKS)
            for at, part in enumerate(message.parts):
                blocks.append({"type": "text", "text": system_text(f"messages[{place}].parts[{at}]", part, PROVIDER)})
                if at in marks:
                    mark(blocks, marks[at])
        return blocks

    def _messages(self, request: ChatRequest) -> Blocks:
        turns: Blocks = []
        for place in range(leading_systems(request.messages), len(request.messages)):
            message = request.messages[place]
            role = "assistant" if message.role is Role.ASSISTANT else "user"
            blocks = self._blocks(place, message)
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += blocks
            elif blocks:
                turns.append({"role": role, "content": blocks})
        return turns

    def _blocks(self, place: int, message: Message) -> Blocks:
        path, marks = f"messages[{place}]", self.plan.parts.get(place, NO_MARKS)
        match message.role:
            case Role.USER:
                blocks = self._content(path, message.parts, marks)
            case Role.ASSISTANT:
                blocks = self._assistant(path, message, marks)
            case Role.TOOL:
                blocks = [self._tool_result(path, message)]
            case Role.SYSTEM:
                blocks = [self._late_system(path, message)]
        if marks:
            self._mark_end(place, message, blocks, marks)
        return blocks

    def _mark_end(self, place: int, message: Message, blocks: Blocks, marks: Mapping[int, CacheLifetime]) -> None:
        """Sets the marks that stand for a whole message: at its end, or within a message that becomes one block."""
        whole = message.role in (Role.TOOL, Role.SYSTEM)
        for at in sorted(marks):
            if (whole or at == END) and not mark(blocks, marks[at]) and at != END:
                self._warn(f"messages[{place}].parts[{at}].cache", "left out: nothing there can bear a mark")

    def _late_system(self, path: str, message: Message) -> Body:
        self._warn(path, "a system message after the first turn is sent as marked text of the user's turn")
        text = "\n".join(system_text(f"{path}.parts[{at}]", part, PROVIDER) for at, part in enumerate(message.parts))
        return {"type": "text", "text": f"<system>\n{text}\n</system>"}

    def _content(self, path: str, parts: tuple[Part, ...], marks: Mapping[int, CacheLifetime]) -> Blocks:
        blocks: Blocks = []
        for at, part in enumerate(parts):
            block = self._user_part(f"{path}.parts[{at}]", part)
            if block:
                blocks.append(block if part.notes is NO_NOTES else block | own_fields(f"{path}.parts[{at}]", part))
            if at in marks:
                self._mark_part(f"{path}.parts[{at}]", blocks, marks[at])
        return blocks

    def _mark_part(self, path: str, blocks: Blocks, lifetime: CacheLifetime) -> None:
        if not mark(blocks, lifetime):
            self._warn(f"{path}.cache", "left out: nothing there can bear a mark")

    def _user_part(self, path: str, part: Part) -> Body:
        match part:
            case TextPart(text):
                return _text(text)
            case JsonPart(data):
                return _text(data.decode())
            case ImagePart(blob):
                if blob.name:
                    self._warn(f"{path}.image.name", "the name of an image is not sent")
                return {"type": "image", "source": _source(blob)}
            case DocumentPart(blob):
                return self._document(path, blob)
        raise not_expressible(path, PROVIDER, "user and tool messages hold text, JSON, images and documents")

    def _document(self, path: str, blob: Blob) -> Body:
        body: Body = {"type": "document", "source": _source(blob)}
        if blob.data and blob.media_type.startswith("text/"):
            body["source"] = {"type": "text", "media_type": "text/plain", "data": blob.data.decode("utf-8", "replace")}
        elif blob.data and blob.media_type != "application/pdf":
            raise not_expressible(f"{path}.document.media_type", PROVIDER, f"{blob.media_type} is not PDF or text; convert it")
        return body | ({"title": blob.name} if blob.name else {})

    def _tool_result(self, path: str, message: Message) -> Body:
        blocks = self._content(path, message.parts, NO_MARKS)
        body: Body = {"type": "tool_result", "tool_use_id": accepted_id(message.tool_call_id)}
        if blocks:
            body["content"] = blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks
        return body | ({"is_error": True} if message.is_error else {})

    def _assistant(self, path: str, message: Message, marks: Mapping[int, CacheLifetime]) -> Blocks:
        blocks: Blocks = []
        due = self._calls(path, message) if message.tool_calls else []
        for at, part in enumerate(message.parts):
            while due and due[0][0] <= at:
                blocks.append(due.pop(0)[1])
            block = self._assistant_part(f"{path}.parts[{at}]", part, blocks)
            if block:
                blocks.append(block if part.notes is NO_NOTES else block | own_fields(f"{path}.parts[{at}]", part))
            if at in marks:
                self._mark_part(f"{path}.parts[{at}]", blocks, marks[at])
        return blocks + [call for _, call in due] if due else blocks

    def _calls(self, path: str, message: Message) -> list[tuple[int, Body]]:
        """Each call with the number of parts before it."""
        calls = [self._call(f"{path}.tool_calls[{at}]", call) for at, call in enumerate(message.tool_calls)]
        return list(zip(calls_after(message), calls, strict=True))

    def _assistant_part(self, path: str, part: Part, before: Blocks) -> Body:
        match part:
            case TextPart(text) | RefusalPart(text):
                return _text(text)
            case JsonPart(data):
                return _text(data.decode())
            case ReasoningPart():
                return self._reasoning(path, part)
            case OpaquePart(state):
                return self._opaque(path, state, before)
        raise not_expressible(path, PROVIDER, "assistant messages hold no images or documents; move it into a user message")

    def _reasoning(self, path: str, part: ReasoningPart) -> Body:
        state = part.state
        if state is None or state.provider != PROVIDER:
            self._warn(path, f"reasoning without {PROVIDER}'s own signature is not sent to it")
            return {}
        if state.kind == "redacted_thinking":
            return {"type": "redacted_thinking", "data": state_text(state.data, path, PROVIDER)}
        return {"type": "thinking", "thinking": part.text, "signature": state_text(state.data, path, PROVIDER)}

    def _opaque(self, path: str, state: OpaqueState, before: Blocks) -> Body:
        if state.provider != PROVIDER:
            self._warn(path, f"a block of {state.provider} is not sent to {PROVIDER}")
            return {}
        value = state_value(state.data, path, PROVIDER)
        if state.kind == "citations":
            if before and before[-1]["type"] == "text":
                before[-1]["citations"] = value
            return {}
        return value if isinstance(value, dict) else {}

    def _call(self, path: str, call: ToolCall) -> Body:
        body: Body = {
            "type": "tool_use",
            "id": accepted_id(call.id),
            "name": call.name,
            "input": object_arguments(path, call, self.warnings),
        }
        own = [state for state in call.provider_state if state.provider == PROVIDER]
        return body | {state.kind: state_raw(state.data, f"{path}.provider_state", PROVIDER) for state in own}

    def _tool(self, place: int, tool: ToolDefinition) -> Body:
        subset = ANTHROPIC_STRICT if tool.strict else ANTHROPIC
        schema = self._schema(tool.parameters or _EMPTY_SCHEMA, subset, f"tools[{place}].parameters")
        body: Body = {"name": tool.name, "input_schema": schema}
        if tool.description:
            body["description"] = tool.description
        if tool.strict:
            body["strict"] = True
        if place in self.plan.tools:
            mark([body], self.plan.tools[place])
        return body

    def _schema(self, schema: bytes, subset: Subset, path: str) -> Any:
        return raw(adapted_schema(schema, subset, path, PROVIDER, self.warnings))

    def _choice(self, request: ChatRequest) -> Body:
        word = _CHOICES.get(request.tool_choice.mode)
        serial = request.parallel_tool_calls is False
        if not request.tools or (word is None and not serial):
            return {}
        choice: Body = {"type": word or "auto"}
        if word == "tool":
            choice["name"] = request.tool_choice.name
        if serial and word != "none":
            choice["disable_parallel_tool_use"] = True
        return {"tool_choice": choice}

    def _sampling(self, call: ModelCall, thinks: bool) -> Body:
        sampling = call.request.sampling
        body: Body = {"stop_sequences": list(sampling.stop) or None}
        if sampling.temperature is not None and sampling.temperature > 1:
            raise not_expressible("sampling.temperature", PROVIDER, "its range is 0 to 1")
        for name in ("temperature", "top_p"):
            value = getattr(sampling, name)
            if value is not None and not takes_sampling(call.model):
                self._warn(f"sampling.{name}", f"left out: {call.model} takes none")
            elif value is not None and thinks and name == "temperature":
                self._warn("sampling.temperature", "left out: the model sets it when it thinks")
            else:
                body[name] = value
        if sampling.seed is not None:
            self._warn("sampling.seed", f"left out: {PROVIDER} takes no seed")
        return {name: value for name, value in body.items() if value is not None}

    def _output(self, request: ChatRequest, thought: Thinking) -> Body:
        answer = request.response_format
        output: Body = dict(thought.output)
        if answer.kind is FormatKind.JSON_OBJECT:
            raise not_expressible("response_format.kind", PROVIDER, "ask for KIND_JSON_SCHEMA instead of KIND_JSON_OBJECT")
        if answer.kind is FormatKind.JSON_SCHEMA:
            subset = ANTHROPIC_STRICT_OUTPUT if answer.strict else ANTHROPIC_OUTPUT
            output["format"] = {"type": "json_schema", "schema": self._schema(answer.schema, subset, "response_format.schema")}
        return {"output_config": output} if output else {}

    def _labels(self, request: ChatRequest) -> Body:
        body: Body = {}
        kept = sorted(set(request.metadata) - {"user_id"})
        if kept:
            self._warn("metadata", f"{', '.join(kept)} stay in behest's records; only user_id is sent to {PROVIDER}")
        if "user_id" in request.metadata:
            body["metadata"] = {"user_id": request.metadata["user_id"]}
        containers = [data for m in request.messages if m.provider_state for data in states(m, PROVIDER, "container")]
        if containers:
            body["container"] = state_value(containers[-1], "messages[].provider_state", PROVIDER, _Container).id
        return body

    def _warn(self, path: str, message: str) -> None:
        self.warnings.append(RequestWarning(path, message))


def own_fields(path: str, part: Part) -> Body:
    """The fields of a block that the contract has no words for, as the provider gave them or the caller sets them."""
    own = [state for state in part.notes.provider_state if state.provider == PROVIDER]
    return {state.kind: state_raw(state.data, f"{path}.provider_state", PROVIDER) for state in own}


def _text(text: str) -> Body:
    """A text block; none for blank text, which the API refuses and which says nothing."""
    return {"type": "text", "text": text} if text.strip() else {}


def _source(blob: Blob) -> Body:
    if blob.url:
        return {"type": "url", "url": blob.url}
    return {"type": "base64", "media_type": blob.media_type, "data": base64.b64encode(blob.data).decode()}
