"""What stands around the works of a transaction: how it is entered, what the works get, what is written at its end."""

from __future__ import annotations

from typing import Any, Protocol

from chassis.postgres.statements import Row, Statements


class Frame(Protocol):
    """One service's transactions. All writes of a process go through one writer, which has a row of the table `writers` to itself.

    The table is the service's own, made by its migrations: `id text PRIMARY KEY, fence bigint NOT NULL, token bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()`.
    """

    @property
    def writers(self) -> str:
        """The name of the service's table of writers."""

    @property
    def entering(self) -> str:
        """The first statement of a transaction, with the writer's id, its fence and its next token as $1 to $3.

        It stores the token and returns a row, none when the fence is another.
        """

    def enter(self, row: Row, statements: Statements) -> Any:
        """What the works of a transaction get, made of the row that `entering` returned."""

    def leave(self, rows: Any) -> None:
        """Writes what belongs at the end of the transaction."""


class PlainFrame:
    """Works get the statements, and nothing is added."""

    def __init__(self, writers: str) -> None:
        self.writers = writers
        self.entering = f"UPDATE {writers} SET token = $3, seen_at = now() WHERE id = $1 AND fence = $2 RETURNING token"  # noqa: S608 — a constant

    def enter(self, row: Row, statements: Statements) -> Statements:
        """The statements."""
        return statements

    def leave(self, rows: Statements) -> None:
        """Adds nothing."""
