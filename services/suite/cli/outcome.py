"""How a command ends: exit codes, and one readable message for whatever went wrong."""

from __future__ import annotations

import contextlib
import enum
import sys

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


def tell(text: str) -> None:
    """Says something beside the result, on standard error; what cannot be said there does not keep the result from being given."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
