"""What the operations need of the outside: functions to run, threads, schemas, the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tool_executor.domain.arguments import Problem
from tool_executor.domain.context import ToolContext
from tool_executor.domain.execution import Execution
from tool_executor.domain.ledger import Standing
from tool_executor.domain.tool import Scope, Tool

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Output:
    """What a function returned: text as it is, or JSON."""

    text: str
    is_json: bool = False


class FunctionFailed(Exception):
    """The function failed in a way that it wants the model to read."""


class Function(Protocol):
    """Something that an operator approved to be run."""

    @property
    def tool(self) -> Tool:
        """The tool it is without an alias; `tool.function` is its reference."""

    @property
    def threaded(self) -> bool:
        """Whether it blocks and so needs a thread of its own."""

    def bind(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments as the function takes them. Raises ArgumentsRefused."""

    async def run(self, bound: Mapping[str, Any], context: ToolContext) -> Output:
        """Runs it to its end. Raises FunctionFailed, or whatever the function raises."""

    def run_blocking(self, bound: Mapping[str, Any], context: ToolContext) -> Output:
        """The same for a threaded one, called in its thread."""


class Seat(Protocol):
    """A thread that is kept free for one call."""

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Runs work, which must not raise, in the thread; gives the seat back when it returns, however long that takes. Once."""

    def release(self) -> None:
        """Gives the seat back when it was not used; does nothing otherwise."""


class Threads(Protocol):
    """A bounded number of threads for functions that block."""

    async def reserve(self, timeout: float) -> Seat:
        """A seat, as soon as one is free. Raises ToolsExhausted after so many seconds."""


class Check(Protocol):
    """A compiled JSON Schema."""

    def problems(self, value: object) -> tuple[Problem, ...]:
        """What is wrong with the value, at most ten things; empty when it is valid."""


class Schemas(Protocol):
    """Compiles JSON Schemas. Never fetches anything."""

    def compile(self, schema: bytes, field: str) -> Check:
        """The check. Raises ToolInvalid that names the field of the tool."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many executions were forgotten, and how many could not be yet."""

    count: int = 0
    kept: int = 0

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(self.count + other.count, self.kept + other.kept)


class Executions(Protocol):
    """The effect ledger. See domain/ledger.py for its rules; every adapter applies them through `judge`."""

    async def begin(self, asked: Execution, claim: bool) -> Standing:
        """What the call may do. With claim, BEGIN and TAKE_OVER are durable before this returns; UNKNOWN always is."""

    async def finish(self, ended: Execution) -> Execution:
        """Keeps the receipt of a claimed execution, durably, and returns what is remembered: the first receipt wins."""

    async def remember(self, ended: Execution) -> None:
        """Keeps the receipt of an unclaimed execution, soon. Waits only when too many are waiting to be written."""

    async def find(self, tenant: str, key: str) -> Execution | None:
        """The record of an execution, also of one that is still to be written."""

    async def renew(self, instance: str, until: float) -> None:
        """Says that the claimant lives until then, in seconds since the epoch."""

    async def resign(self, instance: str) -> None:
        """Says that the claimant is gone, so that others need not wait for its lease to end."""

    async def purge(self, before: float) -> int:
        """Forgets executions that were claimed before then; returns how many."""

    async def delete(self, tenant: str, run_id: str) -> Deleted:
        """Forgets the ended executions of a run, but those that are still to be published."""


class Unpublished(Protocol):
    """The part of the ledger that is still to be published: what ended since publishing was turned on, until it is `published`."""

    async def due(self, now: float, limit: int) -> list[Execution]:
        """Takes ended executions to publish, oldest first. Those that another process took stay away for PUBLISH_SECONDS."""

    async def published(self, executions: Sequence[Execution]) -> None:
        """Has them never come again."""


class Publications(Protocol):
    """Where ended executions are told of."""

    async def publish(self, executions: Sequence[Execution]) -> None:
        """Returns when all are kept there for good; waits for that as long as it takes."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Calls of a run to stop, all of them when no ids are given; or the direct call of that key."""

    tenant: str
    run_id: str
    call_ids: frozenset[str] = frozenset()


class Cancellations(Protocol):
    """What executors tell each other to stop."""

    async def ask(self, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
        """Tells the others; returns the ids of those calls that an executor has claimed and not ended."""

    async def hear(self) -> list[Cancellation]:
        """What was asked since the last time, by anybody."""


class Registrations(Protocol):
    """The tools that tenants registered, kept for the next process and shared with other executors."""

    async def version(self) -> int:
        """A number that changes with every change."""

    async def load(self) -> tuple[int, list[tuple[str, Tool]]]:
        """Every tool with its tenant, and the version that this is."""

    async def save(self, tenant: str, tool: Tool, at: float) -> bool:
        """Keeps the tool, durably; returns whether it replaced one of that name and scope."""

    async def remove(self, tenant: str, name: str, scope: Scope) -> bool:
        """Forgets the tool; returns whether there was one."""

    async def touch(self, runs: Collection[tuple[str, str]], at: float) -> None:
        """Notes that the tools of these runs, by tenant and run id, were asked for."""

    async def expire(self, before: float) -> int:
        """Forgets the tools of runs that nobody asked for since then; returns how many tools."""
