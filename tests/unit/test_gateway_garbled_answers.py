"""Answers in which any one value is another one: they are read, or refused as what they are; the gateway itself never falls over them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from chassis.faults import Fault
from kit import gemini_wires, provider_wires, responses_wires
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.openai_responses import OpenAiResponsesWire
from provider_gateway.adapters.wire import RefusedInStream, Wire
from provider_gateway.api import convert

pytestmark = pytest.mark.feature("P7")
OTHERS = (None, True, -1, 10**20, 1.5, "", "x", [], [1], [None], [[]], {}, {"a": 1})
STREAMS: list[tuple[Wire, str, list[Any]]] = [
    (OpenAiWire("p"), "text", provider_wires.OPENAI_TEXT),
    (OpenAiWire("p"), "calls", provider_wires.OPENAI_CALLS),
    (AnthropicWire("p"), "all", provider_wires.ANTHROPIC_STREAM),
    (GeminiWire("p"), "all", gemini_wires.GEMINI_STREAM),
    (OpenAiResponsesWire("p"), "all", responses_wires.RESPONSES_STREAM),
]
WHOLES: list[tuple[Wire, dict[str, Any]]] = [
    (OpenAiWire("p"), provider_wires.OPENAI_WHOLE),
    (AnthropicWire("p"), provider_wires.ANTHROPIC_WHOLE),
    (OpenAiResponsesWire("p"), responses_wires.RESPONSES_WHOLE),
]


def garbled(document: Any) -> Iterator[Any]:
    """The document with one value replaced, for each value and each other one."""
    for path in list(_paths(document)):
        for other in OTHERS:
            copied = copy.deepcopy(document)
            place = copied
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = other
            yield copied


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for step, value in steps:
        yield (*path, step)
        yield from _paths(value, (*path, step))


@pytest.mark.parametrize(
    ("wire", "what", "events"), STREAMS, ids=lambda value: getattr(value, "adapter", value if isinstance(value, str) else "")
)
def test_a_garbled_stream_is_read_or_refused(wire: Wire, what: str, events: list[Any]) -> None:
    for document in garbled(events):
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in document)
        parser, decoder = wire.parser(1 << 20), wire.decoder()
        try:
            for event in [*decoder.feed(parser.feed(body)), *decoder.feed(parser.end()), *decoder.end()]:
                convert.event_to(event)
        except (Fault, RefusedInStream):
            continue


@pytest.mark.parametrize(("wire", "answer"), WHOLES, ids=lambda value: getattr(value, "adapter", ""))
def test_a_garbled_answer_is_read_or_refused(wire: Wire, answer: dict[str, Any]) -> None:
    for document in garbled(answer):
        try:
            convert.result_to(wire.decode(json.dumps(document).encode()))
        except (Fault, RefusedInStream):
            continue
