"""Programs of other people that tests and benchmarks start. What is fetched is fetched once, by exact version, and cached."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

FETCH_SECONDS = 600
START_SECONDS = 90.0
QUIET = asyncio.subprocess.DEVNULL


class NotServing(Exception):
    """A program that ended or did not listen in time; the message names it."""


@functools.cache
def missing() -> str:
    """Why nothing can be fetched or run here; empty when it can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node is not installed: apt-get install nodejs npm"
    return ""


def cache_folder(name: str) -> Path:
    """Where something that is fetched once is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "behest" / name


def is_fetched(name: str) -> bool:
    """Whether something is there whole."""
    return (cache_folder(name) / "complete").exists()


def fetched(name: str, file: str, text: str, command: Sequence[str]) -> Path:
    """The folder of something that a command fetches by what a file says, fetched when it is not there whole.

    One process fetches, others wait for it.
    """
    folder = cache_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_fetched(name):
            (folder / file).write_text(text)
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
            if ended.returncode:
                raise RuntimeError(f"{command[0]} could not fetch {name}: {ended.stdout}{ended.stderr}")
            (folder / "complete").touch()
    return folder


def installed(package: str, version: str, overrides: Mapping[str, str] | None = None) -> Path:
    """The folder of a package from npm; its scripts are not run."""
    name = f"{package.replace('@', '').replace('/', '-')}-{version}"
    wanted = {"private": True, "dependencies": {package: version}, "overrides": dict(overrides or {})}
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    return fetched(name, "package.json", json.dumps(wanted), command) / "node_modules" / package


@contextlib.asynccontextmanager
async def serving(
    command: Sequence[str], port: int, env: Mapping[str, str], output: int | None = asyncio.subprocess.DEVNULL
) -> AsyncIterator[int]:
    """The process id of a program that listens on a port of this machine, for as long as the body runs. Raises NotServing."""
    process = await asyncio.create_subprocess_exec(*command, env=dict(env), stdin=QUIET, stdout=output, stderr=output)
    try:
        await _listens(process, port, command[0])
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listens(process: asyncio.subprocess.Process, port: int, name: str) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NotServing(f"{name} does not listen after {START_SECONDS:.0f} s") from None
    raise NotServing(f"{name} ended with {process.returncode}")
