"""Reasoning that a server left in the text, between <think> and </think> at its beginning: told apart however the text is cut. Pure."""

from __future__ import annotations

import enum

OPEN, CLOSE = "<think>", "</think>"

Pieces = list[tuple[bool, str]]
"""Pieces of an answer: whether each is reasoning, and its text."""


class _State(enum.Enum):
    BEFORE = 1
    OPENED = 2
    WITHIN = 3
    CLOSED = 4
    AFTER = 5


class ThinkTags:
    """Takes an answer's text in pieces and tells reasoning from text. Holds back only what may be a part of a tag.

    Empty lines after either tag belong to the tag. Tags anywhere but at the beginning are text.
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held = ""
        self._state = _State.BEFORE

    def feed(self, piece: str) -> Pieces:
        """What is known of the text with this piece."""
        if self._state is _State.AFTER:
            return [(False, piece)]
        self._held += piece
        return [*self._before(), *self._opened(), *self._within(), *self._closed(), *self._after()]

    def end(self) -> Pieces:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return [(self._state is _State.WITHIN, held)] if held else []

    # each step goes on where the one before left off, and does nothing in another state

    def _before(self) -> Pieces:
        if self._state is _State.BEFORE:
            start = self._held.lstrip()
            if start.startswith(OPEN):
                self._state, self._held = _State.OPENED, start[len(OPEN) :]
            elif not OPEN.startswith(start):
                self._state = _State.AFTER
        return []

    def _opened(self) -> Pieces:
        if self._state is _State.OPENED:
            self._skip_newlines(_State.WITHIN)
        return []

    def _within(self) -> Pieces:
        if self._state is not _State.WITHIN:
            return []
        thought, closed, rest = self._held.partition(CLOSE)
        if closed:
            self._state, self._held = _State.CLOSED, rest
        else:
            kept = next((size for size in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:size])), 0)
            thought, self._held = thought[: len(thought) - kept], thought[len(thought) - kept :]
        return [(True, thought)] if thought else []

    def _closed(self) -> Pieces:
        if self._state is _State.CLOSED:
            self._skip_newlines(_State.AFTER)
        return []

    def _after(self) -> Pieces:
        held = self._held
        if self._state is not _State.AFTER or not held:
            return []
        self._held = ""
        return [(False, held)]

    def _skip_newlines(self, then: _State) -> None:
        self._held = self._held.lstrip("\r\n")
        if self._held:
            self._state = then
