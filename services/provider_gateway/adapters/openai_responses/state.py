"""What of an item is kept beside its content, so that the item can be written again as it was. Pure, and the same in both directions.

A message's text goes into a part, and the rest of the item (id, status, phase) stays with it as state; a function call likewise.
Reasoning and the items of the provider's own tools are kept whole. A message of the contract holds its calls apart from its parts, so
a call that came before other parts remembers how many there were.
"""

from __future__ import annotations

from typing import Any

import msgspec

from provider_gateway.adapters.openai_responses.shapes import ITEMS, Item
from provider_gateway.adapters.wire import opaque
from provider_gateway.domain.chat import Citation, Notes, OpaqueState

MESSAGE = "message"
ANNOTATIONS = "annotations"
CONTENT = "content"
REASONING = "reasoning"
FUNCTION_CALL = "function_call"
PARTS_BEFORE = "parts_before"

_CALL_CONTENT = ("type", "call_id", "name", "arguments")


def compact(raw: msgspec.Raw) -> bytes:
    """An item's JSON without the white space around it; every string and number stays as it was written."""
    return msgspec.json.format(raw, indent=-1)


def message_state(origin: str, item: Item) -> OpaqueState:
    """A message without its content."""
    return opaque(origin, MESSAGE, {key: value for key, value in item.items() if key != "content"})


def call_state(origin: str, item: Item) -> OpaqueState | None:
    """A function call without what the contract has fields for; None when nothing is left."""
    rest = {key: value for key, value in item.items() if key not in _CALL_CONTENT}
    return opaque(origin, FUNCTION_CALL, rest) if rest else None


def text_notes(origin: str, item: Item, content: Item) -> Notes:
    """The notes of one text of a message."""
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        return Notes(provider_state=(message_state(origin, item),))
    citations = tuple(citation for citation in map(_citation, annotations) if citation is not None)
    kept = opaque(origin, ANNOTATIONS, {"annotations": annotations})
    return Notes(citations=citations, provider_state=(message_state(origin, item), kept))


def own_state(states: tuple[OpaqueState, ...], origin: str, kind: str) -> Item | None:
    """The state of that kind that belongs to origin; None when there is none, or none that could have come from there."""
    data = next((state.data for state in states if state.provider == origin and state.kind == kind), None)
    return None if data is None else loaded(data)


def loaded(data: bytes) -> Item | None:
    """A JSON object; None for what is not one, for state comes back by way of callers."""
    try:
        return ITEMS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _citation(annotation: Any) -> Citation | None:
    if not isinstance(annotation, dict):
        return None
    title = annotation.get("title") or annotation.get("filename")
    if annotation.get("type") == "file_path" or not (annotation.get("url") or title):
        return None
    return Citation(
        url=str(annotation.get("url") or ""),
        title=str(title or ""),
        start=_place(annotation.get("start_index")),
        end=_place(annotation.get("end_index")),
    )


def _place(value: Any) -> int | None:
    """A place in a text; None for what cannot be one."""
    return value if type(value) is int and 0 <= value < 2**31 else None
