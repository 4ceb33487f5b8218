"""Arguments of a call that come piece by piece, each at a JSON path (RFC 9535, names and indices only): put together into one value."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from provider_gateway.adapters.gemini.shapes import PartialArg

MOST_ITEMS = 10_000  # an index beyond it is nonsense, and would cost memory
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")


class PartialArgs:
    """One call's arguments in the making. Strings grow by each piece at the same path; everything else is set."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}

    def add(self, piece: PartialArg) -> None:
        """One piece. Raises ValueError for a path that is none, or that runs through something that is not a container."""
        steps = path_steps(piece.json_path)
        container: Any = self.value
        for step, following in pairwise(steps):
            container = _descend(container, step, [] if isinstance(following, int) else {})
        last = steps[-1]
        known = _at(container, last)
        if piece.string_value is not None:
            _put(container, last, known + piece.string_value if isinstance(known, str) else piece.string_value)
        elif piece.number_value is not None:
            _put(container, last, piece.number_value)
        elif piece.bool_value is not None:
            _put(container, last, piece.bool_value)
        else:
            _put(container, last, None)


def path_steps(path: str) -> list[str | int]:
    """The names and indices of a path; raises ValueError for anything else."""
    if not path.startswith("$") or len(path) < 2:
        raise ValueError(f"{path!r} is no path below $")
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(f"{path!r} is no path of names and indices")
        name, index, single, double = match.groups()
        quoted = single if single is not None else double
        steps.append(int(index) if index else name if name is not None else re.sub(r"\\(.)", r"\1", quoted))
        at = match.end()
    return steps


def _descend(container: Any, step: str | int, empty: Any) -> Any:
    inner = _at(container, step)
    if inner is None:
        inner = empty
        _put(container, step, inner)
    return inner


def _at(container: Any, step: str | int) -> Any:
    if isinstance(container, dict) and isinstance(step, str):
        return container.get(step)
    if isinstance(container, list) and isinstance(step, int):
        return container[step] if step < len(container) else None
    raise ValueError(f"{step!r} is not a place in {type(container).__name__}")


def _put(container: Any, step: Any, value: Any) -> None:
    if isinstance(container, list):
        if step >= MOST_ITEMS:
            raise ValueError(f"index {step} is beyond {MOST_ITEMS}")
        container.extend([None] * (step + 1 - len(container)))
    container[step] = value
