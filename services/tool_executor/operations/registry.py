"""The tools that can be called, by tenant and scope. Changes take effect with the next call; nothing is run here."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from chassis.faults import RequestInvalid, ToolInvalid, ToolNotFound, ToolsExhausted, Violation
from tool_executor.domain.tool import GLOBAL, Scope, Tool
from tool_executor.operations.ports import Check, Function, Schemas

Names = dict[str, "Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool with what is needed to run it."""

    tool: Tool
    function: Function
    arguments: Check
    result: Check | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many registered tools are kept."""

    per_tenant: int = 1000
    total: int = 20_000


class Registry:
    """Tools from the operator, seen by all tenants, and those that tenants registered, seen by them alone."""

    def __init__(self, functions: Iterable[Function], schemas: Schemas, bounds: Bounds) -> None:
        self._schemas = schemas
        self._bounds = bounds
        self._functions: dict[str, Function] = {f.tool.function: f for f in functions}
        self._configured: Names = {f.tool.name: self._entry(f.tool, f) for f in self._functions.values()}
        self._tenants: dict[str, dict[Scope, Names]] = {}
        self._counts: Counter[str] = Counter()
        self._used_runs: set[tuple[str, str]] = set()

    @property
    def functions(self) -> Mapping[str, Function]:
        """Every function that a tool may stand for, by reference."""
        return self._functions

    def look_up(self, tenant: str, name: str, scope: Scope) -> Entry | None:
        """The innermost tool of that name seen from the scope, None when there is none."""
        for layer in self._layers(tenant, scope):
            if name in layer:
                return layer[name]
        return None

    def get(self, tenant: str, name: str, scope: Scope) -> Tool:
        """The tool; raises ToolNotFound that names the nearest ones."""
        entry = self.look_up(tenant, name, scope)
        if entry is None:
            nearest = ", ".join(self.nearest(tenant, name, scope)) or "none is like it; list them with ListTools"
            raise ToolNotFound(f"no tool {name!r} is seen from here; nearest: {nearest}", metadata={"tool": name})
        return entry.tool

    def visible(self, tenant: str, scope: Scope) -> dict[str, Tool]:
        """Every tool seen from the scope, by name, inner ones shadowing outer ones."""
        seen: dict[str, Tool] = {}
        for layer in reversed(list(self._layers(tenant, scope))):
            seen.update((name, entry.tool) for name, entry in layer.items())
        return seen

    def nearest(self, tenant: str, name: str, scope: Scope, allowed: frozenset[str] | None = None) -> list[str]:
        """Up to three names that look like this one, of tools that are seen and allowed."""
        names = [n for n in self.visible(tenant, scope) if allowed is None or n in allowed]
        return difflib.get_close_matches(name[:100], names, n=3, cutoff=0.5)

    def prepare(self, tenant: str, tool: Tool) -> Entry:
        """The tool ready to be put here; raises ToolInvalid for a schema that cannot be used, ToolsExhausted when there is no room."""
        entry = self._entry(tool, self.function(tool.function))
        if tool.name not in self._tenants.get(tenant, {}).get(tool.scope, {}):
            self._require_room(tenant, tool)
        return entry

    def put(self, tenant: str, entry: Entry) -> None:
        """Adds the tool, or replaces the one of that name and scope."""
        names = self._tenants.setdefault(tenant, {}).setdefault(entry.tool.scope, {})
        self._counts[tenant] += entry.tool.name not in names
        names[entry.tool.name] = entry

    def discard(self, tenant: str, name: str, scope: Scope) -> None:
        """Removes a registered tool if it is there."""
        shelves = self._tenants.get(tenant, {})
        if name not in shelves.get(scope, {}):
            return
        del shelves[scope][name]
        self._counts[tenant] -= 1
        if not shelves[scope]:
            del shelves[scope]
        if not shelves:
            del self._tenants[tenant], self._counts[tenant]

    def replace_all(self, tools: Iterable[tuple[str, Tool]]) -> list[str]:
        """Holds exactly these registered tools from now on; returns what had to be left out, and why."""
        before, self._tenants, self._counts = self._tenants, {}, Counter()
        left_out = []
        for tenant, tool in tools:
            held = before.get(tenant, {}).get(tool.scope, {}).get(tool.name)
            try:
                self.put(tenant, held if held and held.tool == tool else self._entry(tool, self.function(tool.function)))
            except ToolInvalid as fault:
                left_out.append(f"{tool.name} of tenant {tenant}: {fault.message}")
        return left_out

    def take_used_runs(self) -> set[tuple[str, str]]:
        """The tenants and runs whose own tools were asked for since the last time."""
        used, self._used_runs = self._used_runs, set()
        return used

    def function(self, reference: str) -> Function:
        """The operator's function of that reference; raises ToolInvalid that names the nearest."""
        if reference in self._functions:
            return self._functions[reference]
        nearest = difflib.get_close_matches(reference[:200], self._functions, n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        message = f"tool.function {reference[:200]!r} is not one of the operator's functions{hint}"
        raise ToolInvalid(message, violations=(Violation("tool.function", message),))

    def _layers(self, tenant: str, scope: Scope) -> Iterator[Names]:
        shelves = self._tenants.get(tenant)
        if shelves:
            if scope.run_id and (names := shelves.get(Scope(run_id=scope.run_id))):
                self._used_runs.add((tenant, scope.run_id))
                yield names
            if scope.agent and (names := shelves.get(Scope(agent=scope.agent))):
                yield names
            if names := shelves.get(GLOBAL):
                yield names
        yield self._configured

    def _entry(self, tool: Tool, function: Function) -> Entry:
        result = self._schemas.compile(tool.result_schema, "tool.result_schema") if tool.result_schema else None
        return Entry(tool, function, self._schemas.compile(tool.parameters, "tool.definition.parameters"), result)

    def _require_room(self, tenant: str, tool: Tool) -> None:
        if limit := self._full(tenant):
            message = f"{limit}; unregister some before you register {tool.name!r}"
            raise ToolsExhausted(message, metadata={"tool": tool.name}, retry_after=60.0)

    def _full(self, tenant: str) -> str:
        if self._counts[tenant] >= self._bounds.per_tenant:
            return f"the tenant has registered {self._bounds.per_tenant} tools, which is the limit"
        if self._counts.total() >= self._bounds.total:
            return f"all tenants together have registered {self._bounds.total} tools, which is the limit"
        return ""

    def not_removed(self, name: str, scope: Scope) -> ToolNotFound:
        """Why a tool cannot be unregistered."""
        message = f"no tool {name!r} was registered in this scope; list tools with ListTools"
        if scope == GLOBAL and name in self._configured:
            message = f"tool {name!r} comes from the operator's setting tool_executor.functions; remove it there"
        return ToolNotFound(message, metadata={"tool": name[:100]})


def require_one_scope(scope: Scope) -> None:
    """Refuses a scope to register in that names both an agent and a run."""
    if scope.agent and scope.run_id:
        message = "tool.scope names an agent and a run; a tool belongs to one of them: clear the other"
        raise RequestInvalid(message, violations=(Violation("tool.scope", message),))
