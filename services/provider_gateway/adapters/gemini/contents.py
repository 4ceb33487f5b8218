"""Writes a conversation as generateContent wants it: turns of user and model that alternate, results in the order of their calls.

Calls without an id of the API's own are told apart by their order alone, so results are brought into the order of the calls.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from provider_gateway.adapters.gemini.decode import OWN_ID, PART, PLACES, SIGNATURE, THOUGHT
from provider_gateway.adapters.gemini.generations import THINKS_BY_LEVEL, Generation
from provider_gateway.adapters.wire import (
    leading_systems,
    not_expressible,
    object_arguments,
    raw,
    state_text,
    state_value,
    states,
    system_text,
)
from provider_gateway.domain.answers import RequestWarning
from provider_gateway.domain.chat import (
    Blob,
    DocumentPart,
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
)

Body = dict[str, Any]

PROVIDER = "gemini"
UNCHECKED = "skip_thought_signature_validator"
"""What the API takes in place of a signature for calls that it did not make: https://ai.google.dev/gemini-api/docs/thought-signatures"""

_TYPES_BY_ENDING: Mapping[str, str] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "gif": "image/gif",
    "pdf": "application/pdf",
    "txt": "text/plain",
}


@dataclass(frozen=True, slots=True)
class _Known:
    """A call that was made earlier: its place among the calls of its message, and whether its id is the API's own."""

    name: str
    place: int
    own_id: bool


