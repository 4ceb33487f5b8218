"""Reads the answers of OpenAI Chat Completions, whole or streamed: both go through the same assembly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from chassis.faults import StreamIncomplete
from provider_gateway.adapters.http.refusals import Refusal, refusal_in, refusal_of
from provider_gateway.adapters.http.sse import SseEvent
from provider_gateway.adapters.openai.shapes import COMPLETIONS, Call, Choice, Completion, Content, UsageShape
from provider_gateway.adapters.openai.think_tags import Pieces, ThinkTags
from provider_gateway.adapters.wire import RefusedInStream, blob_of_url, malformed, opaque
from provider_gateway.domain.answers import ChatEvent, ChatResult, FinishReason, RequestWarning, Usage
from provider_gateway.domain.assembly import Assembly
from provider_gateway.domain.chat import ImagePart, OpaquePart, OpaqueState

DONE = b"[DONE]"
_FINISH = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "error": FinishReason.ERROR,
    # the words of followers
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "sensitive": FinishReason.CONTENT_FILTER,
    "abort": FinishReason.ERROR,
}
_OUT_OF_ROOM = "insufficient_system_resource"  # DeepSeek's word for an answer that its servers broke off


class OpenAiReader:
    """Reads the chunks of one answer; a whole completion is one large chunk."""

    def __init__(self, origin: str, provider: str, think_tags: bool = False) -> None:
        self.answer = Assembly(provider)
        self._origin = origin
        self._tags = ThinkTags() if think_tags else None
        self._details: list[Any] = []
        self._notes: dict[str, list[Any]] = {}
        self._signature = ""
        self._count = 0
        self._created = 0
        self._last_key: object = None
        self._aliases: dict[object, object] = {}

    def take(self, chunk: Completion, raw: bytes) -> None:
        """One chunk; raw is shown when it makes no sense."""
        if chunk.error:
            raise RefusedInStream(refusal_in({"error": chunk.error}))
        if chunk.choices is None and chunk.usage is None:
            self._check(chunk, raw)
        self._created = chunk.created or self._created
        if chunk.id or chunk.model or chunk.choices:
            self.answer.started(chunk.model or "", str(chunk.id or ""))
        for choice in chunk.choices or ():
            self._choice(choice)
        self._report(chunk)
        if chunk.citations or chunk.search_results or chunk.prompt_filter_results:
            self._note("citations", chunk.citations)
            self._note("search_results", chunk.search_results)
            self._note("prompt_filter_results", chunk.prompt_filter_results)

    def _check(self, chunk: Completion, raw: bytes) -> None:
        """Raises for a chunk without choices that is an error of its server's own shape, or no chunk at all."""
        refusal = bare_refusal(raw)
        if refusal is not None:
            raise RefusedInStream(refusal)
        if chunk.id is None:
            raise malformed(self.answer.provider, "a chunk", raw)

    def result(self) -> ChatResult:
        """The whole answer so far."""
        self._settle()
        return self.answer.result()

    def complete(self) -> list[ChatEvent]:
        """The last steps."""
        self._settle()
        return self.answer.complete()

    def _settle(self) -> None:
        if self._tags is not None:
            self._tell_apart(self._tags.end())
        if self._details:
            self.answer.reasoning_state(opaque(self._origin, "reasoning_details", self._details))
        self.answer.provider_state += [opaque(self._origin, kind, value) for kind, value in self._notes.items()]

    def _choice(self, choice: Choice) -> None:
        if choice.index:
            self._extra_choice(choice.index)
            return
        if choice.error:
            raise RefusedInStream(refusal_in({"error": choice.error}))
        content = choice.delta or choice.message
        if content is not None:
            self._content(content)
        if choice.content_filter_results:
            self._notes["content_filter_results"] = [choice.content_filter_results]
        if choice.finish_reason == _OUT_OF_ROOM:
            raise RefusedInStream(Refusal(503, code=_OUT_OF_ROOM, message="its servers broke the answer off"))
        if choice.finish_reason:
            self.answer.finish_raw = choice.finish_reason
            self.answer.finish = _FINISH.get(choice.finish_reason, FinishReason.UNKNOWN)

    def _extra_choice(self, index: int) -> None:
        warning = RequestWarning("", f"{self.answer.provider} gave a choice {index} that was not asked for; it is left out")
        if warning not in self.answer.warnings:
            self.answer.warnings.append(warning)

    def _content(self, content: Content) -> None:
        if content.reasoning_content:
            self._reasoning("reasoning_content", content.reasoning_content)
        elif content.reasoning and isinstance(content.reasoning, str):
            self._reasoning("reasoning", content.reasoning)
        if content.content:
            self._text(content.content)
        if content.refusal:
            self.answer.refusal(content.refusal)
        for call in content.tool_calls or ():
            self._call(call)
        if isinstance(content.reasoning_details, list):
            merge_details(self._details, content.reasoning_details)
        if content.images or content.annotations or content.audio:
            self._rarities(content)

    def _reasoning(self, kind: str, piece: str) -> None:
        self.answer.reasoning(piece)
        self.answer.reasoning_state(OpaqueState(self._origin, kind, b""))

    def _text(self, content: str | list[Any]) -> None:
        if isinstance(content, str):
            if self._tags is None:
                self.answer.text(content)
            else:
                self._tell_apart(self._tags.feed(content))
            return
        for item in content:
            kind = item.get("type") if isinstance(item, dict) else None
            if kind == "text":
                self.answer.text(str(item.get("text", "")))
            elif kind == "thinking":
                self._think(item)
            else:
                self.answer.part(OpaquePart(opaque(self._origin, "content", item)))

    def _tell_apart(self, pieces: Pieces) -> None:
        for is_reasoning, piece in pieces:
            if is_reasoning:
                self._reasoning("think_tags", piece)
            else:
                self.answer.text(piece)

    def _think(self, item: dict[str, Any]) -> None:
        """Mistral's thinking; a signature comes with its last piece, and what it refers to is no text."""
        self.answer.reasoning(_thinking(item.get("thinking")))
        self._signature = str(item.get("signature") or "") or self._signature
        self.answer.reasoning_state(OpaqueState(self._origin, "thinking", self._signature.encode()))

    def _rarities(self, content: Content) -> None:
        for image in _listed(content.images):
            url = image.get("image_url", {}).get("url", "") if isinstance(image, dict) else ""
            self.answer.part(ImagePart(blob_of_url(url)) if url else OpaquePart(opaque(self._origin, "content", image)))
        if content.annotations:
            self._notes.setdefault("annotations", []).extend(_listed(content.annotations))
        if content.audio:
            self._notes.setdefault("audio", []).append(content.audio)

    def _call(self, piece: Call) -> None:
        key = self._key(piece)
        function = piece.function
        name = (function.name if function else None) or ""
        if self.answer.call_id(key) is None:
            self.answer.open_call(key, piece.id or self._made_id(), name)
            self._count += 1
        elif name:
            self.answer.rename_call(key, name)
        self._last_key = key
        if function is not None and function.arguments:
            self.answer.arguments(key, _arguments(function.arguments))
        if piece.extra_content is not None:
            self.answer.call_state(key, opaque(self._origin, "extra_content", piece.extra_content))

    def _made_id(self) -> str:
        """An id for a call that came without one: like no other of the conversation, and short."""
        answer = self.answer.response_id or str(self._created or "")
        return f"call_{hashlib.sha256(answer.encode()).hexdigest()[:16]}_{self._count}" if answer else ""

    def _key(self, piece: Call) -> object:
        """Which call a piece belongs to: by index, but some servers reuse it or have none.

        Then another id with a name begins a call, and without ids another tool's name, or a whole call after a complete one.
        """
        named = piece.function is not None and bool(piece.function.name)
        if piece.index is None:
            last = self._last_key
            begins = last is None or (named and self._begins_again(last, piece))
            return piece.id or (("unnamed", self._count) if begins else last)
        key = self._aliases.get(piece.index, piece.index)
        known = self.answer.call_id(key)
        if known is not None and named and (piece.id != known if piece.id else self._begins_again(key, piece)):
            self._aliases[piece.index] = key = (piece.index, piece.id or self._count)
        return key

    def _begins_again(self, key: object, piece: Call) -> bool:
        """Whether a piece without id but with a name is another call: one after it is complete, or of another tool."""
        assert piece.function is not None
        other = piece.function.name != self.answer.call_name(key)
        if not self.answer.has_arguments(key):  # the name itself may come in pieces, but only where an index holds them together
            return other and piece.index is None
        fresh = piece.function.arguments
        whole = isinstance(fresh, dict) or (fresh or "").lstrip().startswith("{")
        return other or (whole and _is_complete(self.answer.arguments_so_far(key)))

    def _report(self, chunk: Completion) -> None:
        usage = chunk.usage or (chunk.x_groq.usage if chunk.x_groq else None)
        if usage is not None:
            self.answer.report(usage_of(usage))

    def _note(self, kind: str, value: Any) -> None:
        if value:
            self._notes[kind] = _listed(value)


