"""The shapes of Ollama's protocol that the gateway reads."""

from __future__ import annotations

from typing import Any

import msgspec


class Function(msgspec.Struct, gc=False):
    """A called function; its arguments come whole."""

    name: str = ""
    arguments: Any = None


class Call(msgspec.Struct, gc=False):
    """A tool call. Only newer servers give it an id."""

    function: Function
    id: str | None = None


class Said(msgspec.Struct, gc=False):
    """A message, or more of one."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None


class Answer(msgspec.Struct, gc=False):
    """A whole answer, or one line of a streamed one. The last line has `done` and what was consumed."""

    model: str | None = None
    created_at: str | None = None
    message: Said | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


class Vectors(msgspec.Struct, gc=False):
    """Vectors in the inputs' order."""

    embeddings: list[list[float]] | None = None
    model: str | None = None
    prompt_eval_count: int | None = None
    error: Any = None


ANSWERS = msgspec.json.Decoder(Answer)
VECTORS = msgspec.json.Decoder(Vectors)
