"""What `behest up` keeps in memory while nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from tests.bench.contenders.suite import HOST, write_settings
from tests.bench.figures import Budget, Figure
from tests.bench.meters import resident_bytes
from tests.bench.rounds import Bench
from tests.bench.worker import ROOT, environment, standard_error

from kit.ports import neighbouring_ports
from suite.processes import serves

CASE = "an idle suite in one process"
MEGABYTE = 1e6
BUDGET = Budget(floor=150.0, aim=100.0)
SETTLED_SECONDS = 2.0


async def run(bench: Bench) -> list[Figure]:
    """The resident set of a fresh process that serves."""
    return [Figure(CASE, "resident memory, beside 1 MB", await _idle_bytes(bench), MEGABYTE, "1 MB", "MB", BUDGET)]


async def _idle_bytes(bench: Bench) -> float:
    data, base = bench.folder / "idle", neighbouring_ports()
    data.mkdir()
    command = ["-m", "suite", "up", "--data", str(data), "--port-base", str(base), "--config", str(write_settings(data, "mux", "warning"))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, env=environment(), stdout=asyncio.subprocess.DEVNULL, stderr=standard_error()
    )
    try:
        ended, up = asyncio.create_task(process.wait()), asyncio.create_task(serves(f"{HOST}:{base}"))
        await asyncio.wait([ended, up], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        await asyncio.sleep(SETTLED_SECONDS)
        return resident_bytes(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
