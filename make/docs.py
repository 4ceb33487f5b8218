"""Writes docs/reference/ from the code and the protos; with --check, fails when a page is stale. No page is edited by hand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
sys.path[:0] = [str(ROOT / folder) for folder in ("make", "services", "gen")]

from reference import asyncapi, commands, events, faults, methods, settings  # noqa: E402 — found by the path above

PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "asyncapi.yaml": asyncapi.lines,
    "commands.md": commands.lines,
    "events.md": events.lines,
    "faults.md": faults.lines,
    "methods.md": methods.lines,
    "settings.md": settings.lines,
}


def main() -> int:
    """Writes every page, or with --check says which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a page is stale")
    if parser.parse_args().check:
        return check()
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        (REFERENCE / name).write_text(render(name))
    return 0


def check() -> int:
    """1 when a page is not what the code and the protos say."""
    stale = [name for name in PAGES if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text() != render(name)]
    for name in stale:
        print(f"docs/reference/{name} is stale: run `make docs` and commit it", file=sys.stderr)
    return 1 if stale else 0


def render(name: str) -> str:
    """The text of a page."""
    return "\n".join([*PAGES[name](), ""])


if __name__ == "__main__":
    sys.exit(main())