class OpenAiStream:
    """Decodes one streamed answer.

    A stream is whole when a finish reason came and then `[DONE]` or a clean end: some servers leave `[DONE]` out. Those that leave the
    finish reason out of a whole answer are few, and their dialect says that `[DONE]` suffices.
    """

    def __init__(self, origin: str, provider: str, done_suffices: bool = False, think_tags: bool = False) -> None:
        self._reader = OpenAiReader(origin, provider, think_tags)
        self._provider = provider
        self._done, self._done_suffices = False, done_suffices

    @property
    def done(self) -> bool:
        """Whether the end marker came."""
        return self._done

    def feed(self, events: Iterable[SseEvent]) -> list[ChatEvent]:
        """What these events mean."""
        for event in events:
            if event.data[:6] == DONE:
                self._done = True
            elif event.event == b"error" and not self._done:
                raise RefusedInStream(refusal_of(0, event.data))
            elif not self._done and event.data:
                self._reader.take(completion(self._provider, event.data), event.data)
        return self.drain()

    def drain(self) -> list[ChatEvent]:
        """What was understood so far and not given yet."""
        return self._reader.answer.drain()

    def end(self) -> list[ChatEvent]:
        """The last steps, or StreamIncomplete."""
        if self._reader.answer.finish is None and not (self._done and self._done_suffices):
            raise StreamIncomplete(
                f"{self._provider} ended the stream before a finish reason; what came is a part of the answer",
                metadata={"provider": self._provider},
            )
        return self._reader.complete()


