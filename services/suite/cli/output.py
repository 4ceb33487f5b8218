"""Results on standard output: objects one a line for programs, text and tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from behest.event.v1 import event_pb2 as event_pb
from suite.cli.outcome import fitted, tell, width_of
from suite.following import kind_of
from suite.plain import Plain, json_line, plain


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table for people; it is left out where it holds nothing.

    `whole` columns keep their width where a terminal is narrow; the others are cut.
    """

    title: str
    right: bool = False
    whole: bool = False


class Output:
    """Where results go. `json` unless a person reads, or as --json and --no-json say; `inline` keeps asides among the results."""

    def __init__(self, json: bool | None = None, *, inline: bool = False) -> None:
        self.terminal = sys.stdout.isatty()
        self._inline = inline or self.terminal
        self.json = not self.terminal if json is None else json

    def write(self, text: str) -> None:
        """Text as it is, at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """Text and the end of its line."""
        self.write(f"{text}\n")

    def note(self, text: str, indent: int = 0) -> None:
        """A line for people; in a terminal it is broken between words, and what follows a break is indented."""
        self.line(fitted(text, sys.stdout, indent))

    def aside(self, text: str) -> None:
        """Something about the result: dim in a terminal, elsewhere on standard error, where it does not mix with results."""
        if self._inline:
            self.line(self.dim(fitted(text, sys.stdout)))
        else:
            tell(text)

    def aside_of(self, parts: Sequence[str]) -> None:
        """An aside of several parts; in a terminal lines are broken between them."""
        width = width_of(sys.stdout) if self.terminal else None
        lines = [parts[0]]
        for part in parts[1:]:
            longer = f"{lines[-1]} · {part}"
            if width is None or len(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
        self.aside("\n".join(lines))

    def object(self, value: Plain) -> None:
        """One object on one line."""
        self.line(json_line(value))

    def message(self, message: Message) -> None:
        """One message of the contract as an object."""
        self.object(plain(message))

    def event(self, event: event_pb.Event) -> None:
        """One event as an object: what it is about, then kind and data."""
        kind = kind_of(event)
        data = plain(getattr(event, kind)) if kind else {}
        about: dict[str, Any] = {"run_id": event.run_id, "session_id": event.session_id, "sequence": event.sequence}
        self.object({**about, "time": event.time.ToJsonString(), "kind": kind, "data": data})

    def dim(self, text: str) -> str:
        """The text as an aside: dim in a terminal."""
        return f"\x1b[2m{text}\x1b[0m" if self.terminal else text

    def bold(self, text: str) -> str:
        """The text as a heading: bold in a terminal."""
        return f"\x1b[1m{text}\x1b[0m" if self.terminal else text

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]], *, empty: str) -> None:
        """A table, or the sentence that stands for an empty one."""
        found = [tuple(row) for row in rows]
        if not found:
            self.line(empty)
            return
        used = [index for index in range(len(columns)) if any(row[index] for row in found)]
        shown, cells = [columns[index] for index in used], [[row[index] for index in used] for row in found]
        for number, line in enumerate(table_lines(shown, cells, width_of(sys.stdout) if self.terminal else None)):
            self.line(self.bold(line) if number == 0 else line)


GAP = "   "
LEAST_WIDTH = 8


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The head and the rows of a table, none wider than width as long as the whole columns leave room."""
    from rich.cells import cell_len, set_cell_size

    widths = [max(cell_len(column.title), *(cell_len(row[index]) for row in rows)) for index, column in enumerate(columns)]
    excess = sum(widths) + len(GAP) * (len(columns) - 1) - width if width else 0
    while excess > 0:
        widest = max((index for index, column in enumerate(columns) if not column.whole), key=lambda index: widths[index], default=None)
        if widest is None or widths[widest] <= LEAST_WIDTH:
            break
        widths[widest] -= 1
        excess -= 1

    def line(cells: Sequence[str]) -> str:
        placed = []
        for column, cell, size in zip(columns, cells, widths, strict=True):
            cut = cell if cell_len(cell) <= size else set_cell_size(cell, size - 1).rstrip() + "…"
            space = " " * (size - cell_len(cut))
            placed.append(space + cut if column.right else cut + space)
        return GAP.join(placed).rstrip()

    return [line([column.title for column in columns]), *(line(row) for row in rows)]
