"""Servers in processes of their own, for cases that measure across a network.

A server is an async context manager, named as `module:function`, that takes its options and gives the address it listens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import uvloop
from tests.bench.worker import ROOT, end_worker, environment, read_questions, standard_error


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens, and its process."""

    address: str
    pid: int


@contextlib.asynccontextmanager
async def open_server_process(server: str, **options: Any) -> AsyncIterator[Server]:
    """A server that listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.serving",
        server,
        json.dumps(options),
        cwd=ROOT,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=standard_error(),
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RuntimeError(f"{server} ended with {await process.wait()}; BENCH_VERBOSE=1 shows what it said")
        yield Server(address, process.pid)
    finally:
        await end_worker(process)


async def _serve(server: str, options: dict[str, Any], answers: Any) -> None:
    module, _, name = server.partition(":")
    async with getattr(importlib.import_module(module), name)(**options) as address:
        print(address, file=answers, flush=True)
        await (await read_questions()).read()


def main() -> None:
    """Listens until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    uvloop.run(_serve(sys.argv[1], json.loads(sys.argv[2]), answers))


if __name__ == "__main__":
    main()
