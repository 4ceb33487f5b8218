"""What ended and is to be published, as plain functions of a transaction's statements. Several executors share the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chassis.postgres import Statements
from tool_executor.adapters.postgres.rows import COLUMNS, arrays, execution_of, stored, unnest
from tool_executor.domain.execution import Execution
from tool_executor.domain.ledger import PUBLISH_SECONDS

ANY_DUE = f"SELECT 1 FROM unpublished WHERE taken_until NOT BETWEEN $1 AND $1 + {2 * PUBLISH_SECONDS} LIMIT 1"  # noqa: S608 - a constant

# S608: all of these are put together from constants. The keys are sorted, so that two executors wait for each other in one order.
_QUEUE = f"INSERT INTO unpublished (tenant, key) SELECT * FROM {unnest('tenant', 'key')} ON CONFLICT DO NOTHING"  # noqa: S608
_TAKE = f"""
    UPDATE unpublished u SET taken_until = $2 FROM (
        SELECT id FROM unpublished WHERE taken_until NOT BETWEEN $1 AND $1 + {2 * PUBLISH_SECONDS}
        ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS due WHERE u.id = due.id RETURNING u.tenant, u.key
"""  # noqa: S608
_PUBLISHED = f"DELETE FROM unpublished u USING {unnest('tenant', 'key')} AS e (tenant, key) WHERE u.tenant = e.tenant AND u.key = e.key"  # noqa: S608
_FIND = f"""
    SELECT {", ".join(f"x.{column}" for column in COLUMNS.split(", "))} FROM executions x
    JOIN {unnest("tenant", "key")} AS e (tenant, key) ON x.tenant = e.tenant AND x.key = e.key ORDER BY x.ended_at
"""  # noqa: S608


def queue(statements: Statements, ended: Iterable[Execution]) -> None:
    """Has them published."""
    ordered = sorted(ended, key=lambda execution: (execution.tenant, execution.key))
    if ordered:
        statements.execute(_QUEUE, *arrays(ordered, "tenant", "key"))


def take(statements: Statements, now: float, limit: int) -> list[Execution]:
    """The oldest that nobody took. Those whose record is gone are dropped: there is nothing to say of them any more."""
    rows = statements.fetch(_TAKE, now, now + PUBLISH_SECONDS, limit)
    if not rows:
        return []
    wheres = {(row["tenant"], row["key"]) for row in rows}
    found = [execution_of(row) for row in statements.fetch(_FIND, *_columns(wheres))]
    gone = wheres - {(execution.tenant, stored(execution.key)) for execution in found}
    if gone:
        statements.execute(_PUBLISHED, *_columns(gone))
    return found


def published(statements: Statements, executions: Sequence[Execution]) -> None:
    """Has them never come again."""
    statements.execute(_PUBLISHED, *arrays(executions, "tenant", "key"))


def _columns(wheres: Iterable[tuple[str, str]]) -> list[list[str]]:
    ordered = sorted(wheres)
    return [[tenant for tenant, _ in ordered], [key for _, key in ordered]]
