"""Prints each feature of docs/features.md with the tests that prove it, and those that have none.

Tests are read, not run: a marker counts where it decorates a test or a class of tests, or stands in a module's `pytestmark`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROMISE = re.compile(r"^- ([A-Z][0-9]+): (.+)$", re.MULTILINE)


class Proof(NamedTuple):
    """A test that says which feature it proves."""

    feature: str
    test: str


def main() -> int:
    """Lists the features; 1 when a marker names one that does not exist."""
    promised, proofs = features(), list(proven())
    tests = defaultdict(list)
    for proof in proofs:
        tests[proof.feature].append(proof.test)
    for feature, promise in promised.items():
        print(f"{feature:<4} {promise}", *tests[feature], sep="\n       ")
    missing = [feature for feature in promised if not tests[feature]]
    print(f"\n{len(promised) - len(missing)} of {len(promised)} features have tests; without: {' '.join(missing)}")
    return _report_unknown(proof for proof in proofs if proof.feature not in promised)


def features() -> Mapping[str, str]:
    """The promises by id, in the order of the page."""
    return dict(PROMISE.findall((ROOT / "docs" / "features.md").read_text()))


def proven() -> Iterator[Proof]:
    """Every (feature, test) that a marker claims."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        module = ast.parse(path.read_text())
        yield from _in_body(module.body, str(path.relative_to(ROOT)), _of_module(module))


def _in_body(body: list[ast.stmt], where: str, inherited: tuple[str, ...]) -> Iterator[Proof]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _in_body(node.body, f"{where}::{node.name}", (*inherited, *_of_decorators(node.decorator_list)))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for feature in dict.fromkeys((*inherited, *_of_decorators(node.decorator_list))):
                yield Proof(feature, f"{where}::{node.name}")


def _of_module(module: ast.Module) -> tuple[str, ...]:
    marks = [node.value for node in module.body if isinstance(node, ast.Assign) and _is_pytestmark(node)]
    return tuple(feature for mark in marks for feature in _of_decorators(mark.elts if isinstance(mark, ast.List | ast.Tuple) else [mark]))


def _is_pytestmark(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def _of_decorators(decorators: list[ast.expr]) -> tuple[str, ...]:
    calls = [node for node in decorators if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.feature"]
    return tuple(ast.literal_eval(argument) for call in calls for argument in call.args)


def _report_unknown(unknown: Iterator[Proof]) -> int:
    names = [f"{proof.test} claims {proof.feature}, which docs/features.md does not have" for proof in unknown]
    print(*names, sep="\n", end="\n" if names else "", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
