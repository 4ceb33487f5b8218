"""How a command ends: exit codes, and one readable message for whatever went wrong."""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TextIO

from chassis.faults import CallerFault, Fault, Kind, ServiceUnavailable, SettingsInvalid, ShuttingDown


class Exit(enum.IntEnum):
    """The exit codes of the `behest` command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    INTERRUPTED = 130


def exit_of(fault: Fault) -> Exit:
    """The exit code that tells a script what kind of failure it was."""
    if isinstance(fault, ServiceUnavailable | ShuttingDown):
        return Exit.UNREACHABLE
    if fault.kind is Kind.NOT_FOUND:
        return Exit.NOT_FOUND
    if isinstance(fault, SettingsInvalid) or (isinstance(fault, CallerFault) and fault.kind is Kind.INVALID_ARGUMENT):
        return Exit.USAGE
    return Exit.FAILED


def message_of(fault: Fault) -> str:
    """What happened and what to do, for a person; violations on lines of their own."""
    lines = [f"error: {fault.message or fault.reason}"]
    said = lines[0]
    lines += [f"  {v.field}: {v.description}" for v in fault.violations if v.description not in said]
    if fault.retry_after:
        lines.append(f"  try again in {fault.retry_after:g} s")
    return "\n".join(lines)


def tell(text: str, *, as_is: bool = False) -> None:
    """Says something beside the result, on standard error; what cannot be said there does not keep the result from being given.

    In a terminal lines are broken between words, unless they are said as they are.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text if as_is else fitted(text, sys.stderr)}\n")
        sys.stderr.flush()


def fitted(text: str, stream: TextIO, indent: int = 0) -> str:
    """The text with its lines broken between words where the stream is a terminal; what follows a break is indented."""
    return broken(text, width_of(stream), indent) if stream.isatty() else text


def broken(text: str, width: int, indent: int = 0) -> str:
    """The text in lines of at most so many characters, broken between words; its own line breaks stay."""
    return "\n".join(_broken(line, width, indent) for line in text.split("\n"))


def _broken(line: str, width: int, indent: int) -> str:
    if len(line) <= width:
        return line
    deep = " " * min(indent or len(line) - len(line.lstrip()), width // 2)
    return textwrap.fill(
        line,
        width,
        subsequent_indent=deep,
        expand_tabs=False,
        replace_whitespace=False,
        break_on_hyphens=False,
        break_long_words=bool(indent),
    )


def width_of(stream: TextIO) -> int:
    """How many characters fit on a line of a terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return shutil.get_terminal_size().columns


def command() -> str:
    """How a reader types this command: its name, or where it is as long as no PATH leads to it."""
    called = sys.argv[0] if sys.argv else ""
    here = os.sep in called and Path(called).name == "behest"
    return called if here and not shutil.which("behest") else "behest"
