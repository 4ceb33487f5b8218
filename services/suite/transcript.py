"""What the model has said so far, folded from events, with what a new attempt takes back. Pure."""

from __future__ import annotations

from behest.event.v1 import event_pb2 as event_pb


class Piece(str):
    """A piece of streamed text. `retracts` counts the characters just before it that no longer count; nearly always 0."""

    __slots__ = ("retracts", "turn")

    retracts: int
    turn: int

    def __new__(cls, text: str, *, turn: int = 0, retracts: int = 0) -> Piece:
        """The piece text of a turn."""
        piece = super().__new__(cls, text)
        piece.turn, piece.retracts = turn, retracts
        return piece


class Transcript:
    """The text of a run. `feed` each event in order and show the pieces it returns; `text` is always the whole.

    Texts of different turns are set apart by an empty line. When a model call is repeated, the deltas of the attempt
    before are taken back: the piece then retracts as many characters as were shown for it.
    """

    def __init__(self) -> None:
        self.text = ""
        self._call = (0, 0)
        self._shown_turn = 0
        self._turn_before = 0
        self._unsettled = 0

    def feed(self, event: event_pb.Event) -> Piece | None:
        """What to show for event, None for nothing."""
        match event.WhichOneof("kind"):
            case "text_delta":
                return self._append(event.text_delta.turn, event.text_delta.text)
            case "model_started":
                return self._start(event.model_started)
            case "model_finished":
                self._unsettled = 0
        return None

    def _append(self, turn: int, text: str) -> Piece | None:
        if not text:
            return None
        separator = "\n\n" if self.text and turn != self._shown_turn else ""
        self._shown_turn = turn
        self._unsettled += len(separator) + len(text)
        self.text += separator + text
        return Piece(separator + text, turn=turn)

    def _start(self, started: event_pb.ModelStarted) -> Piece | None:
        call, before = (started.turn, started.continuation), self._call
        self._call = call
        if call != before or not self._unsettled:
            self._unsettled, self._turn_before = 0, self._shown_turn
            return None
        return self._retract(started.turn)

    def _retract(self, turn: int) -> Piece:
        taken_back, self._unsettled = self._unsettled, 0
        self.text = self.text[:-taken_back]
        self._shown_turn = self._turn_before
        return Piece("", turn=turn, retracts=taken_back)
