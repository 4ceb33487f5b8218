"""A session on its way out of one store and into another: the pieces it comes in, and which order of them is a session. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from chassis.faults import ExportDamaged
from session_store.domain.run import Run, RunState
from session_store.domain.session import RunId, StoredMessage
from session_store.domain.tally import Tally
from session_store.domain.usage import ModelUsage

MOST_OPEN = 1000  # runs whose logs are interleaved: one that is driven, those that wait, with room to spare


@dataclass(frozen=True, slots=True)
class RunPiece:
    """A run that has ended, and its usage; its events follow."""

    run: Run
    usage: tuple[ModelUsage, ...] = ()


@dataclass(frozen=True, slots=True)
class EventsPiece:
    """Events that were appended together; `ends_in` when the last one ends the run."""

    run_id: RunId
    first: int
    last: int
    data: bytes
    ends_in: RunState | None
    tally: Tally


@dataclass(frozen=True, slots=True)
class MessagesPiece:
    """Messages, by position."""

    messages: tuple[StoredMessage, ...]


Piece = RunPiece | EventsPiece | MessagesPiece


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is of what."""

    messages: int = 0
    runs: int = 0
    events: int = 0


@dataclass(slots=True)
class Manifest:
    """What has come so far. It refuses what cannot be the next piece of a session, and a session that is not whole."""

    counts: Counts = field(default_factory=Counts)
    _open: dict[RunId, tuple[Run, int]] = field(default_factory=dict)

    def take(self, piece: Piece) -> None:
        """Notes a piece. Raises ExportDamaged."""
        match piece:
            case RunPiece(run):
                self._take_run(run)
            case EventsPiece():
                self._take_events(piece)
            case MessagesPiece(messages):
                self._take_messages(messages)

    def close(self, counts: Counts) -> None:
        """Raises ExportDamaged unless everything has come that is told of at the end."""
        if self._open:
            raise damaged(f"the log of run {next(iter(self._open))} is not whole")
        if self.counts != counts:
            raise damaged(f"it holds {self.counts}, but its end tells of {counts}")

    def _take_run(self, run: Run) -> None:
        if not run.state.ended or run.sequence < 1 or run.id in self._open:
            raise damaged(f"run {run.id} has not ended, has no log or comes twice")
        if len(self._open) >= MOST_OPEN:
            raise damaged(f"more than {MOST_OPEN} runs are begun and not ended")
        self._open[run.id] = (run, 0)
        self.counts = replace(self.counts, runs=self.counts.runs + 1)

    def _take_events(self, piece: EventsPiece) -> None:
        run, sequence = self._open.get(piece.run_id, (None, 0))
        if run is None or piece.first != sequence + 1 or piece.last < piece.first:
            raise damaged(f"events {piece.first} to {piece.last} of run {piece.run_id} do not follow what came before")
        if (piece.ends_in is not None) != (piece.last == run.sequence) or piece.ends_in not in (None, run.state):
            raise damaged(f"the log of run {piece.run_id} does not end as the run did")
        self._open[piece.run_id] = (run, piece.last)
        if piece.ends_in is not None:
            del self._open[piece.run_id]
        self.counts = replace(self.counts, events=self.counts.events + piece.last - sequence)

    def _take_messages(self, messages: tuple[StoredMessage, ...]) -> None:
        for message in messages:
            if message.position != self.counts.messages + 1:
                raise damaged(f"message {message.id} is at position {message.position} and comes after {self.counts.messages}")
            self.counts = replace(self.counts, messages=self.counts.messages + 1)


def damaged(problem: str) -> ExportDamaged:
    """The fault for a file that is none, or not what it was."""
    return ExportDamaged(f"the file is no whole export of a session: {problem}; export it again, or copy the file again")


def copied_id(seed: str, now: float, run_id: RunId) -> RunId:
    """The id of a run in a copy of its session: a UUIDv7, the same for the same copy and run."""
    noise = int.from_bytes(hashlib.sha256(f"{seed}/{run_id}".encode()).digest()[:10], "big")
    high = (int(now * 1000) & (1 << 48) - 1) << 16 | 0x7 << 12 | noise >> 62 & 0xFFF
    low = 0b10 << 62 | noise & (1 << 62) - 1
    digits = f"{high << 64 | low:032x}"
    return RunId("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])))
