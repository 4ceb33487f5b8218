"""Where the references of a schema point, and whether they lead back to themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
_QUOTED = re.compile(rb"%([0-9a-fA-F]{2})")


class Inexpressible(Exception):
    """A provider's part of JSON Schema has no words for what stands at `path`, relative to the schema; `remedy` says what to do."""

    def __init__(self, path: str, remedy: str) -> None:
        super().__init__(f"{path}: {remedy}")
        self.path, self.remedy = path, remedy


class Contradiction(Inexpressible):
    """No value at all is taken."""


class References:
    """The references within one schema."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._recursive: dict[str, bool] = {}

    def target(self, reference: Any, path: str) -> Any:
        """What a reference points to. Raises Inexpressible for what lies outside of the schema or nowhere."""
        where = f"{path}.$ref"
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise Inexpressible(where, f"{reference!r} is not a JSON pointer within the schema; put what it means into $defs")
        found: Any = self._root
        for step in _steps(reference):
            try:
                found = found[int(step)] if isinstance(found, list) else found[step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise Inexpressible(where, f"{reference!r} points nowhere; correct it") from None
        return found

    def recursive(self, reference: str, path: str) -> bool:
        """Whether what a reference points to refers, however indirectly, to itself."""
        known = self._recursive.get(reference)
        if known is None:
            known = self._recursive[reference] = reference in self._reached(reference, path)
        return known

    def _reached(self, reference: str, path: str) -> set[str]:
        reached: set[str] = set()
        waiting = [reference]
        while waiting:
            for further in _references(self.target(waiting.pop(), path)):
                if further not in reached:
                    reached.add(further)
                    waiting.append(further)
        return reached


def _steps(reference: str) -> list[str]:
    return [_unquoted(step).replace("~1", "/").replace("~0", "~") for step in reference.split("/")[1:]]


def _unquoted(step: str) -> str:
    """The step of a pointer that stands in an URL, where some characters are written as %XX."""
    return _QUOTED.sub(lambda found: bytes.fromhex(found[1].decode()), step.encode()).decode("utf-8", "replace")


def _references(node: Any) -> Iterator[str]:
    """The references anywhere below; a property that is called $ref holds a schema and no text."""
    if isinstance(node, dict):
        found = node.get("$ref")
        if isinstance(found, str):
            yield found
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
