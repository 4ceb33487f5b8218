"""A service as a process of its own: arguments, settings, waiting for what it needs, signals, and the exit code."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from chassis import settings, telemetry, waypoints
from chassis.faults import Fault, SettingsInvalid
from chassis.kafka.settings import KafkaSettings
from chassis.rpc.app import App
from chassis.rpc.pipeline import only_fault
from chassis.rpc.serve import ServerOptions, run, serve, server_options, stop_on_signals, stop_with_input
from chassis.rpc.starting import Stopped, enter_when_possible, unless
from chassis.rpc.waiting_room import WaitingRoom
from chassis.world import World

OpenApp = Callable[[Any, World, KafkaSettings], AbstractAsyncContextManager[App]]


def main(section: str, model: type[Any], open_app: OpenApp, argv: Sequence[str] | None = None) -> int:
    """Runs one service until SIGTERM or SIGINT; the body of `python -m session_store`. The model has a `listen`.

    Returns the exit code: 0 after an orderly end, 2 for wrong settings, 1 for any other failure. Errors are one message on stderr.
    """
    name = section.replace("_", "-")
    try:
        given = _arguments(section, argv)
        own, kafka, telemetry_settings = _load(section, model, given.config)
        if given.waypoint:
            waypoints.arm(given.waypoint)
        with telemetry.tracing(telemetry_settings, name):
            run(_run_one(name, own, lambda: open_app(own, World(), kafka), supervised=given.until_input_ends))
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


async def _run_one(name: str, own: Any, open_app: Callable[[], AbstractAsyncContextManager[App]], *, supervised: bool) -> None:
    with stop_on_signals() as stop, stop_with_input(stop) if supervised else contextlib.nullcontext():
        async with AsyncExitStack() as stack:
            room = WaitingRoom(name, own.listen, server_options(ServerOptions()))
            stack.push_async_callback(room.close)
            try:
                async with unless(stop):
                    app = await enter_when_possible(stack, open_app, name, room.tell)
            except Stopped:
                return
            await serve((app, own.listen), stop=stop, room=room)
