"""A parser for server-sent events, without I/O: bytes in, events out, however the bytes were cut.

Follows https://html.spec.whatwg.org/multipage/server-sent-events.html with one kindness: an event that lacks its closing blank line at
the end of the stream is still given, because several providers end that way. `id` and `retry` are of no use here and ignored.
All work per byte happens in C (find, replace, split); Python sees lines.
"""

from __future__ import annotations

from typing import NamedTuple

from chassis.faults import ProviderResponseInvalid

MAX_EVENT_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event: its type (empty for the default one) and its data, UTF-8."""

    event: bytes
    data: bytes


class SseParser:
    """Turns pieces of a stream into events. Holds at most `max_event_bytes`; more raises ProviderResponseInvalid."""

    __slots__ = ("_data", "_data_size", "_event", "_head", "_limit", "_partial", "_partial_size", "_skip_lf")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._head: bytes | None = b""
        self._skip_lf = False
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._event = b""
        self._data: list[bytes] = []
        self._data_size = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that chunk completes."""
        if self._head is not None:
            chunk = self._without_bom(chunk)
        chunk = self._normalised(chunk)
        first, newline, rest = chunk.partition(b"\n")
        if not newline:
            self._hold(first)
            return []
        lines = rest.split(b"\n")
        lines.insert(0, self._held(first))
        self._hold(lines.pop())
        return self._events(lines)

    def end(self) -> list[SseEvent]:
        """The event that the end of the stream completes, if one is under way."""
        if self._head:
            self._hold(self._head)
        self._head = None
        lines = [self._held(b""), b""]
        return self._events(lines)

    def _without_bom(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _normalised(self, chunk: bytes) -> bytes:
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[0] == 10:  # the LF of a CRLF that was cut in two
                chunk = chunk[1:]
        if b"\r" not in chunk:
            return chunk
        self._skip_lf = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._partial.append(piece)
            self._partial_size += len(piece)
            self._check(self._partial_size + self._data_size)

    def _held(self, tail: bytes) -> bytes:
        if not self._partial:
            return tail
        line = b"".join(self._partial) + tail
        self._partial.clear()
        self._partial_size = 0
        return line

    def _events(self, lines: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        for line in lines:
            if line[:5] == b"data:":
                self._take(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if self._data:
                    events.append(SseEvent(self._event, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
                    self._data, self._data_size = [], 0
                self._event = b""
            elif line[:6] == b"event:":
                self._event = line[7:] if line[6:7] == b" " else line[6:]
            elif line == b"data":
                self._take(b"")
        return events

    def _take(self, data: bytes) -> None:
        self._data.append(data)
        self._data_size += len(data)
        self._check(self._data_size)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise ProviderResponseInvalid(
                f"the provider sent an event of more than {self._limit} bytes; raise the provider's limits.event_bytes if it is right",
                metadata={"limit": str(self._limit)},
            )
