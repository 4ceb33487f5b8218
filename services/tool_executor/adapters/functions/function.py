"""A Python function as a tool."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from tool_executor.adapters.functions.signature import Signature, SignatureUnusable, read_signature
from tool_executor.domain.context import ToolContext
from tool_executor.domain.tool import Tool, contradiction, name_is_valid
from tool_executor.operations.ports import FunctionFailed, Output
from tool_executor.tools import MARK, Mark, ToolFailed


class PythonFunction:
    """See the port Function. One that is not async gets a thread."""

    def __init__(self, function: Callable[..., Any], tool: Tool, signature: Signature) -> None:
        self.tool = tool
        self.threaded = not inspect.iscoroutinefunction(function)
        self._function = function
        self._signature = signature

    def bind(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments as the function's types; raises ArgumentsRefused."""
        return self._signature.bind(arguments)

    async def run(self, bound: Mapping[str, Any], context: ToolContext) -> Output:
        """Runs an async function on the loop."""
        try:
            value = await self._function(**bound, **self._context(context))
        except ToolFailed as failure:
            raise FunctionFailed(str(failure)) from failure
        return render(value)

    def run_blocking(self, bound: Mapping[str, Any], context: ToolContext) -> Output:
        """Runs a function that blocks, and writes down its result, in the thread that calls this."""
        try:
            value = self._function(**bound, **self._context(context))
        except ToolFailed as failure:
            raise FunctionFailed(str(failure)) from failure
        return render(value)

    def _context(self, context: ToolContext) -> dict[str, ToolContext]:
        name = self._signature.context_parameter
        return {name: context} if name else {}


def describe(function: Callable[..., Any], reference: str, default_timeout: float, max_timeout: float) -> PythonFunction:
    """The function as a tool; raises SignatureUnusable that says what to change."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SignatureUnusable("it yields; return one value and report parts through ToolContext.progress")
    signature = read_signature(function)
    mark: Mark = getattr(function, MARK, Mark())
    tool = Tool(
        name=mark.name or function.__name__,
        description=mark.description or signature.description,
        parameters=signature.parameters,
        function=reference,
        timeout=default_timeout if mark.timeout is None else mark.timeout,
        traits=mark.traits.resolve(),
    )
    _check(tool, max_timeout)
    return PythonFunction(function, tool, signature)


def _check(tool: Tool, max_timeout: float) -> None:
    if not name_is_valid(tool.name):
        raise SignatureUnusable(f"its name {tool.name!r} is not 1 to 64 of a-z, A-Z, 0-9, _ and -; give it one: @tool(name=...)")
    if not tool.description:
        raise SignatureUnusable("it has no docstring, so a model cannot know when to use it; write one, or @tool(description=...)")
    if not 0 < tool.timeout <= max_timeout:
        raise SignatureUnusable(f"its timeout {tool.timeout:g} s is not within 0 and {max_timeout:g} s")
    if found := contradiction(tool.traits):
        raise SignatureUnusable(f"its traits contradict each other: {found}")


def render(value: object) -> Output:
    """A returned value as text: strings and UTF-8 bytes as they are, all else as JSON. Raises FunctionFailed for what has none."""
    if isinstance(value, str):
        return Output(value)
    if isinstance(value, (Iterator, AsyncIterator)) or asyncio.iscoroutine(value):
        raise FunctionFailed(_unserialisable(value, "it would have to be run to be read"))
    try:
        if isinstance(value, (bytes, bytearray)):
            return Output(bytes(value).decode("utf-8"))
        return Output(to_json(value, inf_nan_mode="strings").decode("utf-8"), is_json=True)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise FunctionFailed(_unserialisable(value, str(error)[:300])) from error


def _unserialisable(value: object, why: str) -> str:
    return (
        f"the tool ran, but its result of type {type(value).__name__} cannot be written as JSON ({why}); it must return text or JSON values"
    )
