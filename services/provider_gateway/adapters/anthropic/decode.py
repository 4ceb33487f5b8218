"""Reads the answers of Anthropic Messages, whole or streamed: both go through the same assembly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from chassis.faults import StreamIncomplete
from provider_gateway.adapters.anthropic.citations import citations
from provider_gateway.adapters.anthropic.pauses import ORDER
from provider_gateway.adapters.anthropic.shapes import EVENTS, MESSAGES, RAW_DELTAS, Event, MessageShape, UsageShape
from provider_gateway.adapters.http.refusals import refusal_in
from provider_gateway.adapters.http.sse import SseEvent
from provider_gateway.adapters.wire import RefusedInStream, malformed, opaque
from provider_gateway.domain.answers import ChatEvent, ChatResult, FinishReason, Usage
from provider_gateway.domain.assembly import Assembly
from provider_gateway.domain.chat import Notes, OpaquePart, OpaqueState, ReasoningPart, TextPart

ADAPTER = "anthropic"
_FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "refusal": FinishReason.REFUSAL,
}
_DIRECT = {"type": "direct"}


class AnthropicReader:
    """Reads the blocks of one answer, whole or in pieces."""

    def __init__(self, provider: str) -> None:
        self.answer = Assembly(provider)
        self._kinds: dict[int, str] = {}
        self._citations: dict[int, list[Any]] = {}
        self._parts_before_calls: list[int] = []
        self._opaque: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, Any] = {}
        self._pieces: dict[int, list[str]] = {}
        self._signatures: dict[int, str] = {}
        self._usage = UsageShape()
        self._begun = False

    def begin(self, message: MessageShape) -> None:
        """The message began; a streamed one has no content yet. A second one means that somebody in between started over."""
        if self._begun:
            raise StreamIncomplete(
                f"{self.answer.provider} began another message within the stream; what came is a part of the first",
                metadata={"provider": self.answer.provider},
            )
        self._begun = True
        self.answer.started(message.model or "", message.id or "")
        self.report(message.usage)
        self._keep("container", message.container)

    def stop(self, reason: str | None, details: Any = None, container: Any = None) -> None:
        """Why the model stopped."""
        if reason:
            self.answer.finish_raw = reason
            self.answer.finish = _FINISH.get(reason, FinishReason.UNKNOWN)
        self._keep("stop_details", details)
        self._keep("container", container)

    def report(self, usage: UsageShape | None) -> None:
        """Usage so far; a later report may leave out what did not change."""
        if usage is None:
            return
        for name in UsageShape.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(self._usage, name, value)
        self.answer.report(usage_of(self._usage))

    def open_block(self, index: int, block: dict[str, Any]) -> None:
        """A block began, with whatever it has from the start."""
        kind = self._kinds[index] = str(block.get("type", ""))
        self.answer.flush()
        match kind:
            case "text":
                self._text(index, block)
            case "thinking":
                self._think(index, block)
            case "redacted_thinking":
                self.answer.part(ReasoningPart("", OpaqueState(ADAPTER, kind, str(block.get("data", "")).encode())))
            case "tool_use":
                self._open_call(index, block)
            case _:
                self._opaque[index] = block

    def grow_block(self, index: int, event: Event, data: bytes) -> None:
        """A block grew."""
        delta = event.delta
        assert delta is not None
        match delta.type:
            case "text_delta":
                self.answer.text(delta.text)
            case "thinking_delta":
                self.answer.reasoning(delta.thinking)
            case "input_json_delta" if self._kinds.get(index) == "tool_use":
                if delta.partial_json:
                    self.answer.arguments(index, delta.partial_json)
            case "input_json_delta":
                self._pieces.setdefault(index, []).append(delta.partial_json)
            case "signature_delta":
                self._signatures[index] = self._signatures.get(index, "") + delta.signature
            case "citations_delta":
                self._citations.setdefault(index, []).append(delta.citation)
            case _:
                self._grow_opaque(index, RAW_DELTAS.decode(data).delta)

    def close_block(self, index: int) -> None:
        """A block is complete."""
        match self._kinds.pop(index, ""):
            case "text":
                self.answer.flush()
                if index in self._citations:
                    self._cite(self._citations.pop(index))
            case "thinking":
                self.answer.reasoning_state(OpaqueState(ADAPTER, "signature", self._signatures.pop(index, "").encode()))
                self.answer.flush()
            case "tool_use":
                self._close_call(index)
            case _ if index in self._opaque:
                self._close_opaque(index)

    def close_all(self) -> None:
        """Closes the blocks that the provider did not close itself, and keeps where calls stood that something came after."""
        for index in sorted(self._kinds):
            self.close_block(index)
        if any(place < self.answer.parts for place in self._parts_before_calls):
            self._keep(ORDER, self._parts_before_calls)

    def _text(self, index: int, block: dict[str, Any]) -> None:
        if block.get("text"):
            self.answer.text(str(block["text"]))
        if isinstance(cited := block.get("citations"), list) and cited:
            self._citations[index] = list(cited)

    def _cite(self, given: list[Any]) -> None:
        """What the text rests on goes with it: in the contract's words, and in the provider's, which it wants back."""
        if not self.answer.parts or not isinstance(self.answer.part_at(self.answer.parts - 1), TextPart):
            self.answer.part(TextPart(""))
        state = opaque(ADAPTER, "citations", given)
        self.answer.note(self.answer.parts - 1, Notes(citations=citations(given), provider_state=(state,)))

    def _think(self, index: int, block: dict[str, Any]) -> None:
        self._signatures[index] = str(block.get("signature") or "")
        if block.get("thinking"):
            self.answer.reasoning(str(block["thinking"]))

    def _open_call(self, index: int, block: dict[str, Any]) -> None:
        self._parts_before_calls.append(self.answer.parts)
        self.answer.open_call(index, str(block.get("id") or ""), str(block.get("name") or ""))
        self._inputs[index] = block.get("input")
        caller = block.get("caller")
        if caller not in (None, _DIRECT):
            self.answer.call_state(index, opaque(ADAPTER, "caller", caller))

    def _close_call(self, index: int) -> None:
        given = self._inputs.pop(index, None)
        if given and not self.answer.has_arguments(index):
            self.answer.arguments(index, msgspec.json.encode(given).decode())

    def _grow_opaque(self, index: int, delta: dict[str, Any]) -> None:
        block = self._opaque.setdefault(index, {"type": self._kinds.get(index, "")})
        for key, value in delta.items():
            if key != "type":
                grows = isinstance(value, str) and isinstance(block.get(key), str)
                block[key] = block[key] + value if grows else value

    def _close_opaque(self, index: int) -> None:
        block = self._opaque.pop(index)
        pieces = "".join(self._pieces.pop(index, ()))
        if pieces:
            block["input"] = _json(pieces)
        self.answer.part(OpaquePart(opaque(ADAPTER, str(block.get("type", "")), block)))

    def _keep(self, kind: str, value: Any) -> None:
        if value is not None:
            kept = [state for state in self.answer.provider_state if state.kind != kind]
            self.answer.provider_state[:] = [*kept, opaque(ADAPTER, kind, value)]


class AnthropicStream:
    """Decodes one streamed answer. It is whole when message_stop came."""

    def __init__(self, provider: str) -> None:
        self._reader = AnthropicReader(provider)
        self._provider = provider
        self._stopped = False

    @property
    def done(self) -> bool:
        """Whether the end marker came."""
        return self._stopped

    def feed(self, events: Iterable[SseEvent]) -> list[ChatEvent]:
        """What these events mean."""
        for event in events:
            if not self._stopped and event.data:
                self._take(_event(self._provider, event.data), event.data)
        return self.drain()

    def drain(self) -> list[ChatEvent]:
        """What was understood so far and not given yet."""
        return self._reader.answer.drain()

    def end(self) -> list[ChatEvent]:
        """The last steps, or StreamIncomplete."""
        if not self._stopped:
            raise StreamIncomplete(
                f"{self._provider} ended the stream before message_stop; what came is a part of the answer",
                metadata={"provider": self._provider},
            )
        self._reader.close_all()
        return self._reader.answer.complete()

    def _take(self, event: Event, data: bytes) -> None:
        reader = self._reader
        match event.type:
            case "content_block_delta" if event.delta is not None:
                reader.grow_block(event.index, event, data)
            case "content_block_start" if event.content_block is not None:
                reader.open_block(event.index, event.content_block)
            case "content_block_stop":
                reader.close_block(event.index)
            case "message_start" if event.message is not None:
                reader.begin(event.message)
            case "message_delta" if event.delta is not None:
                reader.report(event.usage)
                reader.stop(event.delta.stop_reason, event.delta.stop_details, event.delta.container)
            case "message_stop":
                self._stopped = True
            case "error":
                raise RefusedInStream(refusal_in({"error": event.error or "no details"}))
            case "content_block_delta" | "content_block_start" | "message_start" | "message_delta":
                raise malformed(self._provider, "an event", data)
        # ping and event types that do not exist yet say nothing about the answer: the API's own versioning policy


def message_result(provider: str, body: bytes) -> ChatResult:
    """A whole message from its bytes."""
    try:
        message = MESSAGES.decode(body)
        blocks = [msgspec.json.decode(block, type=dict[str, Any]) for block in message.content or ()]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", body) from None
    if message.error or message.type == "error":
        raise RefusedInStream(refusal_in({"error": message.error or "no details"}))
    if message.content is None:
        raise malformed(provider, "a message without content", body)
    reader = AnthropicReader(provider)
    reader.begin(message)
    for index, block in enumerate(blocks):
        reader.open_block(index, block)
        reader.close_block(index)
    reader.close_all()
    reader.stop(message.stop_reason, message.stop_details)
    return reader.answer.result()


def usage_of(usage: UsageShape) -> Usage:
    """Usage in the contract's words, where the input includes what came from and went to the cache."""
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details, creation = usage.output_tokens_details, usage.cache_creation
    return Usage(
        input_tokens=(usage.input_tokens or 0) + read + written,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=(details.thinking_tokens if details else None) or 0,
        cache_hour_tokens=(creation.ephemeral_1h_input_tokens if creation else None) or 0,
    )


def _event(provider: str, data: bytes) -> Event:
    try:
        return EVENTS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "an event", data) from None


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
