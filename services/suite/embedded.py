"""All four services in this process and event loop, joined by direct calls. The composition root of the suite."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

import orchestrator.app
import provider_gateway.app
import session_store.app
import tool_executor.app
from chassis.faults import ServiceUnavailable, SettingsInvalid, StorageUnavailable
from chassis.kafka.settings import KafkaSettings
from chassis.rpc import App, LocalChannel
from chassis.rpc.call import DEFAULT_TENANT
from chassis.rpc.serve import ServerOptions, open_server
from chassis.rpc.starting import enter_when_possible
from chassis.settings import load_sections
from chassis.telemetry import LogSettings, set_up_logging
from chassis.world import World
from orchestrator.settings import OrchestratorSettings
from provider_gateway.settings import ProviderGatewaySettings
from session_store.settings import SessionStoreSettings
from suite.addresses import Service, listens
from suite.client import Behest
from suite.composition import Overlay, SuiteOptions, overlay, read_written, wants_local_model
from suite.local_model import LocalModel, find_weights, open_local_model
from tool_executor.settings import ToolExecutorSettings

# Followers and open calls get this long at the end; a command line should not wait longer.
SERVER = ServerOptions(grace=1.0)


@dataclass(frozen=True, slots=True)
class SuiteSettings:
    """The settings of the four services and of the process."""

    orchestrator: OrchestratorSettings
    provider_gateway: ProviderGatewaySettings
    tool_executor: ToolExecutorSettings
    session_store: SessionStoreSettings
    kafka: KafkaSettings
    log: LogSettings

    def listen(self, service: Service) -> str:
        """Where a service listens."""
        return str(getattr(self, service.section).listen)


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite that runs: its apps by service, how to call it, and what its user should know."""

    settings: SuiteSettings
    apps: Mapping[Service, App]
    channels: Mapping[Service, LocalChannel]
    notices: tuple[str, ...] = ()
    local_model: LocalModel | None = None

    def dial(self, service: Service) -> contextlib.AbstractAsyncContextManager[grpc.aio.Channel]:
        """A channel to a service; it belongs to the suite and outlives the context."""
        return contextlib.nullcontext(self.channels[service])

    def client(self, tenant: str = DEFAULT_TENANT) -> Behest:
        """A client that calls without a network."""
        return Behest(tenant=tenant, dial=self.dial)


def load_suite_settings(file: Path | None, env: Mapping[str, str]) -> SuiteSettings:
    """The settings of all services; raises SettingsInvalid with every mistake of every section."""
    models = {
        "orchestrator": OrchestratorSettings,
        "provider_gateway": ProviderGatewaySettings,
        "tool_executor": ToolExecutorSettings,
        "session_store": SessionStoreSettings,
        "kafka": KafkaSettings,
        "log": LogSettings,
    }
    return SuiteSettings(**load_sections(models, file, env))  # type: ignore[arg-type] # one model per key


@contextlib.asynccontextmanager
async def open_suite(
    options: SuiteOptions, *, listen: bool = False, world: World | None = None, env: Mapping[str, str] = os.environ
) -> AsyncIterator[Suite]:
    """A running suite, taken down in reverse order. With listen its services can also be called on their ports, and a database that is
    away for a while is waited for; without, whoever wants to use the suite now hears of it at once.

    Raises SettingsInvalid for wrong settings and ports in use, StorageUnavailable for a folder that cannot be written.
    """
    make_data_folder(options.data)
    async with ungrouped(), contextlib.AsyncExitStack() as stack:
        composed, local = await compose(options, env, stack)
        settings = load_suite_settings(options.settings_file(), composed.env)
        set_up_logging(settings.log)
        if listen:
            await refuse_ports_in_use(settings)
        rising = _Rising(settings, world or World(), stack, listen)
        await rising.all()
        yield Suite(settings, rising.apps, rising.channels, tuple(composed.notices), local)


@contextlib.asynccontextmanager
async def ungrouped() -> AsyncIterator[None]:
    """Lets the only exception of a group out instead of the group, so that a task group within does not rename what went wrong."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


async def refuse_ports_in_use(settings: SuiteSettings) -> None:
    """Raises SettingsInvalid when something listens where a service is to."""
    for service in Service:
        address = settings.listen(service)
        if await listens(address):
            text = (
                f"{address}, where the {service.value} is to listen, is in use, perhaps by a suite that runs already: `behest runs` tells"
            )
            raise SettingsInvalid(f"{text}; stop it, or move all four ports with --port-base", metadata={"listen": address})


async def compose(options: SuiteOptions, env: Mapping[str, str], stack: contextlib.AsyncExitStack) -> tuple[Overlay, LocalModel | None]:
    """The environment to load settings from; starts the local model when it is wanted."""
    written = read_written(options.settings_file(), env)
    local = None
    if wants_local_model(options, written, installed=local_model_installed()):
        local = await stack.enter_async_context(open_local_model())
    return overlay(options, written, local), local


def local_model_installed() -> bool:
    """Whether everything that the local model needs is installed."""
    try:
        find_weights()
    except SettingsInvalid:
        return False
    return True


def make_data_folder(data: Path) -> None:
    """Creates the folder that databases are kept in, readable by its owner alone."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        text = f"the folder {data} cannot be created: {why}; name another with --data"
        raise StorageUnavailable(text, metadata={"path": str(data)}) from None


@dataclass
class _Rising:
    """A suite as it comes up: each service is open, and listening, before those that need it."""

    settings: SuiteSettings
    world: World
    stack: contextlib.AsyncExitStack
    listen: bool
    apps: dict[Service, App] = field(default_factory=dict)
    channels: dict[Service, LocalChannel] = field(default_factory=dict)

    async def all(self) -> None:
        """Opens all four."""
        world, kafka = self.world, self.settings.kafka
        await self._open(Service.SESSION_STORE, lambda: session_store.app.open_app(self.settings.session_store, world, kafka))
        await self._open(Service.PROVIDER_GATEWAY, lambda: provider_gateway.app.open_app(self.settings.provider_gateway, world, kafka))
        await self._open(Service.TOOL_EXECUTOR, lambda: tool_executor.app.open_app(self.settings.tool_executor, world, kafka))
        neighbours = orchestrator.app.Neighbours(
            session_store=self.channels[Service.SESSION_STORE],
            provider_gateway=self.channels[Service.PROVIDER_GATEWAY],
            tool_executor=self.channels[Service.TOOL_EXECUTOR],
        )
        await self._open(Service.ORCHESTRATOR, lambda: orchestrator.app.open_app(self.settings.orchestrator, world, neighbours, kafka))

    async def _open(self, service: Service, open_app: Callable[[], contextlib.AbstractAsyncContextManager[App]]) -> None:
        if self.listen:
            app = await enter_when_possible(self.stack, open_app, service.value)
        else:
            app = await self.stack.enter_async_context(open_app())
        channel = LocalChannel(app.methods)
        self.apps[service], self.channels[service] = app, channel
        self.stack.push_async_callback(channel.close)
        if service is Service.ORCHESTRATOR:
            await _until_attached(app)
        if self.listen:
            await self.stack.enter_async_context(open_server(app, self.settings.listen(service), SERVER))
        else:
            self.stack.push_async_callback(app.drain)


async def _until_attached(app: App) -> None:
    """Returns when the orchestrator's driver knows its store, a few turns of the loop after it began; at the latest after a second."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while True:
                try:
                    return await app.ready()
                except ServiceUnavailable:
                    await asyncio.sleep(0.005)
