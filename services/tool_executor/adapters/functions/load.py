"""Finds the operator's functions: `builtin:time`, `package.module:function`, `path/to/file.py:function`, and `…:*` for all marked ones."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from chassis.faults import SettingsInvalid
from tool_executor.adapters.functions.function import PythonFunction, describe
from tool_executor.adapters.functions.signature import SignatureUnusable
from tool_executor.tools import MARK

SETTING = "tool_executor.functions"
BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a function may take when it says nothing, and at most."""

    default: float = 30.0
    longest: float = 3600.0


class ReferenceBad(Exception):
    """A reference leads nowhere; the message says why."""


def load_functions(references: Iterable[str], timeouts: Timeouts) -> list[PythonFunction]:
    """The functions behind the references; raises SettingsInvalid that names every bad one."""
    found: dict[str, PythonFunction] = {}
    problems: list[str] = []
    for reference in references:
        try:
            found.update((f.tool.function, f) for f in _load(reference, timeouts))
        except (ReferenceBad, SignatureUnusable) as problem:
            problems.append(f"{SETTING}: {reference!r}: {problem}")
    problems += _same_names(found.values())
    if problems:
        raise SettingsInvalid("\n".join(problems), metadata={"setting": SETTING})
    return list(found.values())


def _load(reference: str, timeouts: Timeouts) -> list[PythonFunction]:
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise ReferenceBad("it is not written as module:function, path/to/file.py:function or builtin:name")
    module = _module(place)
    functions = _marked(module) if name == "*" else {name: _named(module, name)}
    return [_describe(function, f"{place}:{name}", timeouts) for name, function in functions.items()]


def _describe(function: Callable[..., Any], reference: str, timeouts: Timeouts) -> PythonFunction:
    try:
        return describe(function, reference, timeouts.default, timeouts.longest)
    except SignatureUnusable as problem:
        raise SignatureUnusable(f"{reference.rpartition(':')[2]} cannot be a tool: {problem}") from problem


def _module(place: str) -> ModuleType:
    try:
        if place == BUILTIN:
            return importlib.import_module("tool_executor.adapters.builtin")
        return _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ReferenceBad:
        raise
    except ModuleNotFoundError as error:
        raise ReferenceBad(f"module {error.name!r} is not found; install it, or give the path of a .py file") from error
    except (Exception, SystemExit) as error:  # a module may raise anything when it is loaded
        raise ReferenceBad(f"{place} failed to load: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ReferenceBad(f"there is no file {path} (looked from {Path.cwd()})")
    name = f"behest_tools_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ReferenceBad(f"{path} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _marked(module: ModuleType) -> dict[str, Callable[..., Any]]:
    found = {name: value for name, value in vars(module).items() if hasattr(value, MARK) and callable(value)}
    if not found:
        raise ReferenceBad("no function there is marked with @tool")
    return dict(sorted(found.items()))


def _named(module: ModuleType, name: str) -> Callable[..., Any]:
    value = getattr(module, name, None)
    if value is None:
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ReferenceBad(f"there is no function {name!r}{hint}")
    if not callable(value) or isinstance(value, type) or not hasattr(value, "__name__"):
        raise ReferenceBad(f"{name!r} is not a function; write one that calls it")
    found: Callable[..., Any] = value
    return found


def _same_names(functions: Iterable[PythonFunction]) -> list[str]:
    first: dict[str, str] = {}
    problems = []
    for function in functions:
        name, reference = function.tool.name, function.tool.function
        if name in first:
            problems.append(f"{SETTING}: {first[name]!r} and {reference!r} are both called {name!r}; name one with @tool(name=...)")
        first.setdefault(name, reference)
    return problems
