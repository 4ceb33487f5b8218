"""What callers may do with the tools there are: list, get, register, unregister."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from chassis.faults import PageTokenInvalid, ToolInvalid, Violation
from chassis.world import Clock
from tool_executor.domain.tool import (
    GLOBAL,
    MAX_DESCRIPTION_CHARS,
    MAX_SCHEMA_BYTES,
    Declared,
    Scope,
    Tool,
    contradiction,
    name_is_valid,
    overpromised,
)
from tool_executor.operations.ports import Registrations
from tool_executor.operations.registry import Registry, require_one_scope

RUN_IDLE_SECONDS = 24 * 3600.0

_log = structlog.get_logger("tool_executor")


@dataclass(frozen=True, slots=True)
class Query:
    """Which tools to list."""

    scope: Scope = GLOBAL
    name_prefix: str = ""
    names: frozenset[str] = frozenset()
    page_size: int = 100
    page_token: str = ""

    def matches(self, name: str) -> bool:
        """Whether a tool of that name is asked for."""
        return name.startswith(self.name_prefix) and (not self.names or name in self.names)

    def digest(self) -> str:
        """What a page token of this query carries, so that no other query takes it."""
        written = repr((self.scope, self.name_prefix, sorted(self.names)))
        return hashlib.sha256(written.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Registration:
    """A tool that somebody wants to add. Empty and None fields take what the function has."""

    function: str
    name: str = ""
    description: str = ""
    parameters: bytes = b""
    result_schema: bytes = b""
    strict: bool = False
    traits: Declared = Declared()
    scope: Scope = GLOBAL
    timeout: float = 0.0


class Tools:
    """The tools of one executor as its callers see them."""

    def __init__(self, registry: Registry, registrations: Registrations, clock: Clock, max_timeout: float) -> None:
        self._registry = registry
        self._registrations = registrations
        self._clock = clock
        self._max_timeout = max_timeout
        self._seen = -1
        self._changing = asyncio.Lock()

    def list(self, tenant: str, query: Query) -> tuple[list[Tool], str]:
        """One page of tools sorted by name, and the token of the next, empty at the end."""
        after = _read_token(query)
        found = sorted(self._registry.visible(tenant, query.scope).items())
        left = [tool for name, tool in found if name > after and query.matches(name)]
        page = left[: query.page_size]
        return page, _write_token(query, page[-1].name) if len(left) > len(page) else ""

    def get(self, tenant: str, name: str, scope: Scope) -> Tool:
        """The tool of that name seen from the scope; raises ToolNotFound."""
        return self._registry.get(tenant, name, scope)

    async def register(self, tenant: str, asked: Registration) -> tuple[Tool, bool]:
        """Adds or replaces a tool, for good; returns it with its defaults filled in, and whether it replaced one."""
        require_one_scope(asked.scope)
        tool = self._fill_in(asked)
        for rule in _RULES:
            rule(tool)
        async with self._changing:
            entry = self._registry.prepare(tenant, tool)
            replaced = await self._registrations.save(tenant, tool, self._clock.now())
            self._registry.put(tenant, entry)
        return tool, replaced

    async def unregister(self, tenant: str, name: str, scope: Scope) -> None:
        """Removes a registered tool; raises ToolNotFound."""
        async with self._changing:
            removed = await self._registrations.remove(tenant, name, scope)
            self._registry.discard(tenant, name, scope)
        if not removed:
            raise self._registry.not_removed(name, scope)

    async def refresh(self) -> None:
        """Takes over what other executors changed, if they did."""
        async with self._changing:
            if await self._registrations.version() == self._seen:
                return
            self._seen, tools = await self._registrations.load()
            for problem in self._registry.replace_all(tools):
                _log.warning("registered tool left out", problem=problem)

    async def expire(self) -> int:
        """Forgets the tools of runs that no executor was asked for in a day; returns how many."""
        now = self._clock.now()
        await self._registrations.touch(self._registry.take_used_runs(), now)
        return await self._registrations.expire(now - RUN_IDLE_SECONDS)

    def _fill_in(self, asked: Registration) -> Tool:
        own = self._registry.function(asked.function).tool
        traits = asked.traits.resolve_over(own.traits)
        if looser := overpromised(traits, own.traits):
            _refuse(f"tool.traits.{looser}", f"promises more than the function {own.function} does; only the operator can mark it so")
        if not 0 <= asked.timeout <= self._max_timeout:
            _refuse("tool.timeout_ms", f"must be from 0 to {self._max_timeout * 1000:.0f}")
        return replace(
            own,
            name=asked.name or own.name,
            description=asked.description or own.description,
            parameters=asked.parameters or own.parameters,
            result_schema=asked.result_schema or own.result_schema,
            strict=asked.strict or own.strict,
            traits=traits,
            scope=asked.scope,
            timeout=asked.timeout or own.timeout,
        )


def _check_name(tool: Tool) -> None:
    if not name_is_valid(tool.name):
        _refuse("tool.definition.name", f"{tool.name[:80]!r} is not 1 to 64 of a-z, A-Z, 0-9, _ and -")


def _check_description(tool: Tool) -> None:
    if len(tool.description) > MAX_DESCRIPTION_CHARS:
        _refuse("tool.definition.description", f"is longer than {MAX_DESCRIPTION_CHARS} characters")


def _check_schema_sizes(tool: Tool) -> None:
    for path, schema in (("tool.definition.parameters", tool.parameters), ("tool.result_schema", tool.result_schema)):
        if len(schema) > MAX_SCHEMA_BYTES:
            _refuse(path, f"is longer than {MAX_SCHEMA_BYTES} bytes")


def _check_traits(tool: Tool) -> None:
    if found := contradiction(tool.traits):
        trait, _, why = found.partition(": ")
        _refuse(f"tool.traits.{trait}", why)


_RULES: tuple[Callable[[Tool], None], ...] = (_check_name, _check_description, _check_schema_sizes, _check_traits)


def _refuse(path: str, why: str) -> None:
    raise ToolInvalid(f"{path} {why}", violations=(Violation(path, why),))


def _write_token(query: Query, last: str) -> str:
    return base64.urlsafe_b64encode(f"{query.digest()}{last}".encode()).decode()


def _read_token(query: Query) -> str:
    if not query.page_token:
        return ""
    try:
        token = base64.urlsafe_b64decode(query.page_token.encode()).decode()
    except (binascii.Error, ValueError):
        token = ""
    if token[:8] != query.digest():
        raise PageTokenInvalid("page_token is not from a previous response to this query; start again without one")
    return token[8:]
