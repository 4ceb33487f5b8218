"""Registered tools in SQLite: they outlive the process, and executors on the same file share them."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Collection
from typing import Any

from chassis.sqlite import Database
from tool_executor.domain.tool import Scope, Tool, Traits

_COLUMNS = "tenant, agent, run_id, name, description, parameters, function, timeout, traits, result_schema, strict"
_VERSION = "SELECT version FROM registrations_version"
_CHANGED = "UPDATE registrations_version SET version = version + 1"
_LOAD = f"SELECT {_COLUMNS} FROM registrations"  # noqa: S608 - constants
_SAVE = f"INSERT INTO registrations ({_COLUMNS}, used_at) VALUES ({', '.join('?' * 12)})"  # noqa: S608 - constants
_REMOVE = "DELETE FROM registrations WHERE tenant = ? AND agent = ? AND run_id = ? AND name = ?"
_TOUCH = "UPDATE registrations SET used_at = ? WHERE tenant = ? AND agent = '' AND run_id = ?"
_EXPIRE = "DELETE FROM registrations WHERE run_id != '' AND used_at < ?"


class SqliteRegistrations:
    """See the port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def version(self) -> int:
        """Changes with every change, by whichever executor."""
        return await self._database.read(_version)

    async def load(self) -> tuple[int, list[tuple[str, Tool]]]:
        """Every tool, and the version that this is."""
        return await self._database.read(_load)

    async def save(self, tenant: str, tool: Tool, at: float) -> bool:
        """Keeps the tool; returns whether it replaced one."""
        return await self._database.write(lambda connection: _save(connection, tenant, tool, at))

    async def remove(self, tenant: str, name: str, scope: Scope) -> bool:
        """Forgets the tool; returns whether there was one."""
        where = (tenant, scope.agent, scope.run_id, name)
        return await self._database.write(lambda connection: _delete(connection, _REMOVE, where)) > 0

    async def touch(self, runs: Collection[tuple[str, str]], at: float) -> None:
        """Notes that the tools of these runs were asked for."""
        rows = [(at, tenant, run_id) for tenant, run_id in runs]
        if rows:
            await self._database.write(lambda connection: connection.executemany(_TOUCH, rows).rowcount)

    async def expire(self, before: float) -> int:
        """Forgets the tools of runs that nobody asked for since then."""
        return await self._database.write(lambda connection: _delete(connection, _EXPIRE, (before,)))


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute(_VERSION).fetchone()[0])


def _load(connection: sqlite3.Connection) -> tuple[int, list[tuple[str, Tool]]]:
    return _version(connection), [(row[0], _tool(row)) for row in connection.execute(_LOAD)]


def _save(connection: sqlite3.Connection, tenant: str, tool: Tool, at: float) -> bool:
    scope = tool.scope
    replaced = connection.execute(_REMOVE, (tenant, scope.agent, scope.run_id, tool.name)).rowcount > 0
    traits = json.dumps(dataclasses.asdict(tool.traits))
    what = (tool.description, tool.parameters, tool.function, tool.timeout, traits, tool.result_schema, int(tool.strict), at)
    connection.execute(_SAVE, (tenant, scope.agent, scope.run_id, tool.name, *what))
    connection.execute(_CHANGED)
    return replaced


def _delete(connection: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> int:
    count = connection.execute(statement, values).rowcount
    if count:
        connection.execute(_CHANGED)
    return count


def _tool(row: tuple[Any, ...]) -> Tool:
    _, agent, run_id, name, description, parameters, function, timeout, traits, result_schema, strict = row
    return Tool(
        name=name,
        description=description,
        parameters=parameters,
        function=function,
        timeout=timeout,
        traits=Traits(**json.loads(traits)),
        result_schema=result_schema,
        strict=bool(strict),
        scope=Scope(agent, run_id),
    )
