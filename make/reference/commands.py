"""The page of commands, from the command line's own description of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main


def lines() -> Iterator[str]:
    """The page, line by line."""
    from suite.cli.app import app

    yield "# Commands"
    yield ""
    yield "`behest COMMAND --help` says the same."
    yield from _command("behest", typer.main.get_command(app))


def _command(name: str, command: Any) -> Iterator[str]:
    if hasattr(command, "commands"):
        for below in sorted(command.commands):
            yield from _command(f"{name} {below}", command.commands[below])
    elif not command.hidden:
        yield from ("", f"## {name}", "", _text(command.help), "")
        yield from _parameters(command)


def _parameters(command: Any) -> Iterator[str]:
    shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
    if shown:
        yield from ("| parameter | meaning |", "|---|---|")
        yield from (f"| `{_name(each)}` | {_text(getattr(each, 'help', ''))} |" for each in shown)


def _name(parameter: Any) -> str:
    if not parameter.opts[0].startswith("-"):
        return str(parameter.name).upper()
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
