"""What a process says to PostgreSQL, understood as far as it takes to know the moment at which something becomes durable."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_ENCRYPTION = 80877103  # the code of a request for TLS, after which the real beginning follows
_MARKS = (b"INSERT INTO batches", b"INSERT INTO executions", b"UPDATE executions")
"""What is looked for in statements: that which somebody is told of once it is durable. Leases and clocks do not count."""

STATEMENT, TRANSACTION = "a statement", "a transaction"
"""What may be made durable: a statement that commits by itself, or what stands between BEGIN and COMMIT."""


class Dialogue:
    """One connection, from its beginning."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._begun = False
        self._statements: set[bytes] = set()
        self._inside = self._wrote = False

    def commits(self, data: bytes) -> str:
        """Which of the two these bytes, following those before, ask to make durable; empty for neither."""
        self._data += data
        asked = [self._is_commit(kind, body) for kind, body in self._messages()]
        return next(filter(None, asked), "")

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """The messages that are whole: https://www.postgresql.org/docs/current/protocol-message-formats.html."""
        while len(self._data) >= (5 if self._begun else 8):
            head = 1 if self._begun else 0
            (length,) = struct.unpack_from("!I", self._data, head)
            if len(self._data) < head + length:
                return
            kind, body = bytes(self._data[:head]), bytes(self._data[head + 4 : head + length])
            del self._data[: head + length]
            if self._begun:
                yield kind, body
            self._begun = self._begun or struct.unpack_from("!I", body)[0] != _ENCRYPTION

    def _is_commit(self, kind: bytes, body: bytes) -> str:
        if kind == b"P":
            name, text = body.split(b"\0", 2)[:2]
            (self._statements.add if any(mark in text for mark in _MARKS) else self._statements.discard)(name)
        elif kind == b"B" and body.split(b"\0", 2)[1] in self._statements:
            self._wrote = self._inside
            return "" if self._inside else STATEMENT
        elif kind == b"Q":
            return self._is_end(body)
        return ""

    def _is_end(self, text: bytes) -> str:
        commits = self._wrote and text.startswith(b"COMMIT")
        if text.startswith((b"BEGIN", b"COMMIT", b"ROLLBACK")):
            self._inside, self._wrote = text.startswith(b"BEGIN"), False
        return TRANSACTION if commits else ""
