"""`make bench`: measures everything beside its peers in one run, prints the table, and writes bench-results.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.report import Results, load_results, machine, results, table
from tests.bench.rounds import Bench
from tests.bench.worker import IMPORTABLE, ROOT, ContenderFailed

CASES = (
    "turns",
    "gateway",
    "proxies",
    "cancel",
    "append",
    "growth",
    "carriers",
    "first_token",
    "memory",
    "postgres_turns",
    "followers",
    "recovery",
    "events",
    "budgets",
)
RESULTS = ROOT / "bench-results.json"
SCRATCH = ROOT / ".data"  # on the disk of the checkout: a folder in memory would flatter every commit


def main() -> int:
    """Runs the cases that were asked for; 1 when one could not be measured. A missed floor is told, and is no failure."""
    sys.path[:0] = map(str, IMPORTABLE)  # cases work in a checkout that is not installed, too
    arguments = _arguments()
    previous, began = load_results(RESULTS), time.monotonic()
    SCRATCH.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=SCRATCH))
    try:
        figures, failed = asyncio.run(_run(arguments.only or CASES, Bench(folder, arguments.quick)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = results(figures, previous, ROOT, time.monotonic() - began, arguments.quick)
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    _tell(figures, previous, found)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench BENCH_ARGS=…", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute instead of five; noisier")
    parser.add_argument("--only", choices=CASES, action="append", help="this case; may be given more than once")
    return parser.parse_args()


async def _run(cases: Sequence[str], bench: Bench) -> tuple[list[Figure], bool]:
    figures, failed = list[Figure](), False
    for case in cases:
        began = time.monotonic()
        print(f"measuring {case} …", end=" ", file=sys.stderr, flush=True)
        try:
            figures += await importlib.import_module(f"tests.bench.cases.{case}").run(bench)
        except Exception as error:  # noqa: BLE001 — the other cases can still be measured
            failed = True
            print(f"failed: {error if isinstance(error, ContenderFailed) else traceback.format_exc()}", file=sys.stderr)
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return figures, failed


def _tell(figures: Sequence[Figure], previous: Results, found: Results) -> None:
    print(table(figures, previous))
    print()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    earlier = f"; before: {previous['commit']}, {previous['date']}" if "commit" in previous else ""
    print(f"commit {found['commit']}, {found['seconds']} s{earlier}")


if __name__ == "__main__":
    sys.exit(main())
