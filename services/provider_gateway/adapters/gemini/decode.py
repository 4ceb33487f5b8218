"""Reads the answers of generateContent, whole or streamed: both go through the same assembly.

A prompt that was blocked is an answer, one that ends with CONTENT_FILTER: the exchange succeeded, its tokens are paid for, and asking
again changes nothing. Everything that the contract has no words for is kept as the provider's state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from chassis.faults import ProviderResponseInvalid, StreamIncomplete
from provider_gateway.adapters.gemini.citations import citations
from provider_gateway.adapters.gemini.partial_args import PartialArgs
from provider_gateway.adapters.gemini.shapes import (
    ANSWER_LISTS,
    ANSWERS,
    RAW_ANSWER_LISTS,
    RAW_ANSWERS,
    Answer,
    Call,
    Candidate,
    Data,
    Part,
    UsageShape,
)
from provider_gateway.adapters.http.refusals import refusal_in
from provider_gateway.adapters.http.sse import SseEvent
from provider_gateway.adapters.wire import RefusedInStream, malformed, opaque
from provider_gateway.domain.answers import ChatEvent, ChatResult, FinishReason, RequestWarning, Usage
from provider_gateway.domain.assembly import Assembly
from provider_gateway.domain.chat import NO_NOTES, Blob, ImagePart, Notes, OpaquePart, OpaqueState, TextPart

ADAPTER = "gemini"
SIGNATURE, THOUGHT, OWN_ID, PART, PLACES = "thought_signature", "thought", "id", "part", "call_places"
GROUNDING, CITATION = "grounding_metadata", "citation_metadata"
DONE = b"[DONE]"
MOST_NOTED = 16 * 1024 * 1024
_NOTHING_COUNTED = UsageShape()
_FINISH = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "ESCALATION": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "IMAGE_RECITATION": FinishReason.CONTENT_FILTER,
    "MALFORMED_FUNCTION_CALL": FinishReason.ERROR,
    "MALFORMED_RESPONSE": FinishReason.ERROR,
    "UNEXPECTED_TOOL_CALL": FinishReason.ERROR,
    "TOO_MANY_TOOL_CALLS": FinishReason.ERROR,
    "MISSING_THOUGHT_SIGNATURE": FinishReason.ERROR,
}
_NUMBERED = (
    "",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
)
_NOTED = (GROUNDING, CITATION, "url_context_metadata", "safety_ratings", "continuation_token")


class GeminiReader:
    """Reads the pieces of one answer; a whole response is one large piece."""

    def __init__(self, provider: str) -> None:
        self.answer = Assembly(provider)
        self._usage = UsageShape()
        self._counted = False
        self._places: list[int] = []
        self._partial: PartialArgs | None = None
        self._notes: dict[str, dict[bytes, None]] = {}
        self._noted = 0

    def take(self, piece: Answer, raw: bytes, number: int | None = None) -> None:
        """One piece. `raw` is what it was read from: the number-th of a list, or all of it."""
        if piece.error:
            raise RefusedInStream(refusal_in({"error": piece.error}))
        if piece.candidates is None and not piece.prompt_feedback and piece.usage_metadata is None and piece.response_id is None:
            raise malformed(self.answer.provider, "a response", raw)
        self.answer.started(piece.model_version or "", piece.response_id or "")
        for place, candidate in enumerate(piece.candidates or ()):
            if candidate.index:
                self._extra(candidate.index)
            else:
                self._candidate(candidate, _Source(raw, number, place))
        if isinstance(piece.prompt_feedback, dict):
            self._feedback(piece.prompt_feedback)
        if piece.usage_metadata is not None:
            self._count(piece.usage_metadata)

    def tell_usage(self) -> None:
        """Reports what was counted since it was last told: every piece brings a count, and each replaces the one before."""
        if self._counted:
            self._counted = False
            self.answer.report(usage_of(self._usage))

    def result(self) -> ChatResult:
        """The whole answer so far."""
        self._settle()
        return self.answer.result()

    def complete(self) -> list[ChatEvent]:
        """The last steps."""
        self._settle()
        return self.answer.complete()

    def _settle(self) -> None:
        self.tell_usage()
        self._close_call()
        self.answer.flush()
        if any(place < self.answer.parts for place in self._places):
            self.answer.keep(opaque(ADAPTER, PLACES, self._places))
        self._cite()
        for kind, values in self._notes.items():
            for value in values:
                self.answer.keep(OpaqueState(ADAPTER, kind, value))

    def _cite(self) -> None:
        """Tells the text parts what they rest on."""
        grounding, sources = (list(map(msgspec.json.decode, self._notes.get(kind, ()))) for kind in (GROUNDING, CITATION))
        if not grounding and not sources:
            return
        parts = [(at, part) for at in range(self.answer.parts) if isinstance(part := self.answer.part_at(at), TextPart) and part.text]
        found = citations([part.text for _, part in parts], grounding[-1] if grounding else None, sources)
        for number, (at, part) in enumerate(parts):
            own = tuple(citation for place, citation in found if place == number)
            if own:
                self.answer.note(at, replace(part.notes, citations=own))

    def _extra(self, index: int) -> None:
        warning = RequestWarning("", f"{self.answer.provider} gave a candidate {index} that was not asked for; it is left out")
        if warning not in self.answer.warnings:
            self.answer.warnings.append(warning)

    def _candidate(self, candidate: Candidate, source: _Source) -> None:
        parts = candidate.content.parts if candidate.content else None
        for at, part in enumerate(parts or ()):
            self._part(part, source, at)
        if candidate.finish_reason:
            self._finish(candidate.finish_reason, candidate.finish_message)
        for name in _NOTED:
            value = getattr(candidate, name)
            if value:
                self._note(name, value)

    def _part(self, part: Part, source: _Source, at: int) -> None:
        if part.function_call is not None:
            self._call(part.function_call, part.thought_signature, source)
        elif part.text is not None and part.thought:
            self._thought(part.text, part.thought_signature)
        elif part.text is not None:
            self._text(part.text, part.thought_signature)
        elif part.inline_data is not None and (part.inline_data.mime_type or "").startswith("image/") and not part.thought:
            self._image(part.inline_data, part.thought_signature)
        else:
            self.answer.part(OpaquePart(OpaqueState(ADAPTER, PART, source.part(at))))

    def _text(self, text: str, signature: str | None) -> None:
        if signature is None:
            if text:
                self.answer.text(text)
        elif text:  # a signed part stays apart from its neighbours, so that it can go back as it came
            self.answer.flush()
            self.answer.text(text)
            self.answer.flush()
            self.answer.note(self.answer.parts - 1, _notes(signature))
        else:
            self.answer.part(TextPart("", _notes(signature)))

    def _thought(self, text: str, signature: str | None) -> None:
        if signature is not None:
            self.answer.flush()
        if text:
            self.answer.reasoning(text)
        if signature is not None:
            self.answer.reasoning_state(_signed(signature))
            self.answer.flush()
        elif text:
            self.answer.reasoning_state(OpaqueState(ADAPTER, THOUGHT, b""))

    def _image(self, image: Data, signature: str | None) -> None:
        self.answer.part(ImagePart(Blob(data=image.data, media_type=image.mime_type or ""), _notes(signature)))

    def _call(self, call: Call, signature: str | None, source: _Source) -> None:
        if call.name:
            self._open_call(call)
        elif self._partial is None:
            raise malformed(self.answer.provider, "a function call without a name", source.data)
        key = len(self._places) - 1
        if signature is not None:
            self.answer.call_state(key, _signed(signature))
        self._arguments(key, call, source)
        if not call.will_continue:
            self._close_call()

    def _open_call(self, call: Call) -> None:
        self._close_call()
        self.answer.flush()
        key = len(self._places)
        self._places.append(self.answer.parts)
        self._partial = PartialArgs()
        self.answer.open_call(key, call.id or "", call.name or "")
        if call.id:
            self.answer.call_state(key, OpaqueState(ADAPTER, OWN_ID, b""))

    def _arguments(self, key: int, call: Call, source: _Source) -> None:
        assert self._partial is not None
        args = bytes(call.args)
        if args not in (b"", b"null"):
            self.answer.arguments(key, msgspec.json.format(args, indent=-1).decode())
        try:
            for piece in call.partial_args or ():
                self._partial.add(piece)
        except ValueError:
            raise malformed(self.answer.provider, "pieces of a call's arguments", source.data) from None

    def _close_call(self) -> None:
        partial, self._partial = self._partial, None
        if partial is not None and partial.value:
            self.answer.arguments(len(self._places) - 1, msgspec.json.encode(partial.value).decode())

    def _finish(self, reason: str | int, message: str | None) -> None:
        if isinstance(reason, int):
            reason = _NUMBERED[reason] if 0 < reason < len(_NUMBERED) else str(reason)
        self.answer.finish_raw = reason
        self.answer.finish = _FINISH.get(reason, FinishReason.UNKNOWN)
        if message and reason != "STOP":
            self._note("finish_message", message)

    def _feedback(self, feedback: dict[str, Any]) -> None:
        reason = feedback.get("blockReason")
        if reason:
            self.answer.finish_raw = str(reason)
            self.answer.finish = FinishReason.CONTENT_FILTER
            self._note("prompt_feedback", feedback)

    def _note(self, kind: str, value: Any) -> None:
        data = msgspec.json.encode(value)
        known = self._notes.setdefault(kind, {})
        if data in known:
            return
        known[data] = None
        self._noted += len(data)
        if self._noted > MOST_NOTED:
            raise ProviderResponseInvalid(
                f"{self.answer.provider} sent more than {MOST_NOTED} bytes about its answer", metadata={"provider": self.answer.provider}
            )

    def _count(self, usage: UsageShape) -> None:
        """A later count may leave out what did not change."""
        known = self._usage
        if usage in (known, _NOTHING_COUNTED):
            return
        self._counted = True
        for name in UsageShape.__struct_fields__:
            if getattr(usage, name) is None:
                setattr(usage, name, getattr(known, name))
        self._usage = usage


class _Source(NamedTuple):
    """Where a candidate was read from, for the few parts that are kept as they were written."""

    data: bytes
    number: int | None
    place: int

    def part(self, at: int) -> bytes:
        """The at-th part, without white space."""
        answer = RAW_ANSWERS.decode(self.data) if self.number is None else RAW_ANSWER_LISTS.decode(self.data)[self.number]
        return msgspec.json.format(bytes(answer.candidates[self.place].content.parts[at]), indent=-1)


class GeminiStream:
    """Decodes one streamed answer. It is whole when a finish reason came: the protocol has no other end marker."""

    def __init__(self, provider: str) -> None:
        self._reader = GeminiReader(provider)
        self._provider = provider

    @property
    def done(self) -> bool:
        """Never: usage and sources may follow the finish reason."""
        return False

    def feed(self, events: Iterable[SseEvent]) -> list[ChatEvent]:
        """What these events mean."""
        for event in events:
            if event.data and event.data != DONE:  # which proxies add
                self._reader.take(_answer(self._provider, event.data), event.data)
        return self.drain()

    def drain(self) -> list[ChatEvent]:
        """What was understood so far and not given yet."""
        self._reader.tell_usage()
        return self._reader.answer.drain()

    def end(self) -> list[ChatEvent]:
        """The last steps, or StreamIncomplete."""
        if self._reader.answer.finish is None:
            raise _unfinished(self._provider)
        return self._reader.complete()


def response_result(provider: str, body: bytes) -> ChatResult:
    """A whole response from its bytes; a server that ignores alt=sse sends a list of pieces."""
    reader = GeminiReader(provider)
    if not body.lstrip().startswith(b"["):
        piece = _answer(provider, body)
        reader.take(piece, body)
        if not piece.candidates and reader.answer.finish is None:
            raise malformed(provider, "a response without candidates", body)
        return reader.result()
    for number, piece in enumerate(_answers(provider, body)):
        reader.take(piece, body, number)
    if reader.answer.finish is None:
        raise _unfinished(provider)
    return reader.result()


def usage_of(usage: UsageShape) -> Usage:
    """Usage in the contract's words, where the output includes the thoughts and the input what server-side tools fed back."""
    thoughts = usage.thoughts_token_count or 0
    return Usage(
        input_tokens=(usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        output_tokens=(usage.candidates_token_count or 0) + thoughts,
        cache_read_tokens=usage.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
    )


def _notes(signature: str | None) -> Notes:
    return NO_NOTES if signature is None else Notes(provider_state=(_signed(signature),))


def _signed(signature: str) -> OpaqueState:
    return OpaqueState(ADAPTER, SIGNATURE, signature.encode())


def _unfinished(provider: str) -> StreamIncomplete:
    return StreamIncomplete(
        f"{provider} ended the stream before a finish reason; what came is a part of the answer", metadata={"provider": provider}
    )


def _answer(provider: str, data: bytes) -> Answer:
    try:
        return ANSWERS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", data) from None


def _answers(provider: str, data: bytes) -> list[Answer]:
    try:
        return ANSWER_LISTS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", data) from None
