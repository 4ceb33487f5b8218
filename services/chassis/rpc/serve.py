"""Running apps as real gRPC servers: ports, health, reflection, signals, and the orderly end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import settings, telemetry, waypoints
from chassis.faults import Fault, SettingsInvalid
from chassis.kafka.settings import KafkaSettings
from chassis.rpc.app import App
from chassis.rpc.frames import FRAME_ROOM
from chassis.rpc.health import Health
from chassis.rpc.listening import cannot_listen, check_address
from chassis.rpc.mux_server import MuxServicer
from chassis.rpc.pipeline import only_fault
from chassis.rpc.plain import MAX_MESSAGE, pings
from chassis.rpc.reflection import add_reflection
from chassis.rpc.server import add_methods
from chassis.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server listens and ends. `share_port` lets several processes listen on one port, and hides that it is in use."""

    max_message: int = MAX_MESSAGE
    grace: float = 10.0
    share_port: bool = False


@dataclass(frozen=True, slots=True)
class Listening:
    """An app that can be called."""

    app: App
    address: str
    port: int
    health: Health


@contextlib.asynccontextmanager
async def open_server(app: App, listen: str, options: ServerOptions = ServerOptions()) -> AsyncIterator[Listening]:
    """Listens while the body runs; `listen` is host:port, port 0 for a free one. Ends in order: not serving, drain, grace, close."""
    health, mux = Health(app), MuxServicer(app.methods, max_message=options.max_message)
    server = _server(app, health, mux, options)
    port = await _bind(server, app, listen, options)
    await server.start()
    host = listen.rpartition(":")[0]
    following = asyncio.create_task(health.follow())
    try:
        yield Listening(app, f"{host}:{port}", port, health)
    finally:
        following.cancel()
        await asyncio.wait([following])
        await health.stop()
        await _drain(app)
        mux.drain()
        await server.stop(options.grace)


def _server(app: App, health: Health, mux: MuxServicer, options: ServerOptions) -> grpc.aio.Server:
    server = grpc.aio.server(options=_server_options(options))
    add_methods(app.methods, server)
    mux.add_to(server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    add_reflection((*app.methods.names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), server)
    return server


def _server_options(options: ServerOptions) -> tuple[tuple[str, Any], ...]:
    return (
        ("grpc.so_reuseport", int(options.share_port)),
        ("grpc.max_receive_message_length", options.max_message + FRAME_ROOM),
        ("grpc.max_send_message_length", options.max_message + FRAME_ROOM),
        # No number of pings is too many: a client that is told to calm down would ping half as often after each GOAWAY.
        ("grpc.http2.max_ping_strikes", 0),
        # Slower than callers ping: what a caller that is gone had leased ends by itself, and people far away may be slow to answer.
        *pings(5_000, 5_000),
    )


async def _bind(server: grpc.aio.Server, app: App, listen: str, options: ServerOptions) -> int:
    await check_address(app.name, listen, share_port=options.share_port)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise cannot_listen(app.name, listen, str(error)) from None
    if port == 0:
        raise cannot_listen(app.name, listen, "it was taken in this moment")
    return port


async def _drain(app: App) -> None:
    try:
        await app.drain()
    except Exception:  # noqa: BLE001 — an error at the end is logged; the rest must still be closed
        structlog.get_logger().exception("drain failed", service=app.name)


async def serve(*endpoints: tuple[App, str], stop: asyncio.Event, options: ServerOptions = ServerOptions()) -> None:
    """Listens with every (app, listen) until stop is set, then ends them in reverse order: name first those that the others need."""
    async with contextlib.AsyncExitStack() as stack:
        for app, listen in endpoints:
            listening = await stack.enter_async_context(open_server(app, listen, options))
            structlog.get_logger().info("listening", service=app.name, address=listening.address)
        await stop.wait()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal ends the process as usual."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(number: int) -> None:
        loop.remove_signal_handler(number)
        stop.set()
        structlog.get_logger().info("stopping", signal=signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def stop_with_input(stop: asyncio.Event) -> Iterator[None]:
    """Sets stop when standard input ends: a supervisor that holds its other end takes this process along, however it dies."""
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_input() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()
            structlog.get_logger().warning("stopping", why="standard input ended: the supervisor is gone")

    loop.add_reader(descriptor, on_input)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)


OpenApp = Callable[[Any, World, KafkaSettings], AbstractAsyncContextManager[App]]


def main(section: str, model: type[Any], open_app: OpenApp, argv: Sequence[str] | None = None) -> int:
    """Runs one service until SIGTERM or SIGINT; the body of `python -m session_store`. The model has a `listen`.

    Returns the exit code: 0 after an orderly end, 2 for wrong settings, 1 for any other failure. Errors are one message on stderr.
    """
    try:
        given = _arguments(section, argv)
        own, kafka, telemetry_settings = _load(section, model, given.config)
        if given.waypoint:
            waypoints.arm(given.waypoint)
        with telemetry.tracing(telemetry_settings, section.replace("_", "-")):
            run(_run_one(own, kafka, open_app, supervised=given.until_input_ends))
    except SettingsInvalid as fault:
        return _failed(fault, 2)
    except Exception as error:  # noqa: BLE001 — a command tells its user what went wrong; the log has the rest
        told = only_fault(error, section, "start")
        return _failed(told, 2 if isinstance(told, SettingsInvalid) else 1)
    return 0


def _arguments(section: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {section}", description=f"Runs the {section.replace('_', ' ')}.")
    parser.add_argument("--config", metavar="FILE", type=Path, help="a YAML file; the environment (BEHEST__SECTION__KEY) wins over it")
    parser.add_argument("--until-input-ends", action="store_true", help="stop when standard input ends: for supervisors")
    parser.add_argument(waypoints.ARGUMENT, metavar="NAME:PASSING:ACTION", help=argparse.SUPPRESS)  # the crash harness's
    return parser.parse_args(argv)


def _load(section: str, model: type[Any], config: Path | None) -> tuple[Any, KafkaSettings, telemetry.TelemetrySettings]:
    shared: dict[str, type[Any]] = {"kafka": KafkaSettings, "log": telemetry.LogSettings, "telemetry": telemetry.TelemetrySettings}
    loaded: dict[str, Any] = dict(settings.load_sections({section: model, **shared}, config))
    telemetry.set_up_logging(loaded["log"])
    return loaded[section], loaded["kafka"], loaded["telemetry"]


def _failed(fault: Fault, code: int) -> int:
    print(fault.message, file=sys.stderr)  # noqa: T201 — the user of a command reads it
    return code


async def _run_one(own: Any, kafka: KafkaSettings, open_app: OpenApp, *, supervised: bool) -> None:
    with stop_on_signals() as stop, stop_with_input(stop) if supervised else contextlib.nullcontext():
        async with open_app(own, World(), kafka) as app:
            await serve((app, own.listen), stop=stop)


def collect_rarely() -> None:
    """Has Python look for cycles less often: nearly all that a call makes goes by reference counts, and looking is a tenth of its CPU."""
    gc.set_threshold(20_000, 50, 100)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on uvloop, to its end."""
    collect_rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
