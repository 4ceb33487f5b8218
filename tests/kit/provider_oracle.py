"""What OpenAI's own client library says of requests: its types as pydantic validators, and fields that they do not have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

_ONE, _STREAMED = (
    TypeAdapter(kind)
    for kind in (completion_create_params.CompletionCreateParamsNonStreaming, completion_create_params.CompletionCreateParamsStreaming)
)
_FIELDS = set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}


def check_chat(body: dict[str, Any], beyond: Iterable[str] = ()) -> None:
    """Fails unless the library would send this body; `beyond` are fields that a follower has and OpenAI has not."""
    adapter = _STREAMED if body.get("stream") else _ONE
    adapter.validate_python(body)
    assert set(body) - _FIELDS <= set(beyond)
