"""What others may ask of a run, and the events that follow."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.faults import RunEnded
from orchestrator.domain import events as e
from orchestrator.domain.values import Entry


@dataclass(frozen=True, slots=True)
class Create:
    """Carry out an order."""

    order: e.RunCreated


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class Steer:
    """Hear this too."""

    entry: Entry
    interrupt: bool


Command = Create | Cancel | Steer


def handle(ended: bool, command: Command) -> tuple[e.Event, ...]:
    """The events that a command adds to a run. Cancelling one that has ended adds none; steering it raises RunEnded."""
    if isinstance(command, Create):
        return (command.order,)
    if isinstance(command, Cancel):
        return () if ended else (e.CancelRequested(command.reason),)
    if ended:
        raise RunEnded("the run has ended; create a new run on its session")
    return (e.InputReceived(command.entry, command.interrupt),)
