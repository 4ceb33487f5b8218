"""What you need to write a tool: a decorator, the context of a call, and a failure that the model reads.

    from tool_executor import ToolContext, tool

    @tool(read_only=True)
    async def weather(city: str, days: int = 1) -> dict[str, float]:
        '''Get the forecast of a city.

        Args:
            city: Its name, such as Lisbon.
            days: How many days ahead, 1 to 7.
        '''

Standard library only, so that a module with tools stays light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from tool_executor.domain.context import ToolContext
from tool_executor.domain.tool import Declared

__all__ = ["ToolContext", "ToolFailed", "tool"]

F = TypeVar("F", bound=Callable[..., Any])

MARK = "__behest_tool__"


class ToolFailed(Exception):
    """Raise it when a tool cannot do what it was asked; the model reads the message as it is."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the decorator was told; None where it takes what the function says."""

    name: str | None = None
    description: str | None = None
    timeout: float | None = None
    traits: Declared = Declared()


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    read_only: bool | None = None,
    idempotent: bool | None = None,
    destructive: bool | None = None,
    open_world: bool | None = None,
    concurrency_safe: bool | None = None,
    long_running: bool | None = None,
) -> Callable[[F], F]: ...


def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    **traits: bool | None,
) -> F | Callable[[F], F]:
    """Marks a function as a tool and returns it unchanged; it can still be called as before.

    `name` and `description` default to the function's name and the first paragraphs of its docstring, `timeout` (seconds) to the
    executor's setting. What the tool does to the world is said by read_only, idempotent, destructive, open_world, concurrency_safe
    and long_running; what is not said is taken to be the careful choice.
    """
    mark = Mark(name, description, timeout, Declared(**traits))

    def marked(function: F) -> F:
        setattr(function, MARK, mark)
        return function

    return marked if function is None else marked(function)
