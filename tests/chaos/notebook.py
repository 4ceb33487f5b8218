"""What the clients have seen so far, and what they know of runs that they may follow, steer or cancel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc.aio

from chaos.history import TERMINAL, Append, Command, Defect, Letter, Order, SessionStream, Stream, event_of, kind_of
from chaos.wire import is_defect

MOST_OPEN = 40
"""Runs that the clients leave open before they wait for some to end: the harness is to break things, not to overload them."""


@dataclass
class Known:
    """A run that some client knows of: how long its log is at least, and whether it has ended."""

    run_id: str
    session_id: str
    length: int = 0
    ended: bool = False


@dataclass
class Notebook:
    """Everything that was seen, for the history."""

    orders: list[Order] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    appends: list[Append] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    session_streams: list[SessionStream] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    runs: dict[str, Known] = field(default_factory=dict)

    @property
    def open(self) -> list[Known]:
        """Runs that are not known to have ended."""
        return [known for known in self.runs.values() if not known.ended]

    @property
    def full(self) -> bool:
        """Whether there is enough to do."""
        return len(self.open) >= MOST_OPEN

    def ordered(self, order: Order) -> None:
        """A run was asked for, and was accepted if it has an id."""
        self.orders.append(order)
        if order.run_id:
            self.runs.setdefault(order.run_id, Known(order.run_id, order.session_id))

    def streamed(self, stream: Stream) -> None:
        """A follower has seen something."""
        self.streams.append(stream)
        known = self.runs.get(stream.run_id)
        if known is not None and stream.events:
            known.length = max(known.length, event_of(stream.events[-1]).sequence)
            known.ended |= ends(stream.events)

    def refused(self, where: str, error: grpc.aio.AioRpcError) -> None:
        """A call failed; by a defect, if its code is one that no fault excuses."""
        self.codes[f"{where} {error.code().name}"] += 1
        if is_defect(error):
            self.defects.append(Defect(f"{where} was answered with {error.code().name}", error.details() or ""))


def ends(events: Sequence[bytes]) -> bool:
    """Whether the last of these events is a terminal one."""
    return bool(events) and kind_of(events[-1]) in TERMINAL
