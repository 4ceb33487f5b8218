"""Caps in PostgreSQL, exact over all replicas.

A settling locks the rows of its budgets in one order, decides by the rule of domain/allowance.py, and writes. It says how things stand in
absolute numbers, so one that was made and whose answer was lost may come again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from typing import TypeVar
from urllib.parse import quote

from chassis.postgres import Database, DatabaseClock, Row, Statements
from provider_gateway.domain import allowance
from provider_gateway.domain.allowance import Claim, Grant
from provider_gateway.domain.budgets import Bucket, Totals
from provider_gateway.operations.bank import Standing

T = TypeVar("T")

ALIVE_SECONDS = 30.0
"""A replica that was not seen for so long is gone, and what it was granted counts as spent."""

KEPT_SECONDS = 86_400
"""How long windows that are over are kept: to be looked at, and for the last reports of calls that began in them."""

PURGED_AT_ONCE = 1000
MOST_STANDINGS = 10_000

_ALIVE = "INSERT INTO gateway_replicas VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET seen_at = now()"
_OPEN = """
    INSERT INTO budgets (id, name, tenant, key, model, unit, period, start)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::bigint[], $8::bigint[])
    ORDER BY 1 ON CONFLICT (id) DO NOTHING
"""
_LOCK = "SELECT id, granted, spent, held FROM budgets WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE"
_OWN = "SELECT id, granted, spent, held FROM allowances WHERE id = ANY ($1::text[])"
_TOTALS = """
    UPDATE budgets b SET granted = a.granted, spent = a.spent, held = a.held
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS a (id, granted, spent, held) WHERE b.id = a.id
"""
_KEEP = """
    INSERT INTO allowances (id, budget, replica, tenant, granted, spent, held)
    SELECT a.id, a.budget, $1, a.tenant, a.granted, a.spent, a.held
    FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
        AS a (id, budget, tenant, granted, spent, held)
    ON CONFLICT (id) DO UPDATE SET granted = excluded.granted, spent = excluded.spent, held = excluded.held
"""
_DROP = "DELETE FROM allowances WHERE id = ANY ($1::text[])"
# Who buries a replica holds its row, and so does who settles for it: the two wait for each other.
_GONE = """
    DELETE FROM gateway_replicas WHERE id IN (SELECT id FROM gateway_replicas
        WHERE seen_at < now() - make_interval(secs => $1) ORDER BY id LIMIT 16 FOR UPDATE SKIP LOCKED) RETURNING id
"""
_LEFT = "SELECT id, budget, granted, spent, held FROM allowances WHERE replica = ANY ($1::text[])"
_PURGE = """
    WITH old AS (SELECT id FROM budgets WHERE period > 0 AND start + period < extract(epoch FROM now()) - $1
            ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED),
        gone AS (DELETE FROM allowances a USING old WHERE a.budget = old.id)
    DELETE FROM budgets b USING old WHERE b.id = old.id
"""
_STANDINGS = """
    SELECT name, tenant, key, model, unit, period, start, granted, spent, held FROM budgets
    WHERE tenant IN ($1, '') AND (period = 0 OR start + period > $2) ORDER BY name, tenant, key, model LIMIT $3
"""


class PostgresBank:
    """See the port. `replica` names this process."""

    shared = True

    def __init__(self, database: Database, clock: DatabaseClock, replica: str) -> None:
        self._database, self._clock, self._replica = database, clock, replica

    async def settle(self, claims: Sequence[Claim]) -> Sequence[Grant]:
        """Grants what there is."""
        return await self._write(lambda statements: _settle(statements, self._replica, claims))

    async def tend(self) -> None:
        """Lives, buries and forgets."""
        await self._write(lambda statements: _tend(statements, self._replica))

    async def standings(self, tenant: str) -> Sequence[Standing]:
        """The tenant's buckets."""
        rows = await self._database.read(lambda statements: statements.fetch(_STANDINGS, tenant, self.now(), MOST_STANDINGS), tenant)
        return [Standing(_bucket(row), Totals(row["granted"], row["spent"], row["held"])) for row in rows]

    def now(self) -> float:
        """The database's time."""
        return self._clock.now()

    async def _write(self, work: Callable[[Statements], T]) -> T:
        return await self._database.write(work)


def _settle(statements: Statements, replica: str, claims: Sequence[Claim]) -> Sequence[Grant]:
    ids = [_id(claim.bucket) for claim in claims]
    statements.execute(_ALIVE, replica)
    if fresh := {_id(claim.bucket): claim.bucket for claim in claims if not claim.known}:
        statements.execute(_OPEN, *_columns([(key, *_fields(bucket)) for key, bucket in fresh.items()]))
    totals = _locked(statements, sorted(set(ids)))
    own = {row["id"]: _row(row) for row in statements.fetch(_OWN, [claim.id for claim in claims])}
    grants, kept, dropped = list[Grant](), list[tuple[object, ...]](), list[str]()
    for key, claim in zip(ids, claims, strict=True):
        if key not in totals:  # purged: its window is long over
            grants.append(Grant(None, Totals()))
            continue
        row, totals[key] = allowance.grant(claim, own.get(claim.id), totals[key])
        grants.append(Grant(None if row is None else row.granted, totals[key]))
        if row is not None:
            kept.append((claim.id, key, claim.bucket.tenant, *astuple(row)))
        elif claim.id in own:
            dropped.append(claim.id)
    _write_totals(statements, totals)
    if kept:
        statements.execute(_KEEP, replica, *_columns(kept))
    if dropped:
        statements.execute(_DROP, dropped)
    return grants


def _tend(statements: Statements, replica: str) -> None:
    statements.execute(_ALIVE, replica)
    if gone := [row["id"] for row in statements.fetch(_GONE, ALIVE_SECONDS)]:
        _bury(statements, gone)
    statements.execute(_PURGE, KEPT_SECONDS, PURGED_AT_ONCE)


def _bury(statements: Statements, replicas: Sequence[str]) -> None:
    left = statements.fetch(_LEFT, replicas)
    totals = _locked(statements, sorted({row["budget"] for row in left}))
    for row in left:
        if row["budget"] in totals:
            totals[row["budget"]] = allowance.bury(_row(row), totals[row["budget"]])
    _write_totals(statements, totals)
    statements.execute(_DROP, [row["id"] for row in left])


def _locked(statements: Statements, ids: Sequence[str]) -> dict[str, Totals]:
    return {row["id"]: Totals(row["granted"], row["spent"], row["held"]) for row in statements.fetch(_LOCK, ids)} if ids else {}


def _write_totals(statements: Statements, totals: dict[str, Totals]) -> None:
    if totals:
        statements.execute(_TOTALS, *_columns([(key, *astuple(value)) for key, value in totals.items()]))


def _row(row: Row) -> allowance.Row:
    return allowance.Row(row["granted"], row["spent"], row["held"])


def _columns(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _fields(bucket: Bucket) -> tuple[object, ...]:
    return bucket.name, bucket.tenant, bucket.key, bucket.model, bucket.unit, bucket.window, bucket.start


def _bucket(row: Row) -> Bucket:
    return Bucket(row["name"], row["tenant"], row["key"], row["model"], row["unit"], row["period"], row["start"])


def _id(bucket: Bucket) -> str:
    """One text for all that tells buckets apart."""
    return "/".join(quote(str(value), safe="") for value in _fields(bucket))