def completion(provider: str, data: bytes) -> Completion:
    """A completion or chunk from its bytes."""
    try:
        return COMPLETIONS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", data) from None


def usage_of(usage: UsageShape) -> Usage:
    """Usage in the contract's words."""
    prompt, completion_details = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = (prompt.cached_tokens if prompt else None) or usage.cached_tokens or usage.prompt_cache_hit_tokens
    reasoning = (completion_details.reasoning_tokens if completion_details else None) or usage.reasoning_tokens or 0
    read, written, cost = usage.prompt_tokens or 0, usage.completion_tokens or 0, cost_of(usage)
    beside = usage.total_tokens is not None and read + written + reasoning == usage.total_tokens and reasoning > 0
    return Usage(
        input_tokens=read,
        output_tokens=written + reasoning if beside else written,  # xAI counts reasoning beside the completion, OpenAI within
        cache_read_tokens=cached or 0,
        cache_write_tokens=(prompt.cache_write_tokens if prompt else None) or 0,
        reasoning_tokens=reasoning,
        cost_nano_usd=0 if cost is None else cost,
        cost_known=cost is not None,
    )


def cost_of(usage: UsageShape) -> int | None:
    """What the server says that the call cost, in billionths of a US dollar; None where it does not say."""
    if usage.cost_in_usd_ticks is not None:  # xAI: ten billionths
        return round(usage.cost_in_usd_ticks / 10)
    cost = usage.cost.get("total_cost") if isinstance(usage.cost, dict) else usage.cost  # Perplexity itemises, OpenRouter sums up
    return round(cost * 1e9) if isinstance(cost, int | float) else None


def bare_refusal(data: bytes) -> Refusal | None:
    """An error that is not below the key error: {"object": "error", "message", "code"} of vLLM and Mistral, {"detail"} of FastAPI."""
    document = msgspec.json.decode(data)
    told = "message" in document or "detail" in document
    marked = str(document.get("object")).lower() == "error" or not ("id" in document or "object" in document)
    return refusal_in(document) if told and marked else None


def merge_details(known: list[Any], fresh: list[Any]) -> None:
    """Adds streamed reasoning details: a piece with the type and index of the last one continues it."""
    for piece in fresh:
        last = known[-1] if known else None
        if isinstance(piece, dict) and isinstance(last, dict) and _continues(last, piece):
            known[-1] = _joined(last, piece)
        else:
            known.append(piece)


def _continues(last: dict[str, Any], piece: dict[str, Any]) -> bool:
    return "index" in piece and all(piece.get(key) == last.get(key) for key in ("type", "index"))


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    joined = dict(first)
    for key, value in second.items():
        grows = key in ("text", "summary", "data") and isinstance(value, str) and isinstance(joined.get(key), str)
        joined[key] = joined[key] + value if grows else (value if value is not None else joined.get(key))
    return joined


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _thinking(value: Any) -> str:
    if isinstance(value, list):
        return "".join(str(item.get("text", "")) for item in value if isinstance(item, dict))
    return str(value or "")


def _arguments(arguments: str | dict[str, Any]) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _is_complete(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return False
    return True
