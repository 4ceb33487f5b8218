"""Writes a request in the words of OpenAI Responses.

Instructions are system items at their places in the conversation rather than the field `instructions`: a conversation may have several,
in any place, every server knows the role, and OpenAI gives it the rank of a developer's where the model has that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provider_gateway.adapters.openai_responses.call_ids import accepted_id
from provider_gateway.adapters.openai_responses.dialect import Dialect
from provider_gateway.adapters.openai_responses.shapes import Item
from provider_gateway.adapters.openai_responses.state import (
    ANNOTATIONS,
    CONTENT,
    FUNCTION_CALL,
    MESSAGE,
    PARTS_BEFORE,
    REASONING,
    loaded,
    own_state,
)
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

Items = list[Any]

_EMPTY_SCHEMA = b'{"type":"object","properties":{}}'
_ENCRYPTED = "reasoning.encrypted_content"
_CHOICES: Mapping[ToolChoiceMode, str] = {
    ToolChoiceMode.AUTO: "auto",
    ToolChoiceMode.NONE: "none",
    ToolChoiceMode.REQUIRED: "required",
}


@dataclass(slots=True)
class ResponsesEncoder:
    """Writes one request, collecting what had to be adapted."""

    origin: str
    dialect: Dialect
    model: str
    warnings: list[RequestWarning] = field(default_factory=list)
    _callers: dict[str, Any] = field(default_factory=dict)

    def body(self, request: ChatRequest, stream: bool) -> bytes:
        """The request's body."""
        self.warnings += unmarkable(request, self.origin)
        body = self._prompt(request) | self._sampling(request.sampling) | self._keeping() | self._labels(request)
        if stream:
            body["stream"] = True
        return json_bytes(body)

    def prompt(self, request: ChatRequest) -> bytes:
        """What of the request is input, as the endpoint that counts it wants it."""
        return json_bytes(self._prompt(request))

    def _prompt(self, request: ChatRequest) -> Item:
        body: Item = {"model": self.model, "input": self._input(request.messages)}
        if request.tools:
            body["tools"] = [self._tool(place, tool) for place, tool in in_order(request.tools)]
            body |= _choice(request.tool_choice)
            if request.parallel_tool_calls is not None:
                body["parallel_tool_calls"] = request.parallel_tool_calls
        body |= self._format(request.response_format)
        body |= self._reasoning_wish(request.sampling.reasoning_effort)
        return body

    def _tool(self, place: int, tool: ToolDefinition) -> Item:
        subset = self.dialect.strict if tool.strict else OPENAI
        schema = self._schema(tool.parameters or _EMPTY_SCHEMA, subset, f"tools[{place}].parameters")
        item: Item = {"type": "function", "name": tool.name, "parameters": schema, "strict": tool.strict}  # unsaid it would be strict
        return item | ({"description": tool.description} if tool.description else {})

    def _format(self, answer: ResponseFormat) -> Item:
        match answer.kind:
            case FormatKind.JSON_OBJECT:
                return {"text": {"format": {"type": "json_object"}}}
            case FormatKind.JSON_SCHEMA:
                strict = answer.strict
                schema = self._schema(answer.schema, self.dialect.strict, "response_format.schema") if strict else raw(answer.schema)
                written: Item = {"type": "json_schema", "name": answer.name or "answer", "schema": schema, "strict": strict}
                return {"text": {"format": written}}
        return {}

    def _schema(self, schema: bytes, subset: Subset, path: str) -> Any:
        return raw(adapted_schema(schema, subset, path, self.origin, self.warnings))

    def _reasoning_wish(self, effort: ReasoningEffort) -> Item:
        wish: Item = {}
        if effort is not ReasoningEffort.UNSPECIFIED:
            wish["effort"] = effort.name.lower()
        if self.dialect.summary and effort not in (ReasoningEffort.UNSPECIFIED, ReasoningEffort.NONE):
            wish["summary"] = self.dialect.summary  # models that do not reason refuse it
        return {"reasoning": wish} if wish else {}

    def _sampling(self, sampling: Sampling) -> Item:
        if sampling.stop:
            raise not_expressible("sampling.stop", self.origin, "leave it out, or choose a provider that speaks another protocol")
        if sampling.seed is not None:
            self._warn("sampling.seed", f"left out: {self.origin} takes no seed")
        body = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_output_tokens": sampling.max_output_tokens}
        return {name: value for name, value in body.items() if value is not None}

    @property
    def _reasons(self) -> bool:
        return self.model not in self.dialect.plain

    def _keeping(self) -> Item:
        """What the provider keeps, and what it gives back instead."""
        asked = not self.dialect.store and self._reasons
        return {"store": self.dialect.store} | ({"include": [_ENCRYPTED]} if asked else {})

    def _labels(self, request: ChatRequest) -> Item:
        kept = sorted(set(request.metadata) - {"user_id"})
        if kept:
            self._warn("metadata", f"{', '.join(kept)} stay in behest's records; only user_id is sent to {self.origin}")
        return {"user": request.metadata["user_id"]} if "user_id" in request.metadata else {}

    def _input(self, messages: tuple[Message, ...]) -> Items:
        items: Items = []
        for place, message in enumerate(messages):
            items += self._message(f"messages[{place}]", message)
        return items

    def _message(self, path: str, message: Message) -> Items:
        match message.role:
            case Role.SYSTEM:
                return [_said("system", self._plain(path, message))]
            case Role.USER:
                return [_said("user", self._content(path, message))]
            case Role.TOOL:
                return [self._output(path, message)]
            case Role.ASSISTANT:
                return self._assistant(path, message)

    def _plain(self, path: str, message: Message) -> str:
        contents = [self._input_part(f"{path}.parts[{place}]", part) for place, part in enumerate(message.parts)]
        for place, content in enumerate(contents):
            if content["type"] != "input_text":
                raise not_expressible(f"{path}.parts[{place}]", self.origin, "move it into a user message")
        return "\n".join(content["text"] for content in contents)

    def _content(self, path: str, message: Message) -> str | Items:
        contents = [self._input_part(f"{path}.parts[{place}]", part) for place, part in enumerate(message.parts)]
        if not contents:
            return ""
        return contents[0]["text"] if len(contents) == 1 and contents[0]["type"] == "input_text" else contents

    def _output(self, path: str, message: Message) -> Item:
        contents = [self._input_part(f"{path}.parts[{place}]", part) for place, part in enumerate(message.parts)]
        item: Item = {"type": "function_call_output", "call_id": accepted_id(message.tool_call_id)}
        if all(content["type"] == "input_text" for content in contents):
            text = "\n".join(content["text"] for content in contents)
            item["output"] = f"Error: {text}" if message.is_error else text
        else:
            item["output"] = [*([{"type": "input_text", "text": "Error:"}] if message.is_error else []), *contents]
        caller = self._callers.get(message.tool_call_id)
        return item | ({"caller": caller} if caller else {})

    def _input_part(self, path: str, part: Part) -> Item:
        match part:
            case TextPart(text):
                return {"type": "input_text", "text": text}
            case JsonPart(data):
                return {"type": "input_text", "text": data.decode()}
            case ImagePart(blob):
                self._without_name(f"{path}.image", blob)
                return {"type": "input_image", "detail": "auto", "image_url": blob.url or data_url(blob)}
            case DocumentPart(blob) if blob.url:
                self._without_name(f"{path}.document", blob)
                return {"type": "input_file", "file_url": blob.url}
            case DocumentPart(blob):
                return {"type": "input_file", "filename": blob.name or "document", "file_data": data_url(blob)}
        raise not_expressible(path, self.origin, "messages to the model hold text, JSON, images and documents")

    def _without_name(self, path: str, blob: Blob) -> None:
        if blob.name:
            self._warn(f"{path}.name", "left out: only documents that are sent as data have a name")

    def _assistant(self, path: str, message: Message) -> Items:
        """The items of an answer in the order in which they came; calls whose place is not known come last."""
        items: Items = []
        last_thoughts: list[str] = []  # reasoning that nothing follows is refused: the answer was cut off before it led to anything
        calls = self._placed(message)
        for place, part in enumerate(message.parts):
            where, before = f"{path}.parts[{place}]", len(items)
            items += [self._call(call) for call in calls.pop(place, ())]
            self._assistant_part(where, part, items)
            if not isinstance(part, ReasoningPart):
                last_thoughts.clear()
            elif len(items) > before:
                last_thoughts.append(where)
        last_calls = [self._call(call) for later in sorted(calls) for call in calls[later]]
        if not last_calls:
            del items[len(items) - len(last_thoughts) :]
            for where in last_thoughts:
                self._warn(where, "reasoning that led to no answer is not sent")
        return items + last_calls

    def _placed(self, message: Message) -> dict[int, list[ToolCall]]:
        calls: dict[int, list[ToolCall]] = {}
        for call in message.tool_calls:
            place = (own_state(call.provider_state, self.origin, PARTS_BEFORE) or {}).get(PARTS_BEFORE)
            calls.setdefault(place if isinstance(place, int) else len(message.parts), []).append(call)
        return calls

    def _assistant_part(self, path: str, part: Part, items: Items) -> None:
        match part:
            case TextPart(text) | RefusalPart(text):
                self._say(part, text, items)
            case JsonPart(data):
                self._say(part, data.decode(), items)
            case ReasoningPart():
                items += self._reasoning(path, part)
            case OpaquePart():
                self._opaque(path, part, items)
            case _:
                raise not_expressible(path, self.origin, "assistant messages hold no images or documents; move it into a user message")

    def _say(self, part: Part, text: str, items: Items) -> None:
        """A text of an answer: in its own item where it came from here, else in a plain message together with its neighbours."""
        own = own_state(part.provider_state, self.origin, MESSAGE)
        if own is not None:
            annotations = own_state(part.provider_state, self.origin, ANNOTATIONS) or {"annotations": []}
            spoken: Item = {"type": "output_text", "text": text, **annotations}
            _add_content(items, own, {"type": "refusal", "refusal": text} if isinstance(part, RefusalPart) else spoken)
        elif items and _is_plain(items[-1]):
            items[-1]["content"] += text
        else:
            items.append(_said("assistant", text))

    def _reasoning(self, path: str, part: ReasoningPart) -> Items:
        """The item that the provider gave; nothing, with a warning, where it would refuse it."""
        state = part.state
        own = loaded(state.data) if state is not None and state.provider == self.origin and state.kind == REASONING else None
        if state is None or own is None:
            self._warn(path, f"reasoning that {self.origin} did not produce is not sent to it")
        elif not self._reasons:
            self._warn(path, f"reasoning is not sent to {self.model}, which does not reason")
        elif not (self.dialect.store or own.get("encrypted_content") or own.get("content")):
            self._warn(path, f"reasoning that {self.origin} gave neither openly nor encrypted is not sent: it does not keep any")
        else:
            return [raw(state.data)]
        return []

    def _opaque(self, path: str, part: OpaquePart, items: Items) -> None:
        if part.state.provider != self.origin:
            self._warn(path, f"a block of {part.state.provider} is not sent to {self.origin}")
            return
        block = loaded(part.state.data)
        if block is None:
            raise not_expressible(f"{path}.opaque.data", self.origin, "it is not JSON; send back what came, byte for byte")
        own = own_state(part.provider_state, self.origin, MESSAGE) if part.state.kind == CONTENT else None
        if own is None:
            items.append(raw(part.state.data))
        else:
            _add_content(items, own, block)

    def _call(self, call: ToolCall) -> Item:
        own = own_state(call.provider_state, self.origin, FUNCTION_CALL) or {}
        self._callers[call.id] = own.get("caller")
        arguments = call.arguments.decode("utf-8", "replace")
        return {**own, "type": "function_call", "call_id": accepted_id(call.id), "name": call.name, "arguments": arguments}

    def _warn(self, path: str, message: str) -> None:
        self.warnings.append(RequestWarning(path, message))


def _said(role: str, content: str | Items) -> Item:
    return {"type": "message", "role": role, "content": content}


def _is_plain(item: Any) -> bool:
    """Whether more text of an assistant can be added to the item."""
    return isinstance(item, dict) and item.get("type") == "message" and isinstance(item["content"], str)


def _add_content(items: Items, own: Item, content: Item) -> None:
    """Puts content into the message that it came from: the item before, or a new one."""
    last = items[-1] if items else None
    if isinstance(last, dict) and own.get("id") and last.get("id") == own["id"]:
        last["content"].append(content)
    else:
        items.append({**own, "content": [content]})


def _choice(choice: ToolChoice) -> Item:
    if choice.mode is ToolChoiceMode.NAMED:
        return {"tool_choice": {"type": "function", "name": choice.name}}
    word = _CHOICES.get(choice.mode)
    return {"tool_choice": word} if word else {}
