"""The arguments of a call, as a model wrote them: read, bounded, and told apart from nonsense in words that a model can act on."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Never

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_PROBLEMS = 10
MAX_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the arguments: its path, such as cities[0].name, empty for the whole, and the reason."""

    path: str
    reason: str


class ArgumentsRefused(Exception):
    """The arguments cannot be used; the tool was not run."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{p.path or 'arguments'}: {p.reason}" for p in problems))
        self.problems = problems


def read_arguments(written: bytes) -> dict[str, Any]:
    """The arguments as a dictionary; nothing written means none. Raises ArgumentsRefused."""
    if len(written) > MAX_BYTES:
        _refuse(f"they are {len(written)} bytes long; at most {MAX_BYTES} are allowed")
    value = _parse(written) if written.strip() else {}
    if not isinstance(value, dict):
        _refuse(f"they must be a JSON object, not {_kind(value)}")
    if written.count(b"{") + written.count(b"[") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        _refuse(f"they are nested more than {MAX_DEPTH} levels deep")
    return value


def _parse(written: bytes) -> Any:
    try:
        return _DECODER.decode(written.decode("utf-8"))
    except UnicodeDecodeError as error:
        _refuse(f"they are not UTF-8: byte {error.start}")
    except json.JSONDecodeError as error:
        _refuse(f"they are not valid JSON: {error.msg} at line {error.lineno} column {error.colno}")
    except RecursionError:
        _refuse(f"they are nested more than {MAX_DEPTH} levels deep")
    except ValueError as error:
        _refuse(f"they hold a number that cannot be read: {error}"[:MAX_REASON_CHARS])


def _finite(written: str) -> float:
    value = float(written)
    if math.isinf(value):
        _refuse(f"they hold a number that cannot be read: {written[:40]} is too large")
    return value


def _refuse_constant(name: str) -> Never:
    _refuse(f"they are not valid JSON: {name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)  # kept: making one costs more than small arguments


def _refuse(reason: str) -> Never:
    raise ArgumentsRefused(Problem("", reason)) from None


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def deeper_than(value: object, levels: int) -> bool:
    """Whether value nests containers more than so many levels deep."""
    level = [value]
    for _ in range(levels + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values()) or [None]
    if isinstance(node, list):
        return node or [None]
    return []


def recorded(written: bytes) -> bytes:
    """What the ledger keeps of arguments: all of them, or for those beyond the bound their size and digest."""
    if len(written) <= MAX_BYTES:
        return written
    return json.dumps({"omitted_bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()}).encode()


def dotted(path: list[str | int]) -> str:
    """A path as people write it: cities[0].name."""
    written = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return written.removeprefix(".")
