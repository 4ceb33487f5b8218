"""The `behest` command. Importing this costs nothing: commands import what they need when they run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: see outcome.Exit."""
    _open_standard_streams()
    try:
        import typer  # noqa: F401 - only to say early what is missing
    except ModuleNotFoundError:
        sys.stderr.write("error: the behest command needs typer and rich; install them: pip install 'behest[suite]'\n")
        return 2
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters of its log arrives as a fault
    from suite.cli.app import invoke

    return invoke(argv)


def _open_standard_streams() -> None:
    """Puts nothing where a caller closed standard input, output or error: what is opened next would take its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.dup2(os.open(os.devnull, os.O_RDWR), number)  # the lowest free number may be this one already
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - open as long as the process
