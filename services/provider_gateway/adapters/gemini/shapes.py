"""The shapes of generateContent that the gateway reads: the hot ones typed, the rest as they are, because they are kept whole."""

from __future__ import annotations

from typing import Any

import msgspec


class PartialArg(msgspec.Struct, rename="camel", gc=False):
    """A piece of a call's arguments, at a JSON path."""

    json_path: str
    string_value: str | None = None
    number_value: float | int | None = None
    bool_value: bool | None = None
    null_value: Any = msgspec.UNSET
    will_continue: bool = False


class Call(msgspec.Struct, rename="camel", gc=False):
    """A function call, or a piece of one: a piece that continues the last one has no name. Without arguments `args` is empty."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw()
    partial_args: list[PartialArg] | None = None
    will_continue: bool = False


class Data(msgspec.Struct, rename="camel", gc=False):
    """Bytes, base64."""

    mime_type: str | None = None
    data: bytes = b""


class Part(msgspec.Struct, rename="camel", gc=False):
    """A part of a kind that the gateway has words for; of any other kind all of it is None."""

    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: Call | None = None
    inline_data: Data | None = None


class Content(msgspec.Struct, gc=False):
    """What one side said."""

    parts: list[Part] | None = None


class Candidate(msgspec.Struct, rename="camel", gc=False):
    """One answer, or a piece of one. The finish reason is a number where a server writes its enums so."""

    content: Content | None = None
    finish_reason: str | int | None = None
    finish_message: str | None = None
    index: int = 0
    grounding_metadata: Any = None
    citation_metadata: Any = None
    url_context_metadata: Any = None
    safety_ratings: Any = None
    continuation_token: Any = None


class UsageShape(msgspec.Struct, rename="camel", gc=False):
    """Tokens. The prompt includes what came from the cache; thoughts and what server-side tools fed back are counted beside."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


class Answer(msgspec.Struct, rename="camel", gc=False):
    """A whole response, or one event of a streamed one."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Any = None
    usage_metadata: UsageShape | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


class RawContent(msgspec.Struct, frozen=True, gc=False):
    """The same parts, untouched."""

    parts: list[msgspec.Raw] = []


class RawCandidate(msgspec.Struct, gc=False):
    """A candidate of which only the parts matter."""

    content: RawContent = RawContent()


class RawAnswer(msgspec.Struct, gc=False):
    """A response of which only the parts matter."""

    candidates: list[RawCandidate]


class Embedding(msgspec.Struct, gc=False):
    """One vector."""

    values: tuple[float, ...]


class Embeddings(msgspec.Struct, rename="camel", gc=False):
    """The vectors of one batch."""

    embeddings: list[Embedding]
    usage_metadata: UsageShape | None = None


ANSWERS = msgspec.json.Decoder(Answer)
ANSWER_LISTS = msgspec.json.Decoder(list[Answer])
RAW_ANSWERS = msgspec.json.Decoder(RawAnswer)
RAW_ANSWER_LISTS = msgspec.json.Decoder(list[RawAnswer])
EMBEDDINGS = msgspec.json.Decoder(Embeddings)
