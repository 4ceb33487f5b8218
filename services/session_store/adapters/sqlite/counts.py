"""Sums over runs, and how a session that is deleted leaves its own behind."""

from __future__ import annotations

import sqlite3
from typing import Any

from session_store.adapters.usage_rows import usage
from session_store.domain.run import Place, RunState
from session_store.domain.statistics import DAY_SECONDS, DayUsage, RunSums, Selection
from session_store.domain.tally import Tally
from session_store.domain.usage import ModelUsage

_STATES = {state.value: state for state in RunState}
_DAY = f"CAST(runs.created_at / {DAY_SECONDS} AS INTEGER)"
_COUNTED = ("turns", "events", "messages", "tool_calls", "tool_executions", "tool_failures", "tool_unknown", "tool_micros")
_DEPARTED = ("runs", *_COUNTED, "run_micros", "queued_micros")
_COUNTS = ", ".join(f"sum(runs.{'sequence' if name == 'events' else name})" for name in _COUNTED)
_MICROS = "coalesce(sum(CAST(round((runs.{until} - runs.{since}) * 1e6) AS INTEGER)), 0)"
_RUN_SUMS = (
    f"count(*), {_COUNTS}, {_MICROS.format(since='started_at', until='ended_at')},"
    f" {_MICROS.format(since='created_at', until='started_at')}, min(runs.created_at), max(runs.ended_at)"
)
_SUMS_OF_RUNS = f"SELECT {_DAY} AS day, runs.state, {_RUN_SUMS} FROM runs"  # noqa: S608 — constants only
_SUMS_OF_DEPARTED = f"SELECT day, state, {', '.join(_DEPARTED)}, first_opened_at, last_ended_at FROM departed"  # noqa: S608 — constants only

_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nano_usd")
MERGE_USAGE = f"""ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in (*_TOKENS, "calls"))},
    cost_known = min(cost_known, excluded.cost_known)"""
SUMS_OF_USAGE = f"{', '.join(f'sum({name})' for name in _TOKENS)}, min(cost_known), sum(calls)"
_USAGE_BY_DAY = f"SELECT {_DAY} AS day, provider, model, {SUMS_OF_USAGE} FROM usage JOIN runs ON runs.key = usage.run"  # noqa: S608 — constants only
_USAGE_OF_DEPARTED = f"SELECT day, provider, model, {', '.join(_TOKENS)}, cost_known, calls FROM departed_usage"  # noqa: S608 — constants only

_LOCAL = f"runs.place <> {Place.IMPORTED.value}"
_NOBODY = "'/' || CAST(:key AS TEXT)"  # a tenant that no call can have
_OWNER = "(SELECT tenant FROM sessions WHERE key = :key)"

DELETE = (
    f"""INSERT INTO departed SELECT runs.tenant, {_DAY} AS day, runs.state, {_RUN_SUMS} FROM runs WHERE session = :key AND {_LOCAL}
        GROUP BY runs.tenant, day, runs.state
        ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in _DEPARTED)},
        first_opened_at = min(first_opened_at, excluded.first_opened_at),
        last_ended_at = max(coalesce(last_ended_at, excluded.last_ended_at), coalesce(excluded.last_ended_at, last_ended_at))""",  # noqa: S608 — constants only
    f"""INSERT INTO departed_usage SELECT usage.tenant, {_DAY} AS day, provider, model, {SUMS_OF_USAGE}
        FROM usage JOIN runs ON runs.key = usage.run WHERE usage.tenant = {_OWNER} AND usage.session = :key AND {_LOCAL}
        GROUP BY usage.tenant, day, provider, model {MERGE_USAGE}""",  # noqa: S608 — constants only
    f"DELETE FROM usage WHERE tenant = {_OWNER} AND session = :key",  # noqa: S608 — constants only
    "DELETE FROM held_messages WHERE run IN (SELECT key FROM runs WHERE session = :key)",
    "DELETE FROM requests WHERE session = :key",
    f"INSERT INTO hidden SELECT :key, {_NOBODY}, 0",
    f"UPDATE runs SET tenant = {_NOBODY} WHERE session = :key",  # noqa: S608 — constants only
    f"UPDATE sessions SET tenant = {_NOBODY} WHERE key = :key",  # noqa: S608 — constants only
)


class SqliteCounts:
    """Sums over runs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def of_runs(self, selection: Selection) -> list[RunSums]:
        """The runs' sums, and those of the departed."""
        where, values = _selected(selection)
        rows = self._execute(f"{_SUMS_OF_RUNS} WHERE runs.tenant = ? AND {where} GROUP BY day, runs.state", values).fetchall()
        if selection.whole_tenant:
            where, values = _departed(selection)
            rows += self._execute(f"{_SUMS_OF_DEPARTED} WHERE {where}", values)
        return [_run_sums(row) for row in rows]

    def of_usage(self, selection: Selection) -> list[DayUsage]:
        """The runs' usage, and that of the departed."""
        where, values = _selected(selection)
        rows = self._execute(f"{_USAGE_BY_DAY} WHERE usage.tenant = ? AND {where} GROUP BY day, provider, model", values).fetchall()
        if selection.whole_tenant:
            where, values = _departed(selection)
            rows += self._execute(f"{_USAGE_OF_DEPARTED} WHERE {where}", values)
        return [DayUsage(day, ModelUsage(provider, model, usage(*sums))) for day, provider, model, *sums in rows]


def _selected(selection: Selection) -> tuple[str, list[Any]]:
    """The conditions on runs besides their tenant, and the values of all, the tenant's first."""
    conditions = [_LOCAL] if selection.whole_tenant else []
    values: list[Any] = [selection.tenant]
    for column, value in (("runs.session = ?", selection.session_key), ("runs.key = ?", selection.run_key)):
        if value is not None:
            conditions.append(column)
            values.append(value)
    for column, day in (("runs.created_at >= ?", selection.since), ("runs.created_at < ?", selection.until)):
        if day is not None:
            conditions.append(column)
            values.append(day * DAY_SECONDS)
    return " AND ".join(conditions), values


def _departed(selection: Selection) -> tuple[str, list[Any]]:
    bounds = [(condition, day) for condition, day in (("day >= ?", selection.since), ("day < ?", selection.until)) if day is not None]
    return " AND ".join(["tenant = ?", *(condition for condition, _ in bounds)]), [selection.tenant, *(day for _, day in bounds)]


def _run_sums(row: tuple[Any, ...]) -> RunSums:
    day, state, runs, turns, events, *tally, run_micros, queued_micros, first, last = row
    return RunSums(day, _STATES[state], runs, turns, events, Tally(*tally), run_micros, queued_micros, first, last)
