"""Claims and receipts as plain functions of a transaction's statements. The rules are domain/ledger.py; what keeps two executors from
reaching the same verdict is that the claim is an insert which waits for, and then sees, the other's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chassis.postgres import Statements
from tool_executor.adapters.postgres.rows import COLUMNS, END, RUNNING, arrays, execution_of, stored, unnest
from tool_executor.domain.execution import Execution
from tool_executor.domain.ledger import LEASE_SECONDS, Standing, Verdict, judge
from tool_executor.domain.sightings import Sightings

T = TypeVar("T")
Where = tuple[str, str]

_ALL = tuple(COLUMNS.split(", "))
_OWNED = ("tenant", "key", "instance", "attempt")
_ENDED = ", ".join(f"{column} = e.{column}" for column in END)
_HERE = "x.tenant = e.tenant AND x.key = e.key"

# S608: all of these are put together from constants.
_ADD = (
    f"INSERT INTO executions ({COLUMNS}) SELECT * FROM {unnest(*_ALL)} ON CONFLICT (tenant, key) DO NOTHING RETURNING tenant, key, instance"  # noqa: S608
)
_FIND = f"SELECT x.* FROM executions x JOIN {unnest('tenant', 'key')} AS e (tenant, key) ON {_HERE}"  # noqa: S608
_LOCK = f"{_FIND} ORDER BY x.tenant, x.key FOR UPDATE OF x"
_LEASES = "SELECT instance, alive_until FROM executors WHERE instance = ANY ($1::text[])"
_TAKE_OVER = f"""
    UPDATE executions x SET instance = e.instance, started_at = e.started_at, attempt = e.attempt, tool_version = e.tool_version
    FROM {unnest(*_OWNED, "started_at", "tool_version")} AS e ({", ".join(_OWNED)}, started_at, tool_version) WHERE {_HERE}
"""  # noqa: S608
_END_ANY = f"""
    UPDATE executions x SET {_ENDED} FROM {unnest("tenant", "key", *END)} AS e (tenant, key, {", ".join(END)})
    WHERE {_HERE} AND x.status = {RUNNING}
"""  # noqa: S608
_END_OWN = f"""
    UPDATE executions x SET {_ENDED} FROM {unnest(*_OWNED, *END)} AS e ({", ".join((*_OWNED, *END))})
    WHERE {_HERE} AND x.status = {RUNNING} AND x.instance = e.instance AND x.attempt = e.attempt RETURNING x.tenant, x.key
