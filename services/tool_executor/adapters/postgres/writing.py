"""Writing to the executor's database: its works get plain statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from chassis.postgres import Database, Statements

T = TypeVar("T")

CHANNEL = "tool_executor"


async def write(database: Database, work: Callable[[Statements], T]) -> T:
    """Runs work in the next transaction; what it returned, once that is durable. Raises StorageUnavailable."""
    return await database.write(work)


def tell(statements: Statements) -> None:
    """Has all executors look for news, once the transaction is committed. A hint: each looks every second anyhow."""
    statements.fetch(f"SELECT pg_notify('{CHANNEL}', '')")
