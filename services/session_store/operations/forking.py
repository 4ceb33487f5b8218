"""Forking a session: a new one with the same beginning."""

from __future__ import annotations

from dataclasses import replace

from session_store.domain.bounds import refuse
from session_store.domain.run import Order
from session_store.domain.session import Session
from session_store.operations.ports import Tables

MAX_FORKS = 100  # that are searched for an input; far more than one caller makes in a minute


def forked(order: Order) -> Order:
    """The order as it is carried out in the fork."""
    assert order.fork is not None
    entries = replace(order.entries, session_id=order.fork.session_id, data=order.fork.data)
    return replace(order, session_id=order.fork.session_id, entries=entries)


def refuse_taken(tables: Tables, order: Order) -> None:
    """Raises RequestInvalid when the fork's id is taken."""
    assert order.fork is not None
    if tables.sessions.find(order.tenant, order.fork.session_id) is not None:
        raise refuse("fork_session_id", f"{order.fork.session_id!r} exists; use a new one")


def fork_session(tables: Tables, origin: Session, order: Order, now: float) -> Session:
    """Makes a session of the messages that origin had before its active run began: whole exchanges, whatever that run has said by now."""
    assert order.fork is not None
    active = tables.runs.standing(order.tenant, origin.active_run_id)
    assert active is not None, "a session's active run exists"
    count = tables.messages.count_before(origin.key, active.key)
    fork = Session(
        tenant=order.tenant,
        id=order.fork.session_id,
        created_at=now,
        updated_at=now,
        title=origin.title,
        metadata=origin.metadata,
        message_count=count,
        forked_from=origin.id,
        forked_at=count,
    )
    fork = replace(fork, key=tables.sessions.add(fork))
    tables.messages.copy(origin.key, count, fork.key)
    return fork
