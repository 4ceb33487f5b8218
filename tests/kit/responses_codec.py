"""Responses as the gateway writes and reads them, for tests that say what they mean by it."""

from __future__ import annotations

import json
from typing import Any

from behest.chat.v1 import chat_pb2
from kit.provider_decoding import check_order, decode_stream, result_of
from kit.responses_wires import response, responses_body, responses_sse
from provider_gateway.adapters.openai_responses import OpenAiResponsesWire
from provider_gateway.api.convert import message_from, message_to
from provider_gateway.domain.answers import ChatResult
from provider_gateway.domain.chat import ChatRequest, Message
from provider_gateway.operations.ports import ModelCall

WIRE = OpenAiResponsesWire("acme")
ORIGIN = "openai-responses/acme"


def body_of(request: ChatRequest, stream: bool = False, wire: OpenAiResponsesWire = WIRE) -> dict[str, Any]:
    """The request as it is written."""
    return json.loads(wire.encode(ModelCall(request, "m-1"), stream=stream).body)


def items_of(*messages: Message, wire: OpenAiResponsesWire = WIRE) -> list[dict[str, Any]]:
    """The input items that these messages are written as."""
    return body_of(ChatRequest(messages), wire=wire)["input"]


def warned(*messages: Message, wire: OpenAiResponsesWire = WIRE) -> list[str]:
    """The fields that are warned of."""
    return [warning.field for warning in wire.encode(ModelCall(ChatRequest(messages), "m-1"), stream=False).warnings]


def whole(*items: dict[str, Any], **fields: Any) -> ChatResult:
    """The answer of these items, given at once."""
    return WIRE.decode(responses_body(response(**{"output": list(items), **fields})))


def streamed(*events: dict[str, Any]) -> ChatResult:
    """The answer of these events, which obey the order of the contract."""
    decoded = decode_stream(WIRE, [responses_sse(list(events))])
    check_order(decoded)
    return result_of(decoded)


def by_way_of_the_contract(given: Message) -> Message:
    """A message as it comes back from a caller."""
    return message_from(chat_pb2.Message.FromString(message_to(given).SerializeToString()))
