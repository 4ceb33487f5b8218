"""The project's own source, read for the rules of the house."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file.

    Without collections meanwhile: on Python 3.11 one that runs code which compiles breaks the parser's count of its depth (gh-106905).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        if collecting:
            gc.enable()


def imports(path: Path) -> Iterator[str]:
    """What a file imports, anywhere in it: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`. Relative imports are refused."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
