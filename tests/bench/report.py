"""The table that `make bench` prints, and bench-results.json, from which the next run reads the previous figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from tests.bench.figures import Budget, Figure

Results = dict[str, Any]
_UNITS = {"ms": 1e3, "µs": 1e6, "kB": 1e-3, "MB": 1e-6, "/s": 1.0}
_HEAD = ("what", "ours", "beside", "theirs", "ratio", "floor", "aim", "", "before")


def machine() -> dict[str, str]:
    """What it was measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg()),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit(root: Path) -> str:
    """The commit that was measured, with a plus when files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain") else "")


def load_results(path: Path) -> Results:
    """The previous results; empty when there are none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def results(figures: Sequence[Figure], previous: Results, root: Path, seconds: float, quick: bool) -> Results:
    """What is written; figures of cases that were not run this time are kept with the commit they were measured at."""
    at = {"commit": commit(root), "date": datetime.now(UTC).isoformat(timespec="seconds"), "quick": quick}
    mine = {key(figure): _as_json(figure) | at for figure in figures}
    return {"machine": machine(), **at, "seconds": round(seconds), "figures": previous.get("figures", {}) | mine}


def key(figure: Figure) -> str:
    """What finds the figure again in earlier results."""
    return f"{figure.case}: {figure.name}"


def _as_json(figure: Figure) -> dict[str, Any]:
    return {
        "case": figure.case,
        "ours": figure.ours,
        "theirs": figure.theirs,
        "against": figure.against,
        "unit": figure.unit,
        "ratio": figure.ratio,
        "floor": figure.budget.floor,
        "aim": figure.budget.aim,
        "verdict": figure.verdict,
    }


def table(figures: Sequence[Figure], previous: Results) -> str:
    """The figures as lines of text, grouped by case."""
    rows = [(figure.case, _row(figure, previous.get("figures", {}))) for figure in figures]
    widths = [max(len(cells[column]) for cells in (_HEAD, *(row for _, row in rows))) for column in range(len(_HEAD))]
    lines = [_line(_HEAD, widths)]
    for place, (case, row) in enumerate(rows):
        if place == 0 or rows[place - 1][0] != case:
            lines.append(f"\n{case}")
        lines.append(_line(row, widths))
    return "\n".join(lines)


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    padded = [
        f"{cell:<{width}}" if column in (0, 2, 7) else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _row(figure: Figure, before: Mapping[str, Any]) -> tuple[str, ...]:
    earlier = before.get(key(figure), {}).get("ratio")
    return (
        f"  {figure.name}",
        _value(figure.ours, figure.unit),
        figure.against,
        _value(figure.theirs, figure.unit),
        _ratio(figure.ratio),
        _bound(figure.budget, figure.budget.floor),
        _bound(figure.budget, figure.budget.aim),
        figure.verdict,
        _ratio(earlier) if earlier is not None else "-",
    )


def _value(value: float, unit: str) -> str:
    return f"{value * _UNITS[unit]:.3g} {unit}" if value * _UNITS[unit] < 1000 else f"{value * _UNITS[unit]:.0f} {unit}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def _bound(budget: Budget, bound: float | None) -> str:
    if bound is None:
        return ""
    return f"{'≤' if budget.better == 'lower' else '≥'} {_ratio(bound)}"
