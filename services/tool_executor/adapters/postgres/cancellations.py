"""What is to be stopped, told to all executors: the one that runs a call need not be the one that is asked to stop it."""

from __future__ import annotations

from collections.abc import Collection

from chassis.postgres import Database, Statements
from tool_executor.adapters.postgres.rows import RUNNING, loaded, stored
from tool_executor.adapters.postgres.writing import tell, write
from tool_executor.operations.ports import Cancellation

KEPT_SECONDS = 10.0  # far more than an executor takes to look

_ASK = "INSERT INTO cancellations (tenant, run_id, call_ids) VALUES ($1, $2, $3)"
_FORGET = "DELETE FROM cancellations WHERE asked_at < now() - make_interval(secs => $1)"
_HEAR = "SELECT id, tenant, run_id, call_ids FROM cancellations WHERE asked_at >= now() - make_interval(secs => $1)"
# The keys of a run's calls are one range: those that begin with its id and a slash, up to the character after the slash.
_CLAIMED = f"""
    SELECT call_id FROM executions WHERE tenant = $1 AND status = {RUNNING} AND (key = $2 AND run_id = ''
        OR key >= $2 || '/' AND key < $2 || '0' AND run_id = $2 AND (cardinality($3::text[]) = 0 OR call_id = ANY ($3)))
"""  # noqa: S608 - constants


class PostgresCancellations:
    """See the port."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: set[int] = set()

    async def ask(self, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
        """Tells all executors; returns the ids of the calls that some executor has claimed."""
        return await write(self._database, lambda statements: _ask(statements, tenant, run_id, call_ids))

    async def hear(self) -> list[Cancellation]:
        """What was asked since the last time, by whomever."""
        rows = await self._database.read(lambda statements: statements.fetch(_HEAR, KEPT_SECONDS))
        new = [row for row in rows if row["id"] not in self._heard]
        self._heard = {row["id"] for row in rows}
        return [Cancellation(row["tenant"], loaded(row["run_id"]), frozenset(map(loaded, row["call_ids"]))) for row in new]


def _ask(statements: Statements, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
    where = (tenant, stored(run_id), [stored(call_id) for call_id in call_ids])
    claimed = statements.fetch(_CLAIMED, *where)
    statements.execute(_FORGET, KEPT_SECONDS)
    statements.execute(_ASK, *where)
    tell(statements)
    return [loaded(row["call_id"]) for row in claimed]
