"""The four services as four supervised child processes on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.faults import ServiceUnavailable, SettingsInvalid
from chassis.rpc.health import LIVENESS
from chassis.telemetry import set_up_logging
from suite.addresses import Service
from suite.composition import SuiteOptions
from suite.embedded import SuiteSettings, compose, load_suite_settings, make_data_folder, refuse_ports_in_use, ungrouped

# They start together, for each waits for what it needs, and stop one after another in reverse.
START_ORDER = (Service.SESSION_STORE, Service.PROVIDER_GATEWAY, Service.TOOL_EXECUTOR, Service.ORCHESTRATOR)
START_SECONDS = 30.0
STOP_SECONDS = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
# A child that lived so long had started well; its next death begins with a short pause again.
HEALTHY_SECONDS = 10.0
SETTINGS_WRONG = 2

Log = Callable[[str], None]


@dataclass
class Child:
    """One service as a process that is kept running. `restarts` counts how often it had to be started again."""

    service: Service
    listen: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Log
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None
    _stopping: bool = False
    _output: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The process id of the present process; 0 while there is none."""
        return self.process.pid if self.process and self.process.returncode is None else 0

    async def start(self) -> None:
        """Starts it and waits until it serves, however long it waits itself for what it needs: it says so.

        Raises SettingsInvalid or ServiceUnavailable when it ends, or when nothing of it can be heard.
        """
        await self._spawn()
        assert self.process is not None
        ended = asyncio.create_task(self.process.wait())
        alive, serving = asyncio.create_task(serves(self.listen, LIVENESS)), asyncio.create_task(serves(self.listen))
        try:
            await asyncio.wait({ended, alive, serving}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if alive.done():
                await asyncio.wait({ended, serving}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                raise self._failed_start(ended.result() if ended.done() else None)
        finally:
            await _cancel(ended, alive, serving)

    def _failed_start(self, status: int | None) -> Exception:
        if status == SETTINGS_WRONG:
            return SettingsInvalid(f"{self.service.value} did not start; its own words are above", metadata={"listen": self.listen})
        why = f"was not ready within {START_SECONDS:g} s" if status is None else f"ended with status {status} before it was ready"
        return ServiceUnavailable(f"{self.service.value} {why}; its own words are above")

    async def keep_running(self) -> None:
        """Starts it again whenever it ends, until `stop`."""
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        while True:
            assert self.process is not None
            since = loop.time()
            status = await self.process.wait()
            if self._stopping:
                return
            pause = FIRST_PAUSE if loop.time() - since > HEALTHY_SECONDS else pause
            structlog.get_logger().warning("restarting", service=self.service.value, status=status, pause_s=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            if self._stopping:
                return
            self.restarts += 1
            await self._spawn()

    async def stop(self) -> None:
        """Asks it to end in order, and ends it when it does not."""
        self._stopping = True
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await asyncio.gather(*self._output)

    async def _spawn(self) -> None:
        pipe = asyncio.subprocess.PIPE
        # A session of its own: Ctrl-C in the terminal is for the supervisor, which then stops its children in order. Its input ends
        # with the supervisor, even with one that was killed.
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=dict(self.env), start_new_session=True
        )
        assert self.process.stdout is not None
        self._output = [task for task in self._output if not task.done()]
        self._output.append(asyncio.create_task(self._relay(self.process.stdout)))
        if self._stopping:  # it was told to stop while a new process came up
            self.process.terminate()

    async def _relay(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await output.readline()
            except ValueError:  # a line longer than the reader's buffer, which dropped it
                continue
            if not line:
                return
            self.log(f"[{self.service.value}] {line.decode(errors='replace').rstrip()}")


@dataclass(frozen=True, slots=True)
class Processes:
    """The children, the orchestrator first, and what their user should know."""

    children: tuple[Child, ...]
    notices: tuple[str, ...]


@contextlib.asynccontextmanager
async def open_processes(options: SuiteOptions, log: Log, env: Mapping[str, str] = os.environ) -> AsyncIterator[Processes]:
    """The four services, each serving, each started again when it dies; they are stopped in reverse order at the end."""
    make_data_folder(options.data)
    async with ungrouped(), contextlib.AsyncExitStack() as stack:
        composed, _ = await compose(options, env, stack)
        settings = load_suite_settings(options.settings_file(), composed.env)
        set_up_logging(settings.log)
        await refuse_ports_in_use(settings)
        children = {service: _child(service, options, settings, composed.env, log) for service in START_ORDER}
        keeping = await stack.enter_async_context(asyncio.TaskGroup())
        async with asyncio.TaskGroup() as starting:
            for child in children.values():
                stack.push_async_callback(child.stop)
                starting.create_task(child.start())
        for child in children.values():
            keeping.create_task(child.keep_running())
        yield Processes(tuple(children[service] for service in Service), tuple(composed.notices))


def _child(service: Service, options: SuiteOptions, settings: SuiteSettings, env: Mapping[str, str], log: Log) -> Child:
    file = options.settings_file()
    command = [sys.executable, "-m", service.section, "--until-input-ends", *(["--config", str(file)] if file else [])]
    importable = os.pathsep.join(path for path in sys.path if path)
    return Child(service, settings.listen(service), command, {**env, "PYTHONPATH": importable}, log)


async def serves(address: str, service: str = "") -> None:
    """Returns when the server at address says that it serves, or that a service of it does; waits as long as it takes."""
    request = health_pb2.HealthCheckRequest(service=service)
    eager = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 250)]
    async with grpc.aio.insecure_channel(address, options=eager) as channel:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for response in health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True):
                    if response.status == health_pb2.HealthCheckResponse.SERVING:
                        return


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
