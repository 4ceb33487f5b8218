"""Registered tools in memory: they are gone with the process."""

from __future__ import annotations

from collections.abc import Collection

from tool_executor.domain.tool import Scope, Tool

Where = tuple[str, Scope, str]


class MemoryRegistrations:
    """See the port."""

    def __init__(self) -> None:
        self._version = 0
        self._tools: dict[Where, Tool] = {}
        self._used_at: dict[Where, float] = {}

    async def version(self) -> int:
        """Changes with every change."""
        return self._version

    async def load(self) -> tuple[int, list[tuple[str, Tool]]]:
        """Every tool, and the version that this is."""
        return self._version, [(tenant, tool) for (tenant, _, _), tool in self._tools.items()]

    async def save(self, tenant: str, tool: Tool, at: float) -> bool:
        """Keeps the tool; returns whether it replaced one."""
        where = (tenant, tool.scope, tool.name)
        replaced = where in self._tools
        self._tools[where], self._used_at[where] = tool, at
        self._version += 1
        return replaced

    async def remove(self, tenant: str, name: str, scope: Scope) -> bool:
        """Forgets the tool; returns whether there was one."""
        return self._forget([(tenant, scope, name)]) > 0

    async def touch(self, runs: Collection[tuple[str, str]], at: float) -> None:
        """Notes that the tools of these runs were asked for."""
        for where in self._tools:
            if where[1].run_id and (where[0], where[1].run_id) in runs:
                self._used_at[where] = at

    async def expire(self, before: float) -> int:
        """Forgets the tools of runs that nobody asked for since then."""
        return self._forget([where for where, used_at in self._used_at.items() if where[1].run_id and used_at < before])

    def _forget(self, places: list[Where]) -> int:
        gone = [where for where in places if self._tools.pop(where, None) is not None]
        for where in gone:
            del self._used_at[where]
        self._version += bool(gone)
        return len(gone)
