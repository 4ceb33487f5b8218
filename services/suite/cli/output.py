"""Results on standard output: objects one a line for programs, text and tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from behest.event.v1 import event_pb2 as event_pb
from suite.cli.outcome import tell
from suite.following import kind_of
from suite.plain import Plain, json_line, plain


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table for people. `whole` columns keep their width where a terminal is narrow; the others are cut."""

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

    def aside(self, text: str) -> None:
        """Something about the result: dim in a terminal, elsewhere on standard error, where it does not mix with results."""
        if self._inline:
            self.line(self.dim(text))
        else:
            tell(text)

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
        import rich.box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(columns):
            width = max(len(row[index]) for row in found) if column.whole else None
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis", min_width=width)
        for row in found:
            table.add_row(*row)
        Console(markup=False, highlight=False, width=None if self.terminal else 160).print(table)