@dataclass(slots=True)
class ContentsWriter:
    """Writes one conversation for models of one generation, collecting what had to be adapted."""

    generation: Generation
    warnings: list[RequestWarning]
    _calls: dict[str, _Known] = field(default_factory=dict)
    _unsigned: bool = False

    def system(self, messages: tuple[Message, ...]) -> Body:
        """The leading system messages; empty when there are none."""
        parts = [
            {"text": system_text(f"messages[{place}].parts[{at}]", part, PROVIDER)}
            for place, message in enumerate(messages[: leading_systems(messages)])
            for at, part in enumerate(message.parts)
        ]
        return {"parts": parts} if parts else {}

    def contents(self, messages: tuple[Message, ...]) -> list[Body]:
        """The rest of the conversation."""
        turns: list[Body] = []
        first = leading_systems(messages)
        for is_tool, run in groupby(enumerate(messages[first:], first), key=lambda item: item[1].role is Role.TOOL):
            for place, message in sorted(run, key=lambda item: self._rank(item[1])) if is_tool else run:
                _append(turns, "model" if message.role is Role.ASSISTANT else "user", self._parts(f"messages[{place}]", message))
        return turns

    def _rank(self, message: Message) -> int:
        known = self._calls.get(message.tool_call_id)
        return known.place if known else len(self._calls)

    def _parts(self, path: str, message: Message) -> list[Body]:
        match message.role:
            case Role.SYSTEM:
                self._warn(path, "a system message after the first turn is sent as marked text of the user's turn")
                text = "\n".join(system_text(f"{path}.parts[{at}]", part, PROVIDER) for at, part in enumerate(message.parts))
                return [{"text": f"<system>\n{text}\n</system>"}]
            case Role.USER:
                return [self._user_part(f"{path}.parts[{at}]", part) for at, part in enumerate(message.parts)]
            case Role.TOOL:
                return [self._tool_result(path, message)]
            case Role.ASSISTANT:
                return self._assistant(path, message)

    def _user_part(self, path: str, part: Part) -> Body:
        match part:
            case TextPart(text):
                return {"text": text}
            case JsonPart(data):
                return {"text": data.decode()}
            case ImagePart(blob) | DocumentPart(blob):
                return self._blob(path, blob)
        raise not_expressible(path, PROVIDER, "user messages hold text, JSON, images and documents")

    def _blob(self, path: str, blob: Blob) -> Body:
        if blob.name:
            self._warn(f"{path}.name", "the name of an image or document is not sent")
        if not blob.url:
            return {"inlineData": {"mimeType": blob.media_type, "data": base64.b64encode(blob.data).decode()}}
        media_type = blob.media_type or _TYPES_BY_ENDING.get(_ending(blob.url), "")
        return {"fileData": {"fileUri": blob.url} | ({"mimeType": media_type} if media_type else {})}

    def _tool_result(self, path: str, message: Message) -> Body:
        known = self._calls.get(message.tool_call_id)
        name = known.name if known else message.tool_name
        if not name:
            raise not_expressible(f"{path}.tool_name", PROVIDER, "name the tool that gave the result, or send the call that it answers")
        body: Body = {"name": name, "response": {"error" if message.is_error else "output": self._output(message)}}
        if known and known.own_id:
            body["id"] = message.tool_call_id
        blobs = [
            self._tool_blob(f"{path}.parts[{at}]", part)
            for at, part in enumerate(message.parts)
            if not isinstance(part, TextPart | JsonPart)
        ]
        return {"functionResponse": body | ({"parts": blobs} if blobs else {})}

    def _output(self, message: Message) -> Any:
        plain = [part for part in message.parts if isinstance(part, TextPart | JsonPart)]
        if len(plain) == 1 and isinstance(plain[0], JsonPart):
            return raw(plain[0].data)
        return "\n".join(part.text if isinstance(part, TextPart) else part.data.decode() for part in plain)

    def _tool_blob(self, path: str, part: Part) -> Body:
        if not isinstance(part, ImagePart | DocumentPart):
            raise not_expressible(path, PROVIDER, "tool messages hold text, JSON, images and documents")
        if self.generation < THINKS_BY_LEVEL:
            remedy = "models before Gemini 3 take text from tools only; move it into a user message, or choose a newer model"
            raise not_expressible(path, PROVIDER, remedy)
        return self._blob(path, part.blob)

    def _assistant(self, path: str, message: Message) -> list[Body]:
        calls = [self._call(f"{path}.tool_calls[{at}]", at, call) for at, call in enumerate(message.tool_calls)]
        self._sign(path, calls)
        places = _places(message)
        bodies: list[Body] = []
        for at, part in enumerate(message.parts):
            while places and places[0] <= at:
                places.pop(0)
                bodies.append(calls.pop(0))
            self._assistant_part(f"{path}.parts[{at}]", part, bodies)
        return bodies + calls

    def _sign(self, path: str, calls: list[Body]) -> None:
        """Newer models refuse calls of which none is signed: those of other providers, which are in the history after a failover."""
        if not calls or self.generation < THINKS_BY_LEVEL or any("thoughtSignature" in call for call in calls):
            return
        calls[0]["thoughtSignature"] = UNCHECKED
        if not self._unsigned:
            self._unsigned = True
            self._warn(f"{path}.tool_calls[0]", f"calls without {PROVIDER}'s own signature are sent with its mark for unchecked ones")

    def _assistant_part(self, path: str, part: Part, bodies: list[Body]) -> None:
        match part:
            case TextPart(text) | RefusalPart(text):
                bodies.append({"text": text} | _signature(path, part.provider_state))
            case JsonPart(data):
                bodies.append({"text": data.decode()})
            case ImagePart(blob) | DocumentPart(blob):
                bodies.append(self._blob(path, blob) | _signature(path, part.provider_state))
            case ReasoningPart():
                self._reasoning(path, part, bodies)
            case OpaquePart(state):
                self._opaque(path, state, bodies)

    def _reasoning(self, path: str, part: ReasoningPart, bodies: list[Body]) -> None:
        state = part.state
        if state is None or state.provider != PROVIDER or state.kind not in (SIGNATURE, THOUGHT):
            self._warn(path, f"reasoning that {PROVIDER} did not produce is not sent to it")
            return
        body: Body = {"text": part.text, "thought": True}
        bodies.append(body | ({"thoughtSignature": state_text(state.data, path, PROVIDER)} if state.kind == SIGNATURE else {}))

    def _opaque(self, path: str, state: OpaqueState, bodies: list[Body]) -> None:
        if state.provider != PROVIDER:
            self._warn(path, f"a block of {state.provider} is not sent to {PROVIDER}")
        elif state.kind == PART:
            bodies.append(state_value(state.data, path, PROVIDER, Body))

    def _call(self, path: str, at: int, call: ToolCall) -> Body:
        own = {state.kind: state.data for state in call.provider_state if state.provider == PROVIDER}
        self._calls[call.id] = _Known(call.name, at, OWN_ID in own)
        function: Body = {"name": call.name, "args": object_arguments(path, call, self.warnings)}
        if OWN_ID in own:
            function["id"] = call.id
        return {"functionCall": function} | _signature(path, call.provider_state)

    def _warn(self, path: str, message: str) -> None:
        self.warnings.append(RequestWarning(path, message))


def _append(turns: list[Body], role: str, parts: list[Body]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["parts"] += parts
    elif parts:  # the API refuses a turn without parts
        turns.append({"role": role, "parts": parts})


def _places(message: Message) -> list[int]:
    """How many parts came before each call, where that was written down and still fits."""
    kept = states(message, PROVIDER, PLACES)
    places = state_value(kept[-1], "messages[].provider_state", PROVIDER, list[int]) if kept else []
    return places if len(places) == len(message.tool_calls) and places == sorted(places) else []


def _signature(path: str, provider_state: tuple[OpaqueState, ...]) -> Body:
    """The signature that goes back with the very part that it came with."""
    own = [state.data for state in provider_state if state.provider == PROVIDER and state.kind == SIGNATURE]
    return {"thoughtSignature": state_text(own[-1], f"{path}.provider_state", PROVIDER)} if own else {}


def _ending(url: str) -> str:
    return url.partition("?")[0].rpartition(".")[2].lower()
