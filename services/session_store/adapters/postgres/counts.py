"""Sums over runs, and how a session that is deleted leaves its own behind."""

from __future__ import annotations

from typing import Any

from chassis.postgres import Row, Statements
from session_store.adapters.usage_rows import usage
from session_store.domain.run import Place, RunState
from session_store.domain.statistics import DAY_SECONDS, DayUsage, RunSums, Selection
from session_store.domain.tally import Tally
from session_store.domain.usage import ModelUsage

_STATES = {state.value: state for state in RunState}
_DAY = f"floor(runs.created_at / {DAY_SECONDS})::bigint"
_COUNTED = ("turns", "events", "messages", "tool_calls", "tool_executions", "tool_failures", "tool_unknown", "tool_micros")
_DEPARTED = ("runs", *_COUNTED, "run_micros", "queued_micros")
_COUNTS = ", ".join(f"sum(runs.{'sequence' if name == 'events' else name})::bigint" for name in _COUNTED)
_MICROS = "coalesce(sum(round((runs.{until} - runs.{since}) * 1e6)), 0)::bigint"
_RUN_SUMS = (
    f"count(*), {_COUNTS}, {_MICROS.format(since='started_at', until='ended_at')},"
    f" {_MICROS.format(since='created_at', until='started_at')}, min(runs.created_at), max(runs.ended_at)"
)
_SUMS_OF_RUNS = f"SELECT {_DAY} AS day, runs.state, {_RUN_SUMS} FROM runs"  # noqa: S608 — constants only
_SUMS_OF_DEPARTED = f"SELECT day, state, {', '.join(_DEPARTED)}, first_opened_at, last_ended_at FROM departed"  # noqa: S608 — constants only

_NUMBERS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nano_usd")


def merge_usage(table: str, key: str) -> str:
    """Adds a row of usage to the one that is there."""
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in (*_NUMBERS, "calls"))
    return f"ON CONFLICT ({key}) DO UPDATE SET {sums}, cost_known = least({table}.cost_known, excluded.cost_known)"


SUMS_OF_USAGE = f"{', '.join(f'sum({name})::bigint' for name in _NUMBERS)}, min(cost_known), sum(calls)::bigint"
_USAGE_BY_DAY = f"SELECT {_DAY} AS day, provider, model, {SUMS_OF_USAGE} FROM usage JOIN runs ON runs.key = usage.run"  # noqa: S608 — constants only
_USAGE_OF_DEPARTED = f"SELECT day, provider, model, {', '.join(_NUMBERS)}, cost_known, calls FROM departed_usage"  # noqa: S608 — constants only

_LOCAL = f"runs.place <> {Place.IMPORTED.value}"
_NOBODY = "'/' || $1::bigint::text"  # a tenant that no call can have
_OWNER = "(SELECT tenant FROM sessions WHERE key = $1)"

DELETE = (
    f"""INSERT INTO departed SELECT runs.tenant, {_DAY} AS day, runs.state, {_RUN_SUMS} FROM runs WHERE session = $1 AND {_LOCAL}
        GROUP BY runs.tenant, day, runs.state
        ON CONFLICT (tenant, day, state) DO UPDATE SET {", ".join(f"{name} = departed.{name} + excluded.{name}" for name in _DEPARTED)},
        first_opened_at = least(departed.first_opened_at, excluded.first_opened_at),
        last_ended_at = greatest(departed.last_ended_at, excluded.last_ended_at)""",  # noqa: S608 — constants only
    f"""INSERT INTO departed_usage SELECT usage.tenant, {_DAY} AS day, provider, model, {SUMS_OF_USAGE}
        FROM usage JOIN runs ON runs.key = usage.run WHERE usage.tenant = {_OWNER} AND usage.session = $1 AND {_LOCAL}
        GROUP BY usage.tenant, day, provider, model {merge_usage("departed_usage", "tenant, day, provider, model")}""",  # noqa: S608 — constants only
    f"DELETE FROM usage WHERE tenant = {_OWNER} AND session = $1",  # noqa: S608 — constants only
    "DELETE FROM held_messages WHERE run IN (SELECT key FROM runs WHERE session = $1)",
    "DELETE FROM requests WHERE session = $1",
    f"INSERT INTO hidden (session, tenant, until) VALUES ($1, {_NOBODY}, 0)",  # noqa: S608 — constants only
    f"UPDATE runs SET tenant = {_NOBODY} WHERE session = $1",  # noqa: S608 — constants only
    f"UPDATE sessions SET tenant = {_NOBODY} WHERE key = $1",  # noqa: S608 — constants only
)


class PostgresCounts:
    """Sums over runs."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def of_runs(self, selection: Selection) -> list[RunSums]:
        """The runs' sums, and those of the departed."""
        where, values = _selected(selection)
        rows = list(self._statements.fetch(f"{_SUMS_OF_RUNS} WHERE runs.tenant = $1{where} GROUP BY day, runs.state", *values))
        if selection.whole_tenant:
            where, values = _departed(selection)
            rows += self._statements.fetch(f"{_SUMS_OF_DEPARTED} WHERE tenant = $1{where}", *values)
        return [_run_sums(row) for row in rows]

    def of_usage(self, selection: Selection) -> list[DayUsage]:
        """The runs' usage, and that of the departed."""
        where, values = _selected(selection)
        rows = list(self._statements.fetch(f"{_USAGE_BY_DAY} WHERE usage.tenant = $1{where} GROUP BY day, provider, model", *values))
        if selection.whole_tenant:
            where, values = _departed(selection)
            rows += self._statements.fetch(f"{_USAGE_OF_DEPARTED} WHERE tenant = $1{where}", *values)
        return [DayUsage(day, ModelUsage(provider, model, usage(*sums))) for day, provider, model, *sums in rows]


def _selected(selection: Selection) -> tuple[str, list[Any]]:
    """The conditions on runs besides their tenant, and the values of all, the tenant's first."""
    since, until = (None if day is None else float(day * DAY_SECONDS) for day in (selection.since, selection.until))
    bounds = (
        ("runs.session = {}", selection.session_key),
        ("runs.key = {}", selection.run_key),
        ("runs.created_at >= {}", since),
        ("runs.created_at < {}", until),
    )
    where, values = _all(selection, bounds)
    return (f" AND {_LOCAL}{where}" if selection.whole_tenant else where), values


def _departed(selection: Selection) -> tuple[str, list[Any]]:
    return _all(selection, (("day >= {}", selection.since), ("day < {}", selection.until)))


def _all(selection: Selection, bounds: tuple[tuple[str, Any], ...]) -> tuple[str, list[Any]]:
    values: list[Any] = [selection.tenant]
    where = ""
    for condition, value in bounds:
        if value is not None:
            values.append(value)
            where += f" AND {condition.format(f'${len(values)}')}"
    return where, values


def _run_sums(row: Row) -> RunSums:
    day, state, runs, turns, events, *tally, run_micros, queued_micros, first, last = row
    return RunSums(day, _STATES[state], runs, turns, events, Tally(*tally), run_micros, queued_micros, first, last)
