"""Messages of the contract as plain Python values for JSON output: field names as in the protos, numbers as numbers, enums as words."""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None


def plain(message: Message) -> Plain:
    """The fields that are set, recursively; times as ISO 8601, JSON-shaped bytes as what they hold, other bytes as base64."""
    if isinstance(message, Timestamp):
        return message.ToJsonString()
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Plain:
    if _is_map(field):
        assert field.message_type is not None
        return {str(key): _scalar(field.message_type.fields_by_name["value"], item) for key, item in sorted(value.items())}
    if field.is_repeated:
        return [_scalar(field, item) for item in value]
    return _scalar(field, value)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _scalar(field: FieldDescriptor, value: Any) -> Plain:
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    return _bytes(value) if isinstance(value, bytes) else value


def enum_word(enum: Any, number: int) -> str:
    """An enum's value in lower case without the enum's own name: completed for RUN_STATE_COMPLETED; its number when it is unknown."""
    known = enum.values_by_number.get(number)
    if known is None:
        return str(number)
    prefix = _common_prefix([value.name for value in enum.values])
    return str(known.name[len(prefix) :]).lower()


def _common_prefix(names: list[str]) -> str:
    words = names[0].split("_")[:-1]
    return "_".join([*words, ""]) if words else ""


def _bytes(value: bytes) -> Plain:
    try:
        document: Plain = json.loads(value)
    except ValueError:
        return base64.b64encode(value).decode()
    return document


def json_line(value: Plain) -> str:
    """One JSON document on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
