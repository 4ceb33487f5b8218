"""Reads Ollama's answers, whole or streamed: a whole one is a single line that is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from chassis.faults import StreamIncomplete
from provider_gateway.adapters.http.refusals import refusal_in
from provider_gateway.adapters.http.sse import SseEvent
from provider_gateway.adapters.ollama.shapes import ANSWERS, VECTORS, Answer, Call, Said
from provider_gateway.adapters.wire import RefusedInStream, malformed
from provider_gateway.domain.answers import ChatEvent, FinishReason, Usage
from provider_gateway.domain.assembly import Assembly
from provider_gateway.domain.chat import OpaqueState
from provider_gateway.domain.embeddings import EmbedResult

_FINISH: Mapping[str, FinishReason] = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class OllamaReader:
    """Reads the lines of one answer. It is whole when one was done."""

    def __init__(self, origin: str, provider: str) -> None:
        self.answer = Assembly(provider)
        self._origin = origin
        self._calls = 0
        self._began = ""
        self.done = False

    def take(self, line: Answer, raw: bytes) -> None:
        """One line; raw is shown when it makes no sense."""
        if line.error:
            raise RefusedInStream(refusal_in({"error": line.error}))
        if line.message is None and not line.done:
            raise malformed(self.answer.provider, "a line", raw)
        self._began = self._began or "".join(filter(str.isdigit, line.created_at or ""))
        self.answer.started(line.model or "", "")
        if line.message is not None:
            self._said(line.message)
        if line.done:
            self._done(line)

    def _said(self, said: Said) -> None:
        if said.thinking:
            self.answer.reasoning(said.thinking)
            self.answer.reasoning_state(OpaqueState(self._origin, "thinking", b""))
        if said.content:
            self.answer.text(said.content)
        for call in said.tool_calls or ():
            self._call(call)

    def _call(self, call: Call) -> None:
        """A call, whole. Without an id it gets one from the moment that the answer began, so that no two of a conversation are alike."""
        key, self._calls = self._calls, self._calls + 1
        self.answer.open_call(key, call.id or f"call_{self._began}_{key}", call.function.name)
        arguments = _arguments(call.function.arguments)
        if arguments:
            self.answer.arguments(key, arguments)

    def _done(self, line: Answer) -> None:
        self.done = True
        reason = line.done_reason or "stop"  # older servers gave none
        self.answer.finish_raw, self.answer.finish = reason, _FINISH.get(reason, FinishReason.UNKNOWN)
        # what a cached prompt holds is not counted: some servers then leave the number out
        self.answer.report(Usage(input_tokens=line.prompt_eval_count or 0, output_tokens=line.eval_count or 0))


class OllamaStream:
    """Decodes one streamed answer."""

    def __init__(self, origin: str, provider: str) -> None:
        self._reader = OllamaReader(origin, provider)
        self._provider = provider

    @property
    def done(self) -> bool:
        """Whether the end marker came."""
        return self._reader.done

    def feed(self, events: Iterable[SseEvent]) -> list[ChatEvent]:
        """What these lines mean."""
        for event in events:
            if not self._reader.done:
                self._reader.take(answer_in(self._provider, event.data), event.data)
        return self.drain()

    def drain(self) -> list[ChatEvent]:
        """What was understood so far and not given yet."""
        return self._reader.answer.drain()

    def end(self) -> list[ChatEvent]:
        """The last steps, or StreamIncomplete."""
        if not self._reader.done:
            raise StreamIncomplete(
                f"{self._provider} ended the stream before it was done; what came is a part of the answer",
                metadata={"provider": self._provider},
            )
        return self._reader.answer.complete()


def answer_in(provider: str, data: bytes) -> Answer:
    """A whole answer or a line from its bytes."""
    try:
        return ANSWERS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", data) from None


def vectors_in(provider: str, data: bytes) -> EmbedResult:
    """The vectors. Raises RefusedInStream or ProviderResponseInvalid."""
    try:
        answer = VECTORS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", data) from None
    if answer.error:
        raise RefusedInStream(refusal_in({"error": answer.error}))
    if answer.embeddings is None:
        raise malformed(provider, "an answer without vectors", data)
    usage = Usage(input_tokens=answer.prompt_eval_count or 0)
    return EmbedResult(tuple(map(tuple, answer.embeddings)), usage, provider, answer.model or "")


def _arguments(arguments: Any) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
