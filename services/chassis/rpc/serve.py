"""Running apps as real gRPC servers: ports, health, reflection, signals, and the orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.rpc.app import App
from chassis.rpc.frames import FRAME_ROOM
from chassis.rpc.health import Health
from chassis.rpc.listening import bind
from chassis.rpc.mux_server import MuxServicer
from chassis.rpc.plain import MAX_MESSAGE, pings
from chassis.rpc.reflection import add_reflection
from chassis.rpc.server import add_methods
from chassis.rpc.waiting_room import WaitingRoom

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
async def open_server(
    app: App, listen: str, options: ServerOptions = ServerOptions(), room: WaitingRoom | None = None
) -> AsyncIterator[Listening]:
    """Listens while the body runs; `listen` is host:port, port 0 for a free one, or where a waiting room listens already.

    Ends in order: not serving, drain, grace, close.
    """
    mux = MuxServicer(app.methods, max_message=options.max_message)
    if room is not None and room.listens:
        health = Health(app, room.health)
        _add(app, health, mux, room.desk)
        server, port = room.leave()
    else:
        health, server = Health(app), grpc.aio.server(options=server_options(options))
        _add(app, health, mux, server)
        port = await bind(server, app.name, listen, share_port=options.share_port)
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


def _add(app: App, health: Health, mux: MuxServicer, to: Any) -> None:
    add_methods(app.methods, to)
    mux.add_to(to)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, to)
    add_reflection((*app.methods.names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), to)


def server_options(options: ServerOptions) -> tuple[tuple[str, Any], ...]:
    """What gRPC is told of a server."""
    return (
        ("grpc.so_reuseport", int(options.share_port)),
        ("grpc.max_receive_message_length", options.max_message + FRAME_ROOM),
        ("grpc.max_send_message_length", options.max_message + FRAME_ROOM),
        # No number of pings is too many: a client that is told to calm down would ping half as often after each GOAWAY.
        ("grpc.http2.max_ping_strikes", 0),
        # Slower than callers ping: what a caller that is gone had leased ends by itself, and people far away may be slow to answer.
        *pings(5_000, 5_000),
    )


async def _drain(app: App) -> None:
    try:
        await app.drain()
    except Exception:  # noqa: BLE001 — an error at the end is logged; the rest must still be closed
        structlog.get_logger().exception("drain failed", service=app.name)


async def serve(
    *endpoints: tuple[App, str],
    stop: asyncio.Event,
    options: ServerOptions = ServerOptions(),
    room: WaitingRoom | None = None,
) -> None:
    """Listens with every (app, listen) until stop is set, then ends them in reverse order: name first those that the others need.

    A single app may move into a waiting room.
    """
    async with contextlib.AsyncExitStack() as stack:
        for app, listen in endpoints:
            listening = await stack.enter_async_context(open_server(app, listen, options, room))
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


def collect_rarely() -> None:
    """Has Python look for cycles less often: nearly all that a call makes goes by reference counts, and looking is a tenth of its CPU."""
    gc.set_threshold(20_000, 50, 100)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on uvloop, to its end."""
    collect_rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
