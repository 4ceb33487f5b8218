"""`behest up`: the suite in the foreground until it is told to stop."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

from chassis.rpc.serve import run, stop_on_signals
from chassis.rpc.starting import Stopped, unless
from suite.addresses import Service
from suite.cli.migrate import databases, suite_settings
from suite.cli.outcome import Exit, command, tell
from suite.composition import SuiteOptions, read_written, variable

T = TypeVar("T")


def run_up(options: SuiteOptions, *, processes: bool) -> Exit:
    """Runs until SIGTERM or Ctrl-C."""
    with suppress(Stopped):
        run(_in_processes(options) if processes else _in_this_process(options))
    return Exit.OK


async def _in_this_process(options: SuiteOptions) -> None:
    from suite.embedded import open_suite

    async with _entered(open_suite(options, listen=True)) as (suite, stop):
        for service in Service:
            tell(f"{service.value:<17} {suite.settings.listen(service)}")
        _tell_rest(options, suite.notices)
        await stop.wait()


async def _in_processes(options: SuiteOptions) -> None:
    from suite.processes import open_processes

    async with _entered(open_processes(options, functools.partial(tell, as_is=True), _logging_alike(options))) as (suite, stop):
        for child in suite.children:
            tell(f"{child.service.value:<17} {child.listen}  pid {child.pid}")
        _tell_rest(options, suite.notices)
        await stop.wait()


@asynccontextmanager
async def _entered(opening: AbstractAsyncContextManager[T]) -> AsyncIterator[tuple[T, asyncio.Event]]:
    """What opens, and the event that a signal sets; raises Stopped when the signal comes before it is open."""
    with stop_on_signals() as stop:
        async with AsyncExitStack() as stack:
            async with unless(stop):
                opened = await stack.enter_async_context(opening)
            yield opened, stop


def _logging_alike(options: SuiteOptions) -> Mapping[str, str]:
    """The environment with the log format that this process itself would choose: its children write to a pipe."""
    pretty = {variable("log", "format"): "pretty"} if sys.stderr.isatty() else {}
    return os.environ if read_written(options.settings_file(), os.environ).says("log", "format") else {**os.environ, **pretty}


def _tell_rest(options: SuiteOptions, notices: tuple[str, ...]) -> None:
    shared = sorted({str(database) for database in databases(suite_settings(options)).values() if database.is_postgres})
    tell(f"data in {', '.join(shared) or options.data}")
    for notice in notices:
        tell(notice)
    tell(f"ready: try `{command()} chat` in another terminal; Ctrl-C stops the suite")
