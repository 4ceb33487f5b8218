"""The `behest` command. Importing this costs nothing: commands import what they need when they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: see outcome.Exit."""
    try:
        import typer  # noqa: F401 - only to say early what is missing
    except ModuleNotFoundError:
        sys.stderr.write("error: the behest command needs typer and rich; install them: pip install 'behest[suite]'\n")
        return 2
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters of its log arrives as a fault
    from suite.cli.app import invoke

    return invoke(argv)