"""  # noqa: S608
RENEW = """
    INSERT INTO executors VALUES ($1, $2)
    ON CONFLICT (instance) DO UPDATE SET alive_until = greatest(executors.alive_until, excluded.alive_until)
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that asks what it may do. `own_claim` is when this process claimed it without hearing whether that was committed."""

    execution: Execution
    claim: bool
    own_claim: float | None = None


def look(statements: Statements, sightings: Sightings, asked: Sequence[Execution]) -> list[Standing]:
    """What each call may do, as of now."""
    held = _held(statements, _FIND, asked)
    return _judged(statements, sightings, [Asked(execution, False) for execution in asked], held)


def begin(statements: Statements, sightings: Sightings, asked: Sequence[Asked]) -> list[Standing]:
    """What each call may do, applied in this transaction."""
    first, rest = _first_of_each(asked)
    standings = dict(zip(map(_where_of, first), _begin_different(statements, sightings, first), strict=True))
    later = iter(begin(statements, sightings, rest) if rest else ())
    answered = {id(one) for one in first}
    return [standings[_where_of(one)] if id(one) in answered else next(later) for one in asked]


def finish(statements: Statements, ended: Sequence[Execution]) -> list[Execution]:
    """Keeps the receipts of those that still own their claim; what is remembered of each, the first receipt wins."""
    ordered = sorted(ended, key=_where)
    kept = {_at(row) for row in statements.fetch(_END_OWN, *arrays(ordered, *_OWNED, *END))}
    lost = [execution for execution in ended if _stored_where(execution) not in kept]
    held = _held(statements, _FIND, lost) if lost else {}
    return [_remembered(execution, held.get(_where(execution))) for execution in ended]


def add(statements: Statements, executions: Sequence[Execution]) -> set[tuple[str, str, str]]:
    """Keeps those whose key has no record, and returns their tenants, keys and instances as stored."""
    return {(row["tenant"], row["key"], row["instance"]) for row in statements.fetch(_ADD, *arrays(sorted(executions, key=_where)))}


def _begin_different(statements: Statements, sightings: Sightings, asked: Sequence[Asked]) -> list[Standing]:
    claims = [one.execution for one in asked if one.claim]
    begun = {where[:2] for where in add(statements, claims)} if claims else set()
    others = [one for one in asked if not one.claim or _stored_where(one.execution) not in begun]
    held = _held(statements, _LOCK, [one.execution for one in others]) if others else {}
    judged = dict(zip(map(_where_of, others), _judged(statements, sightings, others, held), strict=True))
    standings = [judged.get(_where_of(one)) or Standing(Verdict.BEGIN, one.execution) for one in asked]
    _apply(
        statements, [standing for one, standing in zip(asked, standings, strict=True) if one.claim or standing.verdict is not Verdict.BEGIN]
    )
    return standings


def _apply(statements: Statements, standings: Iterable[Standing]) -> None:
    by_verdict: dict[Verdict, list[Execution]] = {}
    for standing in standings:
        by_verdict.setdefault(standing.verdict, []).append(standing.execution)
    if taken := by_verdict.get(Verdict.TAKE_OVER):
        statements.execute(_TAKE_OVER, *arrays(taken, *_OWNED, "started_at", "tool_version"))
    if unknown := by_verdict.get(Verdict.UNKNOWN):
        statements.execute(_END_ANY, *arrays(unknown, "tenant", "key", *END))
    leases: dict[str, float] = {}
    for execution in (*by_verdict.get(Verdict.BEGIN, ()), *by_verdict.get(Verdict.TAKE_OVER, ())):
        leases[execution.instance] = max(leases.get(execution.instance, 0.0), execution.started_at + LEASE_SECONDS)
    statements.executemany(RENEW, sorted(leases.items()))


def _judged(statements: Statements, sightings: Sightings, asked: Sequence[Asked], held: dict[Where, Execution]) -> list[Standing]:
    instances = sorted({execution.instance for execution in held.values() if execution.result is None})
    leases = {row["instance"]: float(row["alive_until"]) for row in statements.fetch(_LEASES, instances)} if instances else {}
    return [_judge(one, held.get(_where_of(one)), leases, sightings) for one in asked]


def _judge(asked: Asked, held: Execution | None, leases: dict[str, float], sightings: Sightings) -> Standing:
    execution = asked.execution
    if held is not None and held.result is None and held.instance == execution.instance and held.started_at == asked.own_claim:
        return Standing(Verdict.BEGIN if held.call == execution.call else Verdict.REUSED, held)
    lives = held is not None and sightings.lives(held.instance, leases.get(held.instance), execution.started_at)
    return judge(execution, held, lives)


def _held(statements: Statements, sql: str, executions: Sequence[Execution]) -> dict[Where, Execution]:
    found = map(execution_of, statements.fetch(sql, *arrays(executions, "tenant", "key")))
    return {_where(execution): execution for execution in found}


def _remembered(ended: Execution, held: Execution | None) -> Execution:
    return held if held is not None and held.result is not None else ended


def _first_of_each(asked: Sequence[Asked]) -> tuple[list[Asked], list[Asked]]:
    """Those that ask for different keys, and those that ask for one of these keys once more."""
    first: dict[Where, Asked] = {}
    rest = [one for one in asked if first.setdefault(_where_of(one), one) is not one]
    return list(first.values()), rest


def _where(execution: Execution) -> Where:
    return execution.tenant, execution.key


def _where_of(asked: Asked) -> Where:
    return _where(asked.execution)


def _stored_where(execution: Execution) -> Where:
    return execution.tenant, stored(execution.key)


def _at(row: object) -> Where:
    return row["tenant"], row["key"]  # type: ignore[index]
