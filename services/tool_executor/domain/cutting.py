"""Long outputs, cut head and tail so that a model reads both ends. Counted in bytes and lines, never inside a character."""

from __future__ import annotations

from dataclasses import dataclass

_MARKER_ROOM = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of an output a model sees, marker included. At least 1024 bytes and 3 lines."""

    max_bytes: int = 50 * 1024
    max_lines: int = 2000


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a text. `full_bytes` is its whole length in UTF-8."""

    text: str
    full_bytes: int
    truncated: bool


def cut(text: str, bounds: Bounds) -> Cut:
    """The text, or its head and tail around a marker that says what was left out."""
    data = text.encode("utf-8", "replace")
    lines = data.count(b"\n") + 1
    if len(data) <= bounds.max_bytes and lines <= bounds.max_lines:
        return Cut(data.decode("utf-8"), len(data), truncated=False)
    room = (bounds.max_bytes - _MARKER_ROOM) // 2
    head = _head(data, room, bounds.max_lines // 2)
    tail = _tail(data[len(head) :], room, (bounds.max_lines - 1) // 2)
    marker = _marker(len(data) - len(head) - len(tail), lines, data)
    return Cut((head + marker + tail).decode("utf-8"), len(data), truncated=True)


def _marker(left_out: int, lines: int, data: bytes) -> bytes:
    said = f"[... {left_out} bytes left out here; the whole output was {len(data)} bytes in {lines} lines and was not kept ...]"
    return f"\n{said}\n".encode()


def _head(data: bytes, room: int, max_lines: int) -> bytes:
    piece = data[:room]
    end = _after_lines(piece, max_lines)
    return _whole_characters(piece[:end], data[end : end + 1])


def _after_lines(piece: bytes, count: int) -> int:
    """Where the last of so many lines ends, before its newline; the piece's end when it has fewer."""
    end = -1
    for _ in range(count):
        end = piece.find(b"\n", end + 1)
        if end < 0:
            return len(piece)
    return end


def _tail(data: bytes, room: int, max_lines: int) -> bytes:
    piece = data[max(0, len(data) - room) :]
    start = len(piece)
    for _ in range(max_lines):
        start = piece.rfind(b"\n", 0, start)
        if start < 0:
            break
    return piece[start + 1 :].lstrip(_CONTINUATIONS) if start < 0 else piece[start + 1 :]


_CONTINUATIONS = bytes(range(0x80, 0xC0))


def _whole_characters(piece: bytes, following: bytes) -> bytes:
    """The piece without the beginning of a character that the cut goes through."""
    if not following or following[0] not in _CONTINUATIONS:
        return piece
    start = len(piece.rstrip(_CONTINUATIONS)) - 1
    return piece[:start]


def clip(text: str, max_bytes: int) -> str:
    """The beginning of a text that fits into so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    return data[:max_bytes].decode("utf-8", "ignore")
