"""Plain functions that speak SQL: run in a greenlet, suspended while the event loop waits for the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import asyncpg
import greenlet  # type: ignore[import-untyped]  # its stubs are another package

from chassis.postgres_access import Connection

T = TypeVar("T")
Row = asyncpg.Record


async def run_suspending(function: Callable[..., T], *args: Any) -> T:
    """Runs a plain function that may `wait`; what it waits for runs here."""
    running = greenlet.greenlet(function)
    running.gr_context = greenlet.getcurrent().gr_context
    step = running.switch(*args)
    while not running.dead:
        try:
            value = await step
        except BaseException as error:  # noqa: BLE001 — raised where it was waited for
            step = running.throw(error)
        else:
            step = running.switch(value)
    return step  # type: ignore[no-any-return]  # a greenlet's last value is its function's result


def wait(awaitable: Awaitable[T]) -> T:
    """The result of an awaitable, within a function that run_suspending runs."""
    parent = greenlet.getcurrent().parent
    assert parent is not None, "only what run_suspending runs may wait"
    return parent.switch(awaitable)  # type: ignore[no-any-return]


class Statements:
    """One transaction's statements. Those without a result are kept and sent before the next that has one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: list[tuple[str, Sequence[Sequence[Any]]]] = []
        self._sent = 0
        self.failed = False  # one of them did, so that the transaction can only be rolled back

    @property
    def writes(self) -> int:
        """How many statements that may write were given so far."""
        return self._sent + len(self._kept)

    def fetch(self, sql: str, *args: Any) -> list[Row]:
        """The rows of a statement."""
        self.flush()
        if not sql.startswith("SELECT"):
            self._sent += 1
        return self._wait(self._connection.fetch(sql, *args))

    def fetchrow(self, sql: str, *args: Any) -> Row | None:
        """The first row of a statement."""
        rows = self.fetch(sql, *args)
        return rows[0] if rows else None

    def execute(self, sql: str, *args: Any) -> None:
        """Runs a statement without a result, now or later."""
        self._kept.append((sql, (args,)))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs a statement for each row, now or later."""
        values = list(rows)
        if values:
            self._kept.append((sql, values))

    def flush(self) -> None:
        """Sends what was kept, in order; neighbours of the same text together."""
        while self._kept:
            sql, rows = self._kept[0]
            count = 1
            while count < len(self._kept) and self._kept[count][0] == sql:
                rows = [*rows, *self._kept[count][1]]
                count += 1
            del self._kept[:count]
            self._sent += 1
            if len(rows) == 1:
                self._wait(self._connection.execute(sql, *rows[0]))
            else:
                self._wait(self._connection.executemany(sql, rows))

    def _wait(self, awaitable: Awaitable[T]) -> T:
        try:
            return wait(awaitable)
        except BaseException:
            self.failed = True
            raise
