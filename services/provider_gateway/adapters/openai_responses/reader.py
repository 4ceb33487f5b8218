"""Puts the items of one answer together: messages, reasoning, function calls, and whatever the provider's own tools left.

A stream tells of an item when it begins, as it grows and when it is done; what is done is the truth about it, what grew is what the
caller has seen. A whole answer is items that are done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from chassis.faults import ProviderResponseInvalid
from provider_gateway.adapters.openai_responses.shapes import ITEMS, KINDS, Event, Item, ResponseShape, UsageShape
from provider_gateway.adapters.openai_responses.state import (
    CONTENT,
    FUNCTION_CALL,
    MESSAGE,
    PARTS_BEFORE,
    REASONING,
    call_state,
    compact,
    text_notes,
)
from provider_gateway.adapters.wire import json_bytes, malformed, opaque
from provider_gateway.domain.answers import ChatEvent, ChatResult, FinishReason, Usage
from provider_gateway.domain.assembly import Assembly
from provider_gateway.domain.chat import OpaquePart, OpaqueState, TextPart

_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
MAX_ITEMS = 10_000
_SAID = ("output_text", "refusal")
_THOUGHTS = ("reasoning_text", "summary_text")
_BREAK = "\n\n"  # between two pieces of reasoning, which are paragraphs of their own


class _Slot:
    """One item in the making: its type, where each of its texts lies among the parts, which piece of reasoning grew last."""

    __slots__ = ("kind", "parts_before", "places", "thought")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.places: dict[int, int] = {}
        self.thought: tuple[str, int] | None = None
        self.parts_before = 0


class ResponseReader:
    """Reads the items of one answer, whole or in pieces."""

    def __init__(self, origin: str, provider: str) -> None:
        self.answer = Assembly(provider)
        self._origin = origin
        self._open: dict[int, _Slot] = {}
        self._calls: list[_Slot] = []
        self._growing: tuple[_Slot, int] | None = None
        self._items = 0
        self._told_items = False

    def begin(self, response: ResponseShape) -> None:
        """The response began."""
        self.answer.started(response.model or "", response.id or "")

    def open_item(self, index: int, raw: msgspec.Raw) -> None:
        """An item began."""
        slot = self._new(index, KINDS.decode(raw).type)
        self._break()
        item = ITEMS.decode(raw) if slot.kind == FUNCTION_CALL else {}
        if item.get("call_id") and item.get("name"):  # else what it is called is told when it is done
            self._open_call(slot, item)

    def text(self, event: Event) -> None:
        """A message's text grew."""
        if event.delta:
            self._enter(event)
            self.answer.text(event.delta)

    def refusal(self, event: Event) -> None:
        """A message's refusal grew."""
        if event.delta:
            self._enter(event)
            self.answer.refusal(event.delta)

    def content(self, event: Event) -> None:
        """A piece of a message is done, or one of reasoning: what did not grow as text is taken here, in its place among those that did."""
        kind = KINDS.decode(event.part).type
        content = {} if kind in _THOUGHTS else ITEMS.decode(event.part)
        if kind in _THOUGHTS or (kind in _SAID and (content.get("text") or content.get("refusal"))):
            return
        slot = self._slot(event.output_index, MESSAGE)
        if event.content_index not in slot.places:
            self._add_content(slot, event.content_index, content)

    def reasoning(self, event: Event, kind: str, piece: int) -> None:
        """A piece of reasoning grew."""
        if not event.delta:
            return
        slot = self._slot(event.output_index, REASONING)
        if self._growing != (slot, -1):
            self._break()
            self._growing = (slot, -1)
        self._think(slot, (kind, piece), event.delta)

    def arguments(self, event: Event) -> None:
        """A call's arguments grew."""
        slot = self._open.get(event.output_index)
        if slot is not None and self.answer.call_id(slot) is not None:
            self.answer.arguments(slot, event.delta)

    def close_item(self, index: int, raw: msgspec.Raw) -> None:
        """An item is done."""
        kind = KINDS.decode(raw).type
        slot = self._take(index, kind)
        self._told_items = True
        match kind:
            case "message":
                self._close_message(slot, raw)
            case "reasoning":
                self._close_reasoning(slot, raw)
            case "function_call":
                self._close_call(slot, ITEMS.decode(raw))
            case _:
                self._whole(kind, raw)
        self._break()

    def finish(self, response: ResponseShape, status: str) -> None:
        """Why the model stopped, what it consumed, and what the stream had not said of its items."""
        self.begin(response)
        told = self._told_items
        for index, raw in enumerate(response.output or ()):
            slot = self._open.get(index)
            if not told or (slot is not None and slot.kind == KINDS.decode(raw).type):
                self.close_item(index, raw)
        if response.usage is not None:
            self.answer.report(usage_of(response.usage))
        self.answer.finish, self.answer.finish_raw = _finish(response, status)

    def result(self) -> ChatResult:
        """The whole answer."""
        self._place_calls()
        return self.answer.result()

    def complete(self) -> list[ChatEvent]:
        """The last steps."""
        self._place_calls()
        return self.answer.complete()

    def _slot(self, index: int, kind: str) -> _Slot:
        """The item at index; a server that did not say that it began is taken at its word."""
        slot = self._open.get(index)
        return self._new(index, kind) if slot is None or slot.kind != kind else slot

    def _take(self, index: int, kind: str) -> _Slot:
        """The item that is done at index; one text at a time grows, so that a server that numbers otherwise does not tell it twice."""
        slot = self._open.get(index)
        if (slot is None or slot.kind != kind) and kind != FUNCTION_CALL:
            index = next((place for place, other in self._open.items() if other.kind == kind), index)
        slot = self._slot(index, kind)
        del self._open[index]
        return slot

    def _new(self, index: int, kind: str) -> _Slot:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise ProviderResponseInvalid(
                f"{self.answer.provider} sent an answer of more than {MAX_ITEMS} items; set sampling.max_output_tokens",
                metadata={"provider": self.answer.provider, "limit": str(MAX_ITEMS)},
            )
        slot = self._open[index] = _Slot(kind)
        return slot

    def _enter(self, event: Event) -> None:
        """Makes the text that grows next the one that the event is about."""
        slot = self._slot(event.output_index, MESSAGE)
        growing = self._growing
        if growing is None or growing[0] is not slot or growing[1] != event.content_index:
            self._break()
            self._growing = (slot, event.content_index)
            slot.places.setdefault(event.content_index, self.answer.parts)

    def _break(self) -> None:
        """Ends the text under way."""
        self.answer.flush()
        self._growing = None

    def _think(self, slot: _Slot, piece: tuple[str, int], text: str) -> None:
        self.answer.reasoning(_BREAK + text if slot.thought not in (None, piece) else text)
        slot.thought = piece

    def _close_message(self, slot: _Slot, raw: msgspec.Raw) -> None:
        item = ITEMS.decode(raw)
        contents = item.get("content")
        if not isinstance(contents, list) or not contents:
            self._whole(MESSAGE, raw)
            return
        for index, content in enumerate(contents):
            if not isinstance(content, dict):
                raise malformed(self.answer.provider, "a message", bytes(raw))
            self._close_content(slot, index, item, content)

    def _close_content(self, slot: _Slot, index: int, item: Item, content: Item) -> None:
        if index not in slot.places:
            self._add_content(slot, index, content)
        self._break()
        self.answer.note(slot.places[index], text_notes(self._origin, item, content))

    def _add_content(self, slot: _Slot, index: int, content: Item) -> None:
        self._break()
        slot.places[index] = self.answer.parts
        match content.get("type"):
            case "output_text":
                self._say("text", _text(content.get("text")))
            case "refusal":
                self._say("refusal", _text(content.get("refusal")))
            case _:
                self.answer.part(OpaquePart(opaque(self._origin, CONTENT, content)))

    def _say(self, kind: str, text: str) -> None:
        """A text that was not streamed; an empty one is kept too, for the item that it belongs to."""
        if not text:
            self.answer.part(TextPart(""))
        elif kind == "refusal":
            self.answer.refusal(text)
        else:
            self.answer.text(text)

    def _close_reasoning(self, slot: _Slot, raw: msgspec.Raw) -> None:
        if slot.thought is None:
            self._break()
            for kind, text in _thoughts(ITEMS.decode(raw)):
                self._think(slot, kind, text)
        self.answer.reasoning_state(OpaqueState(self._origin, REASONING, compact(raw)))

    def _open_call(self, slot: _Slot, item: Item) -> None:
        name, call_id = item.get("name"), item.get("call_id") or item.get("id")
        if not isinstance(name, str):
            raise malformed(self.answer.provider, "a function call", json_bytes(item))
        self.answer.open_call(slot, _text(call_id), name)
        slot.parts_before = self.answer.parts
        self._calls.append(slot)

    def _close_call(self, slot: _Slot, item: Item) -> None:
        if self.answer.call_id(slot) is None:
            self._break()
            self._open_call(slot, item)
        arguments = item.get("arguments")
        if arguments and not self.answer.has_arguments(slot):
            self.answer.arguments(slot, arguments if isinstance(arguments, str) else json_bytes(arguments).decode())
        state = call_state(self._origin, item)
        if state is not None:
            self.answer.call_state(slot, state)

    def _whole(self, kind: str, raw: msgspec.Raw) -> None:
        self.answer.part(OpaquePart(OpaqueState(self._origin, kind, compact(raw))))

    def _place_calls(self) -> None:
        """Says of the calls that other parts followed where they were."""
        self._break()
        for slot in self._calls:
            if slot.parts_before < self.answer.parts:
                self.answer.call_state(slot, opaque(self._origin, PARTS_BEFORE, {PARTS_BEFORE: slot.parts_before}))
        self._calls.clear()


def usage_of(usage: UsageShape) -> Usage:
    """Usage in the contract's words."""
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=(read.cached_tokens if read else None) or 0,
        cache_write_tokens=(read.cache_write_tokens if read else None) or 0,
        reasoning_tokens=(written.reasoning_tokens if written else None) or 0,
    )


def _finish(response: ResponseShape, status: str) -> tuple[FinishReason, str]:
    """The finish reason and the provider's word for it."""
    if status == "completed":
        return FinishReason.STOP, status
    if status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return _INCOMPLETE.get(reason or "", FinishReason.UNKNOWN), reason or status
    return (FinishReason.ERROR if status == "cancelled" else FinishReason.UNKNOWN), status


def _thoughts(item: Item) -> Iterable[tuple[tuple[str, int], str]]:
    """The readable pieces of a reasoning item."""
    for kind in ("summary", "content"):
        pieces = item.get(kind)
        for place, piece in enumerate(pieces if isinstance(pieces, list) else ()):
            if isinstance(piece, dict) and piece.get("text"):
                yield (kind, place), _text(piece["text"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
