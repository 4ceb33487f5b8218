"""`behest up`: the suite in the foreground until it is told to stop."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping

from chassis.rpc.serve import run, stop_on_signals
from suite.addresses import Service
from suite.cli.migrate import databases, suite_settings
from suite.cli.outcome import Exit, command, tell
from suite.composition import SuiteOptions, read_written, variable


def run_up(options: SuiteOptions, *, processes: bool) -> Exit:
    """Runs until SIGTERM or Ctrl-C."""
    run(_in_processes(options) if processes else _in_this_process(options))
    return Exit.OK


async def _in_this_process(options: SuiteOptions) -> None:
    from suite.embedded import open_suite

    with stop_on_signals() as stop:
        async with open_suite(options, listen=True) as suite:
            for service in Service:
                tell(f"{service.value:<17} {suite.settings.listen(service)}")
            _tell_rest(options, suite.notices)
            await stop.wait()


async def _in_processes(options: SuiteOptions) -> None:
    from suite.processes import open_processes

    with stop_on_signals() as stop:
        async with open_processes(options, functools.partial(tell, as_is=True), _logging_alike(options)) as suite:
            for child in suite.children:
                tell(f"{child.service.value:<17} {child.listen}  pid {child.pid}")
            _tell_rest(options, suite.notices)
            await stop.wait()


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
