"""The transcript: what was shown plus what was taken back is always the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from behest.event.v1 import event_pb2 as event_pb
from suite.transcript import Transcript


def started(turn: int, attempt: int = 1, continuation: int = 0) -> event_pb.Event:
    return event_pb.Event(model_started=event_pb.ModelStarted(turn=turn, attempt=attempt, continuation=continuation))


def said(text: str, turn: int = 1) -> event_pb.Event:
    return event_pb.Event(text_delta=event_pb.TextDelta(turn=turn, text=text))


def finished(turn: int = 1) -> event_pb.Event:
    return event_pb.Event(model_finished=event_pb.ModelFinished(turn=turn))


def shown(events: list[event_pb.Event]) -> tuple[str, str]:
    """What a reader who obeys the pieces has on the screen, and the transcript's own text."""
    transcript, screen = Transcript(), ""
    for event in events:
        piece = transcript.feed(event)
        if piece is not None:
            screen = screen[: len(screen) - piece.retracts] + piece
    return screen, transcript.text


def test_deltas_add_up() -> None:
    assert shown([started(1), said("Hel"), said("lo"), finished()]) == ("Hello", "Hello")


def test_a_new_attempt_takes_back_the_deltas_of_the_one_before() -> None:
    assert shown([started(1), said("wrong"), started(1, 2), said("right"), finished()])[0] == "right"


def test_turns_are_set_apart_and_a_new_attempt_takes_the_separator_back_too() -> None:
    events = [started(1), said("look"), finished(), started(2), said("no", 2), started(2, 2), said("yes", 2), finished(2)]
    assert shown(events)[0] == "look\n\nyes"


def test_a_continuation_goes_on_where_the_cut_answer_ended() -> None:
    assert shown([started(1), said("long "), finished(), started(1, 1, 1), said("story"), finished()])[0] == "long story"


def test_a_repeated_continuation_takes_back_only_itself() -> None:
    events = [started(1), said("long "), finished(), started(1, 1, 1), said("stx"), started(1, 2, 1), said("story"), finished()]
    assert shown(events)[0] == "long story"


def test_an_interrupted_turn_keeps_its_partial_text() -> None:
    assert shown([started(1), said("par"), started(2), said("next", 2)])[0] == "par\n\nnext"


KINDS = st.one_of(
    st.builds(started, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2)),
    st.builds(said, st.text(max_size=3), st.integers(1, 3)),
    st.builds(finished, st.integers(1, 3)),
)


@given(st.lists(KINDS, max_size=30))
def test_any_events_leave_screen_and_text_alike(events: list[event_pb.Event]) -> None:
    screen, text = shown(events)
    assert screen == text
