"""A parser for newline-delimited JSON, without I/O: bytes in, lines out as events of the default type, however the bytes were cut."""

from __future__ import annotations

from chassis.faults import ProviderResponseInvalid
from provider_gateway.adapters.http.sse import MAX_EVENT_BYTES, SseEvent


class NdjsonParser:
    """Turns pieces of a stream into lines. Holds at most `max_line_bytes`; more raises ProviderResponseInvalid."""

    __slots__ = ("_limit", "_partial", "_size")

    def __init__(self, max_line_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_line_bytes
        self._partial: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The lines that chunk completes; empty ones are left out."""
        first, newline, rest = chunk.partition(b"\n")
        if not newline:
            self._hold(first)
            return []
        lines = [self._held(first), *rest.split(b"\n")]
        self._hold(lines.pop())
        return [SseEvent(b"", line) for line in lines if line.strip()]

    def end(self) -> list[SseEvent]:
        """The line that the end of the stream completes, if one is under way."""
        line = self._held(b"")
        return [SseEvent(b"", line)] if line.strip() else []

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._partial.append(piece)
            self._size += len(piece)
        if self._size > self._limit:
            raise ProviderResponseInvalid(
                f"the provider sent a line of more than {self._limit} bytes; raise the provider's limits.event_bytes if it is right",
                metadata={"limit": str(self._limit)},
            )

    def _held(self, tail: bytes) -> bytes:
        line = b"".join(self._partial) + tail if self._partial else tail
        self._partial.clear()
        self._size = 0
        return line
