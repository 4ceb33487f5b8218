"""Deleting sessions: out of every look-up in one short transaction, then away row by row in others, so that nobody waits long.

A crash in between leaves rows that nobody can look up; upkeep goes on with them.
"""

from __future__ import annotations

from chassis.faults import SessionBusy
from session_store.domain.outbox import published_up_to
from session_store.domain.run import RunQuery, RunState
from session_store.domain.session import Session
from session_store.operations.opening import session_busy
from session_store.operations.ports import Storage, Tables

SWEEP_ROWS = 1000  # of one transaction: milliseconds, also with large rows
UNDER_WAY = frozenset({RunState.QUEUED, RunState.RUNNING, RunState.AWAITING_APPROVAL})


def delete(tables: Tables, session: Session) -> None:
    """Deletes a session. Raises SessionBusy unless all its runs have ended."""
    refuse_busy(tables, session)
    tables.sessions.delete(session.key)


def refuse_busy(tables: Tables, session: Session) -> None:
    """Raises SessionBusy unless all runs of the session have ended, also those that were cancelled before their turn."""
    if session.active_run_id:
        raise session_busy(session)
    for run in tables.runs.page(session.tenant, RunQuery(session.key, UNDER_WAY), None, 1):
        raise SessionBusy(
            f"run {run.id!r} of session {session.id!r} is about to end; try again in a moment",
            metadata={"session_id": session.id, "run_id": run.id},
        )


async def sweep(storage: Storage, now: float, publishes: bool) -> int:
    """Removes the rows of deleted sessions and of imports that were given up; returns how many.

    publishes: what was not published yet stays until it is.
    """

    def work(tables: Tables) -> int:
        published = published_up_to(tables.outbox.shards()) if publishes else None
        return tables.sessions.sweep(now, SWEEP_ROWS, published)

    removed = 0
    while count := await storage.write(work):
        removed += count
    return removed
