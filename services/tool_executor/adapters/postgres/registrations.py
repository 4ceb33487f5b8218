"""Registered tools in PostgreSQL: all executors share them, and hear of a change at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection

from chassis.postgres import Database, Row, Statements
from tool_executor.adapters.postgres.writing import tell, write
from tool_executor.domain.tool import Scope, Tool, Traits

_COLUMNS = "tenant, agent, run_id, name, description, parameters, function, timeout, traits, result_schema, strict"
_VERSION = "SELECT version FROM registrations_version"
_CHANGED = "UPDATE registrations_version SET version = version + 1"
_LOAD = f"SELECT {_COLUMNS} FROM registrations"  # noqa: S608 - constants
_SAVE = f"""
    INSERT INTO registrations ({_COLUMNS}, used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (tenant, agent, run_id, name) DO UPDATE SET description = excluded.description, parameters = excluded.parameters,
        function = excluded.function, timeout = excluded.timeout, traits = excluded.traits, result_schema = excluded.result_schema,
        strict = excluded.strict, used_at = excluded.used_at
    RETURNING xmax <> 0 AS replaced
"""  # noqa: S608 - constants
_REMOVE = "DELETE FROM registrations WHERE tenant = $1 AND agent = $2 AND run_id = $3 AND name = $4 RETURNING 1"
_TOUCH = "UPDATE registrations SET used_at = $3 WHERE tenant = $1 AND agent = '' AND run_id = $2"
_EXPIRE = "DELETE FROM registrations WHERE run_id <> '' AND used_at < $1 RETURNING 1"


class PostgresRegistrations:
    """See the port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def version(self) -> int:
        """Changes with every change, by whichever executor."""
        return await self._database.read(_version)

    async def load(self) -> tuple[int, list[tuple[str, Tool]]]:
        """Every tool, and the version that this is."""
        return await self._database.read(
            lambda statements: (_version(statements), [(row[0], _tool(row)) for row in statements.fetch(_LOAD)])
        )

    async def save(self, tenant: str, tool: Tool, at: float) -> bool:
        """Keeps the tool; returns whether it replaced one."""
        return await write(self._database, lambda statements: _save(statements, tenant, tool, at))

    async def remove(self, tenant: str, name: str, scope: Scope) -> bool:
        """Forgets the tool; returns whether there was one."""
        where = (tenant, scope.agent, scope.run_id, name)
        return await write(self._database, lambda statements: _delete(statements, _REMOVE, *where)) > 0

    async def touch(self, runs: Collection[tuple[str, str]], at: float) -> None:
        """Notes that the tools of these runs were asked for."""
        if runs:
            rows = [(tenant, run_id, at) for tenant, run_id in sorted(runs)]
            await write(self._database, lambda statements: statements.executemany(_TOUCH, rows))

    async def expire(self, before: float) -> int:
        """Forgets the tools of runs that nobody asked for since then."""
        return await write(self._database, lambda statements: _delete(statements, _EXPIRE, before))


def _version(statements: Statements) -> int:
    return int(statements.fetch(_VERSION)[0][0])


def _save(statements: Statements, tenant: str, tool: Tool, at: float) -> bool:
    where = (tenant, tool.scope.agent, tool.scope.run_id, tool.name)
    traits = json.dumps(dataclasses.asdict(tool.traits))
    what = (tool.description, tool.parameters, tool.function, tool.timeout, traits, tool.result_schema, tool.strict, at)
    replaced = bool(statements.fetch(_SAVE, *where, *what)[0]["replaced"])
    _changed(statements)
    return replaced


def _delete(statements: Statements, sql: str, *values: object) -> int:
    count = len(statements.fetch(sql, *values))
    if count:
        _changed(statements)
    return count


def _changed(statements: Statements) -> None:
    statements.execute(_CHANGED)
    tell(statements)


def _tool(row: Row) -> Tool:
    return Tool(
        name=row["name"],
        description=row["description"],
        parameters=row["parameters"],
        function=row["function"],
        timeout=row["timeout"],
        traits=Traits(**json.loads(row["traits"])),
        result_schema=row["result_schema"],
        strict=row["strict"],
        scope=Scope(row["agent"], row["run_id"]),
    )
