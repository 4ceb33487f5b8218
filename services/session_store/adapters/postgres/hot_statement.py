"""The one statement that writes a group of appends: everything or, when a row is not what it was taken for, nothing.

Its first part takes the row of the counters and every other part waits for that one. The last part divides by zero unless each run and
session was found as expected, which undoes all of it. A run's sequence only grows, so the statement can never take effect twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields
from functools import cache
from typing import Any

from session_store.adapters.postgres.hints import CHANNEL
from session_store.adapters.postgres.hot_rows import Draft
from session_store.adapters.postgres.ledgers import MERGE_USAGE, USAGE_COLUMNS
from session_store.adapters.usage_rows import usage_values
from session_store.domain.run import RunPatch
from session_store.domain.tally import NOTHING, Tally
from session_store.domain.usage import ModelUsage

Columns = tuple[tuple[str, str], ...]

# What is expected of a run, which is everything that decides about an append (domain.run.Standing), and what it becomes.
_WISH: Columns = (
    ("key", "bigint"),
    ("sequence", "bigint"),
    ("driver", "text"),
    ("epoch", "bigint"),
    ("state", "smallint"),
    ("place", "smallint"),
    ("last", "bigint"),
    ("data", "bytea"),
)
_PATCH: Columns = (("new_state", "smallint"), ("usage", "bytea"), ("turns", "bigint"), ("fault", "bytea"), ("output_message_id", "text"))
_TALLY: Columns = tuple((field.name, "bigint") for field in fields(Tally))
_GROWN: Columns = (("session", "bigint"), ("before", "bigint"), ("count", "bigint"), ("moment", "float8"))
_MESSAGE: Columns = (
    ("tenant", "text"),
    ("session", "bigint"),
    ("position", "bigint"),
    ("id", "text"),
    ("run", "bigint"),
    ("created_at", "float8"),
    ("body", "bytea"),
)
_USAGE_TYPES = dict.fromkeys(("tenant", "provider", "model"), "text")
_USAGE: Columns = tuple((name, _USAGE_TYPES.get(name, "bigint")) for name in USAGE_COLUMNS.split(", "))
_NO_PATCH = RunPatch()


def build(drafts: Sequence[Draft], hints: str) -> tuple[str, list[Any]]:
    """The statement for these drafts and its values; it returns the last number before theirs."""
    patched = any(draft.patch != _NO_PATCH for draft in drafts)
    counted = any(draft.tally != NOTHING for draft in drafts)
    grown = [draft for draft in drafts if draft.messages]
    used = [draft for draft in drafts if draft.usage]
    wishes = (_wish_row(draft, patched, counted) for draft in drafts)
    args: list[Any] = [len(drafts), hints, *(next(wishes) if len(drafts) == 1 else _columns(wishes))]
    if grown:
        args += _columns((d.run.standing.session_key, d.run.message_count, len(d.messages), d.moment) for d in grown)
        args += _columns(row for draft in grown for row in _message_rows(draft))
    if used:
        args += _columns(row for draft in used for row in _usage_rows(draft))
    return _statement(len(drafts) == 1, patched, counted, bool(grown), bool(used)), args


def _wish_row(draft: Draft, patched: bool, counted: bool) -> tuple[Any, ...]:
    now = draft.run.standing
    row = (now.key, now.sequence, now.driver_id, now.epoch, now.state.value, now.place.value, draft.last, draft.data)
    if patched:
        patch = draft.patch
        state = None if patch.state is None else patch.state.value
        row = (*row, state, patch.usage, patch.turns, patch.fault, patch.output_message_id)  # type: ignore[assignment]
    return (*row, *astuple(draft.tally)) if counted else row


def _message_rows(draft: Draft) -> Iterator[tuple[Any, ...]]:
    run, standing = draft.run, draft.run.standing
    for position, message in enumerate(draft.messages, run.message_count + 1):
        yield (run.tenant, standing.session_key, position, message.id, standing.key, draft.moment, message.body)


def _usage_rows(draft: Draft) -> Iterator[tuple[Any, ...]]:
    standing, sums = draft.run.standing, dict[tuple[str, str], ModelUsage]()
    for row in draft.usage:
        before = sums.get((row.provider, row.model))
        sums[row.provider, row.model] = row if before is None else ModelUsage(row.provider, row.model, before.usage + row.usage)
    for row in sums.values():
        yield (draft.run.tenant, standing.session_key, standing.key, row.provider, row.model, *usage_values(row.usage))


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


class _Places:
    """Numbers the places of values, as they are named."""

    def __init__(self) -> None:
        self._last = 0

    def one(self, type_: str) -> str:
        self._last += 1
        return f"${self._last}::{type_}"

    def row(self, name: str, columns: Columns) -> str:
        """A table of one row with the ordinal 1."""
        values = ", ".join(self.one(type_) for _, type_ in columns)
        return f"(VALUES ({values}, 1)) AS {name} ({', '.join(column for column, _ in columns)}, ordinal)"

    def rows(self, name: str, columns: Columns) -> str:
        """A table made of one array for each column, with ordinals from 1."""
        arrays = ", ".join(self.one(f"{type_}[]") for _, type_ in columns)
        return f"unnest({arrays}) WITH ORDINALITY AS {name} ({', '.join(column for column, _ in columns)}, ordinal)"


@cache
def _statement(single: bool, patched: bool, counted: bool, grows: bool, used: bool) -> str:
    places = _Places()
    count, hints = places.one("bigint"), places.one("text")
    columns = _WISH + (_PATCH if patched else ()) + (_TALLY if counted else ())
    wish = places.row("wish", columns) if single else places.rows("wish", columns)
    sets = (_SET_PATCH if patched else "") + (_ADD_TALLY if counted else "")
    parts = [_COUNTER.format(count=count), _RUN.format(wish=wish, sets=sets), _BATCH]
    guard = f"(SELECT count(*) FROM batch) = {count}"  # noqa: S608 — constants only
    if grows:
        parts += [_GROWS.format(rows=places.rows("g", _GROWN)), _GROWTH, _MESSAGES.format(rows=places.rows("m", _MESSAGE))]
        guard += " AND (SELECT count(*) FROM growth) = (SELECT count(*) FROM grows)"
    if used:
        parts.append(_USED.format(rows=places.rows("u", _USAGE)))
    notified = f"CASE {hints} WHEN '' THEN NULL ELSE pg_notify('{CHANNEL}', counter.before || ' ' || {hints}) END"
    return f"WITH {', '.join(parts)} SELECT counter.before, 1 / ({guard})::int, {notified} FROM counter"  # noqa: S608 — constants only


_SET_PATCH = """, state = coalesce(wish.new_state, runs.state), usage = coalesce(wish.usage, runs.usage),
    turns = coalesce(wish.turns, runs.turns), fault = coalesce(wish.fault, runs.fault),
    output_message_id = coalesce(wish.output_message_id, runs.output_message_id)"""
_ADD_TALLY = "".join(f", {name} = runs.{name} + wish.{name}" for name, _ in _TALLY)

_COUNTER = "counter AS (UPDATE counters SET last_number = last_number + {count} WHERE one RETURNING last_number - {count} AS before)"
_RUN = """run AS (UPDATE runs SET sequence = wish.last{sets} FROM counter CROSS JOIN {wish}
    WHERE runs.key = wish.key AND runs.sequence = wish.sequence AND runs.driver = wish.driver AND runs.epoch = wish.epoch
        AND runs.state = wish.state AND runs.place = wish.place
    RETURNING counter.before + wish.ordinal AS number,
        runs.tenant, runs.session, runs.key, wish.sequence + 1 AS first, wish.last, wish.data)"""
_BATCH = """batch AS (INSERT INTO batches (number, tenant, session, run, first, last, data)
    SELECT number, tenant, session, key, first, last, data FROM run RETURNING 1)"""
_GROWS = "grows AS (SELECT * FROM {rows})"
_GROWTH = """growth AS (UPDATE sessions SET message_count = grows.before + grows.count, updated_at = grows.moment
    FROM counter CROSS JOIN grows WHERE sessions.key = grows.session AND sessions.message_count = grows.before RETURNING 1)"""
_MESSAGES = f"""message AS (INSERT INTO messages ({", ".join(name for name, _ in _MESSAGE)})
    SELECT {", ".join(f"m.{name}" for name, _ in _MESSAGE)} FROM counter CROSS JOIN {{rows}})"""  # noqa: S608 — constants only
_USED = f"""used AS (INSERT INTO usage ({USAGE_COLUMNS})
    SELECT {", ".join(f"u.{name}" for name, _ in _USAGE)} FROM counter CROSS JOIN {{rows}} {MERGE_USAGE})"""  # noqa: S608 — constants only
