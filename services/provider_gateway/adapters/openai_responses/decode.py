"""Reads the answers of OpenAI Responses, whole or streamed: events and envelopes here, items in the reader that both share."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from chassis.faults import StreamIncomplete
from provider_gateway.adapters.http.refusals import refusal_in
from provider_gateway.adapters.http.sse import SseEvent
from provider_gateway.adapters.openai_responses.reader import ResponseReader
from provider_gateway.adapters.openai_responses.shapes import EVENTS, KINDS, RESPONSES, Event, ResponseShape
from provider_gateway.adapters.wire import RefusedInStream, malformed
from provider_gateway.domain.answers import ChatEvent, ChatResult

DONE = b"[DONE]"  # not part of the protocol, but some servers end with it
_ENDS = ("completed", "incomplete", "failed", "cancelled")
_READ = frozenset(
    f"response.{name}"
    for name in (
        "output_text.delta",
        "function_call_arguments.delta",
        "reasoning_summary_text.delta",
        "reasoning_text.delta",
        "refusal.delta",
        "content_part.done",
        "output_item.added",
        "output_item.done",
        "created",
        "queued",
        "in_progress",
        *_ENDS,
    )
)


class ResponseStream:
    """Decodes one streamed answer. It is whole when one of the events came that end a response."""

    def __init__(self, origin: str, provider: str) -> None:
        self._reader = ResponseReader(origin, provider)
        self._provider = provider
        self._id = ""
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether the end marker came."""
        return self._ended

    def feed(self, events: Iterable[SseEvent]) -> list[ChatEvent]:
        """What these events mean."""
        for event in events:
            if not self._ended and event.data and event.data != DONE:
                self._take(event.data)
        return self.drain()

    def drain(self) -> list[ChatEvent]:
        """What was understood so far and not given yet."""
        return self._reader.answer.drain()

    def end(self) -> list[ChatEvent]:
        """The last steps, or StreamIncomplete."""
        if not self._ended:
            raise StreamIncomplete(
                f"{self._provider} ended the stream before the end of the response; what came is a part of the answer",
                metadata={"provider": self._provider},
            )
        return self._reader.complete()

    def _take(self, data: bytes) -> None:
        event = _event(self._provider, data)
        if event is None:
            return
        if event.response is None and event.type in _READ:  # a server may leave out the event that begins a response
            self._reader.answer.started("", "")
        try:
            self._read(event, data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise malformed(self._provider, "an item", data) from None

    def _read(self, event: Event, data: bytes) -> None:
        reader = self._reader
        match event.type:
            case "response.output_text.delta":
                reader.text(event)
            case "response.function_call_arguments.delta":
                reader.arguments(event)
            case "response.reasoning_summary_text.delta":
                reader.reasoning(event, "summary", event.summary_index)
            case "response.reasoning_text.delta":
                reader.reasoning(event, "content", event.content_index)
            case "response.refusal.delta":
                reader.refusal(event)
            case "response.content_part.done":
                reader.content(event)
            case "response.output_item.added":
                reader.open_item(event.output_index, event.item)
            case "response.output_item.done":
                reader.close_item(event.output_index, event.item)
            case "response.created" | "response.queued" | "response.in_progress" if event.response is not None:
                self._begin(event.response)
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" if event.response is not None:
                self._end(event.response, event.type.removeprefix("response."))
            case "error":
                raise RefusedInStream(refusal_in({"error": event.error or {"code": event.code, "message": event.message}}))
            case "" if event.error:
                raise RefusedInStream(refusal_in({"error": event.error}))
            case "" | "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                raise malformed(self._provider, "an event", data)
        # other events tell how the provider's own tools get on; what they did is in the items

    def _begin(self, response: ResponseShape) -> None:
        """A second response within the stream means that somebody in between started over."""
        if self._id and response.id and response.id != self._id:
            raise StreamIncomplete(
                f"{self._provider} began another response within the stream; what came is a part of the first",
                metadata={"provider": self._provider},
            )
        self._id = self._id or response.id or ""
        self._reader.begin(response)

    def _end(self, response: ResponseShape, told: str) -> None:
        """The response ended as it says itself, or else as the event does: some servers call every end completed."""
        status = response.status if response.status in _ENDS else told
        _check(response, status)
        self._reader.finish(response, status)
        self._ended = True


def response_result(origin: str, provider: str, body: bytes) -> ChatResult:
    """A whole response from its bytes."""
    try:
        response = RESPONSES.decode(body)
        status = response.status or "completed"
        _check(response, status)
        if response.output is None or status not in _ENDS:
            raise malformed(provider, "a response without an answer", body)
        reader = ResponseReader(origin, provider)
        reader.finish(response, status)
        return reader.result()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "something", body) from None


def _event(provider: str, data: bytes) -> Event | None:
    """The event; None for one of a type that is not read here and does not fit."""
    try:
        return EVENTS.decode(data)
    except msgspec.ValidationError:
        if _is_unread(data):
            return None
        raise malformed(provider, "an event", data) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise malformed(provider, "an event", data) from None


def _is_unread(data: bytes) -> bool:
    try:
        kind = KINDS.decode(data).type
    except msgspec.ValidationError:
        return False
    return bool(kind) and kind not in _READ


def _check(response: ResponseShape, status: str) -> None:
    """Raises for a response that failed."""
    if response.error or status == "failed":
        raise RefusedInStream(refusal_in({"error": response.error or "the response failed without a reason"}))
