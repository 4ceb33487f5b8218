"""What the vendor's own types say of a request: an oracle that shares nothing with the gateway."""

from __future__ import annotations

import functools
from typing import Any

from anthropic import types
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from pydantic import BaseModel, TypeAdapter, ValidationError


def complaint(body: dict[str, Any]) -> str:
    """What is wrong with the body of a request, empty when nothing is. A field that the types do not have is wrong too."""
    try:
        taken = _read(_adapter(bool(body.get("stream"))).validate_python(body))
    except ValidationError as error:
        return str(error)
    return "" if taken == body else f"there is more in {body} than in {taken}"


@functools.cache
def _adapter(stream: bool) -> TypeAdapter[Any]:
    return TypeAdapter(MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming)


def _read(value: Any) -> Any:
    """The value with its lists read, which is when what is in them is looked at."""
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    if isinstance(value, BaseModel):  # a block of an answer, which may be given back: as the block of a request that it becomes
        written = getattr(types, f"{type(value).__name__}Param")
        return _read(TypeAdapter(written).validate_python(value.model_dump(exclude_unset=True)))
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return value
    return [_read(item) for item in value]
