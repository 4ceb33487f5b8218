"""Arithmetic that is right. Parses the expression itself and allows numbers, operators and a few functions; nothing runs as code."""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any, cast

from tool_executor.tools import ToolFailed, tool

MAX_CHARS = 1000
MAX_DEPTH = 50
MAX_BITS = 4096
MAX_DIGITS = 1000

Number = int | float


@tool(read_only=True, idempotent=True, open_world=False)
async def calculator(expression: str) -> str:
    """Compute an arithmetic expression exactly.

    Use it for every calculation beyond the trivial. Integers are exact; results with a fraction have 15 significant digits.

    Args:
        expression: Numbers with + - * / // % **, parentheses, the constants pi, e and tau, and the functions sqrt, abs, round, floor,
            ceil, min, max, sum, exp, log, log2, log10, sin, cos, tan, asin, acos, atan, degrees, radians, factorial, gcd and hypot.
            For example (1 + 2) * 3 ** 2 or sqrt(2) / 2.
    """
    if len(expression) > MAX_CHARS:
        raise ToolFailed(f"the expression is longer than {MAX_CHARS} characters")
    try:
        return _written(_value(_parse(expression), MAX_DEPTH))
    except ZeroDivisionError:
        raise ToolFailed("division by zero") from None
    except OverflowError:
        raise ToolFailed(f"a number on the way is too large; integers may have {MAX_BITS} bits, others about 308 digits") from None
    except ValueError as error:
        raise ToolFailed(f"that has no real value: {error}") from None


def _parse(expression: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # what a model writes is no news for our log
            return ast.parse(expression.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolFailed("that is not an arithmetic expression; write it like (1 + 2) * 3 ** 2") from None


def _value(node: ast.expr, depth: int) -> Number:
    if depth == 0:
        raise ToolFailed(f"the expression is nested more than {MAX_DEPTH} levels deep")
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.BinOp(left, op, right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left, depth - 1), _value(right, depth - 1)))
        case ast.UnaryOp(op, operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](_value(operand, depth - 1)))
        case ast.Name(name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(ast.Name(name), arguments, []) if name in _FUNCTIONS:
            return _call(name, [_value(argument, depth - 1) for argument in arguments])
    raise ToolFailed(f"{ast.unparse(node)[:80]!r} is not arithmetic; use numbers, operators and the listed functions")


def _call(name: str, arguments: list[Number]) -> Number:
    try:
        return _bounded(_FUNCTIONS[name](*arguments))
    except TypeError:
        raise ToolFailed(f"{name} does not take these {len(arguments)} numbers") from None


def _power(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right > 0 and max(left.bit_length(), 1) * right > MAX_BITS and abs(left) > 1:
        raise OverflowError
    value = left**right
    if isinstance(value, complex):
        raise ValueError("the root of a negative number")
    return cast("Number", value)


def _factorial(number: Number) -> int:
    if number > 500:
        raise OverflowError
    return math.factorial(cast(int, number))


def _round(value: Number, digits: Number = 0) -> Number:
    if abs(digits) > MAX_DIGITS:
        raise OverflowError
    return round(value, int(digits)) if digits else round(value)


def _bounded(value: Any) -> Number:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError
    if isinstance(value, float) and math.isinf(value):
        raise OverflowError
    return cast("Number", value)


def _written(value: Number) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, int) else f"{value:.15g}"


_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": math.sqrt,
    "abs": abs,
    "round": _round,
    "floor": math.floor,
    "ceil": math.ceil,
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "sum": lambda *values: sum(values),
    "factorial": _factorial,
    "gcd": math.gcd,
    "hypot": math.hypot,
    **{
        name: getattr(math, name)
        for name in ("exp", "log", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "degrees", "radians")
    },
}
