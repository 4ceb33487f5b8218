"""Contenders in processes of their own, so that one's heap, threads and event loop do not weigh on another's figures.

A contender is an async context manager, named as `module:function`, that takes its options and gives something with `measure`.
The bench asks for one measurement at a time; questions and answers are lines of JSON over the worker's standard streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import uvloop

ROOT = Path(__file__).resolve().parents[2]
IMPORTABLE = (ROOT, ROOT / "services", ROOT / "gen", ROOT / "tests")
PATIENCE = 120.0  # seconds for one measurement; far more than any takes

Sample = dict[str, float]
Load = dict[str, Any]


class Contender(Protocol):
    """What can be measured."""

    async def measure(self, **load: Any) -> Sample:
        """The figures of one measurement under that load."""


class ContenderFailed(Exception):
    """A worker could not start or measure; the message has its traceback."""


class Worker:
    """A contender in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def measure(self, **load: Any) -> Sample:
        """Asks for one measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(load).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Sample:
        """The next line it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        said = json.loads(line) if line else {"failed": f"the worker ended with {await self._process.wait()}"}
        if "failed" in said:
            raise ContenderFailed(said["failed"])
        sample: Sample = said
        return sample


@contextlib.asynccontextmanager
async def open_worker(contender: str, **options: Any) -> AsyncIterator[Worker]:
    """A worker that is ready to measure; raises ContenderFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.worker",
        contender,
        json.dumps(options),
        cwd=ROOT,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=standard_error(),
    )
    try:
        worker = Worker(process)
        await worker.answer()
        yield worker
    finally:
        await end_worker(process)


async def end_worker(process: asyncio.subprocess.Process) -> None:
    """Ends a process that reads standard input to its end."""
    assert process.stdin is not None
    process.stdin.close()  # the worker ends at the end of its questions
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def standard_error() -> int | None:
    """Where contenders' logs go: nowhere, unless BENCH_VERBOSE is set."""
    return None if os.environ.get("BENCH_VERBOSE") else asyncio.subprocess.DEVNULL


def environment() -> dict[str, str]:
    """The environment of a process that can import everything and finds no key and no settings."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("BEHEST", "OPENAI_", "ANTHROPIC_", "LANGSMITH_", "LANGCHAIN_"))
    }
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, IMPORTABLE)), "PYTHONHASHSEED": "0"}


async def _serve(contender: str, options: dict[str, Any], answers: Any) -> None:
    module, _, name = contender.partition(":")
    try:
        async with getattr(importlib.import_module(module), name)(**options) as opened:
            _say(answers, {})
            questions = await read_questions()
            while line := await questions.readline():
                gc.collect()
                _say(answers, await opened.measure(**json.loads(line)))
    except Exception:  # noqa: BLE001 — told to the bench, which names the contender
        _say(answers, {"failed": traceback.format_exc()})


async def read_questions() -> asyncio.StreamReader:
    """Standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _say(answers: Any, what: object) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def main() -> None:
    """Measures one contender for as long as it is asked."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes beside the answers
    uvloop.run(_serve(sys.argv[1], json.loads(sys.argv[2]), answers))


if __name__ == "__main__":
    main()
