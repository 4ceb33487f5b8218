"""The crash harness's rules: a good history is accepted, and every way of breaking one is rejected, by the rule that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import session_pb2
from behest.tool.v1 import tool_pb2
from chaos.history import Append, Command, Defect, History, Invocation, Letter, Order, Record, RunRecord, load, save
from chaos.rules import judge
from chaos.rules.book import RULES
from kit.chaos_history import FIRST, OTHER, SECOND, good_history

GOOD = good_history()
Break = Callable[[History], History]


def found(history: History) -> set[str]:
    return set(judge(history, RULES))


def log_changed(history: History, run_id: str, change: Callable[[list[bytes]], Any]) -> History:
    log = list(history.runs[run_id].log)
    change(log)
    return replace(history, runs={**history.runs, run_id: RunRecord(history.runs[run_id].row, tuple(log))})


def event_changed(history: History, run_id: str, kind: str, change: Callable[[event_pb2.Event], Any], which: int = 0) -> History:
    def at_place(log: list[bytes]) -> None:
        events = [event_pb2.Event.FromString(raw) for raw in log]
        place = [i for i, event in enumerate(events) if event.WhichOneof("kind") == kind][which]
        change(events[place])
        log[place] = events[place].SerializeToString()

    return log_changed(history, run_id, at_place)


def row_changed(history: History, run_id: str, **values: Any) -> History:
    row = run_pb2.Run.FromString(history.runs[run_id].row)
    row.MergeFrom(run_pb2.Run(**values))
    return replace(history, runs={**history.runs, run_id: RunRecord(row.SerializeToString(), history.runs[run_id].log)})


def without_end(history: History) -> History:
    return log_changed(history, FIRST, lambda log: log.pop())


def messages_changed(history: History, change: Callable[[list[session_pb2.StoredMessage]], Any]) -> History:
    messages = [session_pb2.StoredMessage.FromString(raw) for raw in history.sessions["a"].messages]
    change(messages)
    for position, message in enumerate(messages, 1):
        message.position = position
    session = replace(history.sessions["a"], messages=tuple(message.SerializeToString() for message in messages))
    return replace(history, sessions={**history.sessions, "a": session})


def session_events_changed(history: History, change: Callable[[list[bytes]], Any]) -> History:
    events = list(history.sessions["a"].events)
    change(events)
    return replace(history, sessions={**history.sessions, "a": replace(history.sessions["a"], events=tuple(events))})


def invoked(history: History, *more: Invocation) -> History:
    return replace(history, invocations=(*history.invocations, *more))


def receipt_changed(history: History, key: str, change: Callable[[tool_pb2.Execution], Any]) -> History:
    receipt = tool_pb2.Execution.FromString(history.receipts[key])
    change(receipt)
    return replace(history, receipts={**history.receipts, key: receipt.SerializeToString()})


def outcome(status: int, **result: Any) -> Callable[[event_pb2.Event], None]:
    def change(event: event_pb2.Event) -> None:
        event.tool_execution_finished.result.MergeFrom(tool_pb2.ToolResult(status=status, **result))

    return change


def emptied(event: event_pb2.Event) -> None:
    event.ClearField("kind")


def commanded(history: History, kind: str, text: str, sequence: int) -> History:
    return replace(history, commands=(Command(FIRST, kind, "r", text, sequence, 0.0),))


def streamed(history: History, change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> History:
    return replace(history, streams=(replace(history.streams[0], events=change(history.streams[0].events)),))


def recorded(history: History, **change: Any) -> History:
    assert history.records
    return replace(history, records=(replace(history.records[0], **change), *history.records[1:]))


def lettered(history: History, kind: str, text: str, run_id: str = "") -> History:
    return replace(history, letters=(Letter("l", kind, text, run_id, 0.0),))


def interleaved(events: list[bytes]) -> None:
    """The second run begins before the first has ended."""
    half = len(events) // 2
    events[half - 1], events[half + 1] = events[half + 1], events[half - 1]


def second_first(history: History) -> tuple[Record, ...]:
    """What the second run of a session published comes before what the first did."""
    assert history.records
    moved = [replace(r, offset=r.offset - 10_000) if r.id.startswith(f"{SECOND}/") else r for r in history.records]
    return tuple(moved)


def swapped(items: list[Any], first: int, second: int) -> None:
    items[first], items[second] = items[second], items[first]


def another_session_of_second(history: History) -> History:
    order = replace(history.orders[1], session_id="b")
    return replace(history, orders=(history.orders[0], order, history.orders[2]))


BROKEN: dict[str, tuple[str, Break]] = {
    "a run that never ends": ("at rest", without_end),
    "a lost event": ("gapless", lambda h: log_changed(h, FIRST, lambda log: log.pop(4))),
    "an event written twice": ("gapless", lambda h: log_changed(h, FIRST, lambda log: log.insert(4, log[4]))),
    "an event of another run": ("gapless", lambda h: log_changed(h, FIRST, lambda log: log.__setitem__(4, h.runs[SECOND].log[4]))),
    "two ends": ("one terminal event", lambda h: log_changed(h, FIRST, lambda log: log.append(log[-1]))),
    "something after the end": ("one terminal event", lambda h: log_changed(h, FIRST, lambda log: log.append(log[4]))),
    "a row in another state": ("rows equal logs", lambda h: row_changed(h, FIRST, state=run_pb2.RUN_STATE_FAILED)),
    "a row that is behind": ("rows equal logs", lambda h: row_changed(h, FIRST, sequence=7)),
    "a row with another answer": ("rows equal logs", lambda h: row_changed(h, FIRST, output_message_id="x")),
    "a row with other usage": ("rows equal logs", lambda h: row_changed(h, FIRST, usage=chat_pb2.Usage(input_tokens=7))),
    "a call without outcome": (
        "one outcome a call",
        lambda h: event_changed(h, FIRST, "tool_execution_finished", lambda e: e.ClearField("kind")),
    ),
    "an outcome of no call": (
        "one outcome a call",
        lambda h: event_changed(h, FIRST, "tool_execution_started", lambda e: e.ClearField("kind")),
    ),
    "an accepted run that is gone": ("accepted runs exist", lambda h: replace(h, runs={r: h.runs[r] for r in (FIRST, OTHER)})),
    "a run in another session": ("accepted runs exist", another_session_of_second),
    "a run with another input": (
        "accepted runs exist",
        lambda h: event_changed(h, FIRST, "run_created", lambda e: setattr(e.run_created.input.parts[0], "text", "p1 else")),
    ),
    "one request, two runs": ("accepted runs exist", lambda h: replace(h, orders=(*h.orders, replace(h.orders[0], run_id=SECOND)))),
    "two requests, one run": ("accepted runs exist", lambda h: replace(h, orders=(*h.orders, replace(h.orders[0], request_id="x")))),
    "a request that ran twice unseen": (
        "requests run once",
        lambda h: event_changed(h, SECOND, "run_created", lambda e: setattr(e.run_created.input.parts[0], "text", "p1 run-1")),
    ),
    "a lost append": (
        "acknowledged appends are kept",
        lambda h: event_changed(h, FIRST, "text_delta", lambda e: setattr(e.text_delta, "text", "else")),
    ),
    "an append of a run that is gone": ("acknowledged appends are kept", lambda h: replace(h, appends=(Append("gone", 2, (b"",)),))),
    "a lost cancel": ("acknowledged commands are kept", lambda h: commanded(h, "cancel", "", 0)),
    "a lost input": ("acknowledged commands are kept", lambda h: commanded(h, "input", "p3", 3)),
    "an input elsewhere": ("acknowledged commands are kept", lambda h: commanded(h, "input", "p2 more", 4)),
    "a stream with a gap": ("streams equal logs", lambda h: streamed(h, lambda events: events[1:])),
    "a stream that repeats": ("streams equal logs", lambda h: streamed(h, lambda events: (events[0], *events))),
    "a stream with other bytes": ("streams equal logs", lambda h: streamed(h, lambda events: (events[0] + b"\x0a\x00",))),
    "a stream that says it is whole": ("streams equal logs", lambda h: streamed(h, lambda events: events[:-1])),
    "too many tool calls": ("limits hold", lambda h: replace(h, orders=(replace(h.orders[0], max_tool_calls=2), *h.orders[1:]))),
    "too many turns": ("limits hold", lambda h: replace(h, orders=(replace(h.orders[0], max_iterations=1), *h.orders[1:]))),
    "usage that was lost": ("usage is a sum", lambda h: event_changed(h, FIRST, "usage_recorded", lambda e: e.usage_recorded.call.Clear())),
    "a session that counts twice": (
        "usage is a sum",
        lambda h: replace(h, sessions={**h.sessions, "b": replace(h.sessions["b"], usage=h.sessions["a"].usage)}),
    ),
    "a process that ended by itself": ("nothing failed by a defect", lambda h: replace(h, defects=(Defect("x", "status 1"),))),
    "a run that failed by a defect": (
        "nothing failed by a defect",
        lambda h: event_changed(h, FIRST, "run_completed", lambda e: setattr(e.run_failed.fault, "reason", "INTERNAL")),
    ),
    "an effect that happened twice": ("effects happen once", lambda h: invoked(h, Invocation(f"{FIRST}/1/c1", "charge", "begin", 2, 22.0))),
    "an effect after its receipt": ("effects happen once", lambda h: invoked(h, Invocation(f"{FIRST}/1/c2", "put", "begin", 3, 25.0))),
    "an effect that no log intends": ("intent comes first", lambda h: invoked(h, Invocation(f"{FIRST}/1/c9", "charge", "begin", 1, 22.0))),
    "an effect before its intent": (
        "intent comes first",
        lambda h: replace(h, invocations=(replace(h.invocations[0], at=3.0), *h.invocations[1:])),
    ),
    "an effect of another tool": (
        "intent comes first",
        lambda h: event_changed(h, FIRST, "tool_execution_started", lambda e: setattr(e.tool_execution_started, "tool", "look")),
    ),
    "a success that never ended": (
        "outcomes are true",
        lambda h: event_changed(h, FIRST, "tool_execution_finished", outcome(tool_pb2.EXECUTION_STATUS_SUCCEEDED), which=2),
    ),
    "an effect that is denied": (
        "outcomes are true",
        lambda h: event_changed(h, FIRST, "tool_execution_finished", outcome(tool_pb2.EXECUTION_STATUS_TOOL_NOT_FOUND), which=2),
    ),
    "an effect that may be and is said not to": (
        "outcomes are true",
        lambda h: event_changed(
            h,
            FIRST,
            "tool_execution_finished",
            lambda e: e.tool_execution_finished.result.CopyFrom(
                tool_pb2.ToolResult(call_id="c3", tool="charge", status=tool_pb2.EXECUTION_STATUS_CANCELLED)
            ),
            which=2,
        ),
    ),
    "a receipt that was lost": ("the ledger agrees", lambda h: replace(h, receipts={**h.receipts, f"{FIRST}/1/c1": b""})),
    "a receipt that says otherwise": (
        "the ledger agrees",
        lambda h: receipt_changed(h, f"{FIRST}/1/c1", lambda r: setattr(r.result, "status", tool_pb2.EXECUTION_STATUS_FAILED)),
    ),
    "a call without result": ("messages are well formed", lambda h: messages_changed(h, lambda m: m.pop(3))),
    "a result that comes too late": ("messages are well formed", lambda h: messages_changed(h, lambda m: swapped(m, 4, 5))),
    "a result twice": ("messages are well formed", lambda h: messages_changed(h, lambda m: m.insert(3, m[2]))),
    "a lost answer": ("messages are those of the logs", lambda h: messages_changed(h, lambda m: m.pop(6))),
    "a question twice": (
        "messages are those of the logs",
        lambda h: messages_changed(h, lambda m: m.insert(0, session_pb2.StoredMessage(id="x", run_id=FIRST, message=m[0].message))),
    ),
    "messages of two runs in a muddle": ("messages of runs stay together", lambda h: messages_changed(h, lambda m: swapped(m, 6, 7))),
    "a fork that lacks its beginning": (
        "forks share their beginning",
        lambda h: replace(h, sessions={**h.sessions, "b": replace(h.sessions["b"], forked_at=8)}),
    ),
    "two runs at a time": ("one run at a time", lambda h: session_events_changed(h, interleaved)),
    "a queue that is overtaken": (
        "the queue keeps its order",
        lambda h: replace(h, orders=(replace(h.orders[0], sent_at=2.0, answered_at=2.1), *h.orders[1:])),
    ),
    "a session that lost an event": ("session events are those of the runs", lambda h: session_events_changed(h, lambda e: e.pop(5))),
    "a session out of order": ("session events are those of the runs", lambda h: session_events_changed(h, lambda e: swapped(e, 4, 5))),
    "a follower of a session that missed an event": (
        "session streams equal sessions",
        lambda h: replace(h, session_streams=(replace(h.session_streams[0], events=h.session_streams[0].events[1:]),)),
    ),
    "a follower of a session that was told of another": (
        "session streams equal sessions",
        lambda h: replace(h, session_streams=(replace(h.session_streams[0], session_id="b"),)),
    ),
    "a record that was skipped": ("kafka holds every event", lambda h: replace(h, records=h.records[:2] + h.records[10:])),
    "records out of order": (
        "kafka holds every event",
        lambda h: replace(h, records=(replace(h.records[0], offset=2), h.records[1], replace(h.records[2], offset=0), *h.records[3:])),
    ),
    "a record under another key": ("kafka holds every event", lambda h: recorded(h, key="x")),
    "a record with other content": ("kafka holds every event", lambda h: recorded(h, value=h.records[1].value)),
    "a record of a run that is not there": (
        "kafka holds every event",
        lambda h: replace(h, records=(*h.records, replace(h.records[0], id="gone/1", offset=10_000))),
    ),
    "a repetition that says something else": (
        "kafka holds every event",
        lambda h: replace(h, records=(*h.records, replace(h.records[0], value=h.records[1].value, offset=10_000))),
    ),
    "two runs of a session published in a muddle": ("kafka keeps the order of sessions", lambda h: replace(h, records=second_first(h))),
    "a letter that was lost": ("letters are settled once", lambda h: lettered(h, "start", "p8")),
    "a letter that was carried out twice": (
        "letters are settled once",
        lambda h: event_changed(h, FIRST, "run_created", lambda e: setattr(e.run_created.input.parts[0], "text", "p1 run-2")),
    ),
    "a letter that was carried out and put aside": ("letters are settled once", lambda h: replace(h, dead_letters=("l1", "l3"))),
    "a letter to another run": ("letters are settled once", lambda h: lettered(h, "input", "p1 run-3", FIRST)),
    "a cancel by letter that was lost": ("letters are settled once", lambda h: lettered(without_end(h), "cancel", "", FIRST)),
    "a run in two partitions": ("kafka holds every event", lambda h: recorded(h, partition=1)),
}


def test_a_good_history_is_accepted() -> None:
    assert judge(GOOD, RULES) == {}


def test_a_run_keeps_the_place_of_its_first_request_though_only_a_later_one_was_answered() -> None:
    late = replace(GOOD, orders=(replace(GOOD.orders[0], sent_at=2.0, answered_at=2.1), *GOOD.orders[1:]))
    assert found(late) == {"the queue keeps its order"}
    lost = replace(GOOD.orders[0], run_id="", session_id="")
    assert found(replace(late, orders=(lost, *late.orders))) == set()


def test_a_wall_clock_that_was_set_accuses_nobody() -> None:
    early = replace(GOOD, invocations=(replace(GOOD.invocations[0], at=3.0), *GOOD.invocations[1:]))
    assert found(early) == {"intent comes first"}
    assert found(replace(early, clock_error=60.0)) == set()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_history_is_rejected_by_the_rule_it_breaks(name: str) -> None:
    rule, broken = BROKEN[name]
    assert rule in found(broken(GOOD))


def test_every_rule_has_a_history_that_it_rejects() -> None:
    assert {rule for rule, _ in BROKEN.values()} == set(RULES)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_whatever_is_lost_repeated_or_swapped_in_a_log_is_found(seed: int) -> None:
    rng = Random(seed)
    run_id = rng.choice(list(GOOD.runs))

    def change(log: list[bytes]) -> None:
        place = rng.randrange(len(log))
        match rng.randrange(3):
            case 0:
                del log[place]
            case 1:
                log.insert(place, log[place])
            case _:
                swapped(log, place, place - 1)

    assert found(log_changed(GOOD, run_id, change))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_whatever_a_follower_saw_that_is_not_the_log_is_found(seed: int) -> None:
    rng = Random(seed)
    stream = rng.choice([stream for stream in GOOD.streams if len(stream.events) > 1])
    events = list(stream.events)
    place = rng.randrange(len(events) - 1)
    match rng.randrange(3):
        case 0:
            del events[place]
        case 1:
            events.insert(place, events[place])
        case _:
            swapped(events, place, place + 1)
    assert "streams equal logs" in found(replace(GOOD, streams=(replace(stream, events=tuple(events), complete=rng.random() < 0.5),)))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_any_lost_repeated_or_misplaced_message_is_found(seed: int) -> None:
    rng = Random(seed)

    def change(messages: list[session_pb2.StoredMessage]) -> None:
        place = rng.randrange(len(messages))
        match rng.randrange(3):
            case 0:
                del messages[place]
            case 1:
                messages.insert(place, session_pb2.StoredMessage.FromString(messages[place].SerializeToString()))
            case _:
                swapped(messages, place, rng.choice([p for p in (0, 1, 5, 7, 8, 12) if p != place]))

    broken = messages_changed(GOOD, change)
    assert broken == GOOD or found(broken)


def test_nothing_is_concluded_of_what_was_never_answered() -> None:
    unanswered = Order("order x", "p1 x", 9.0, 9.5)
    assert judge(replace(GOOD, orders=(*GOOD.orders, unanswered)), RULES) == {}


def test_a_history_without_kafka_is_not_held_to_it() -> None:
    assert judge(replace(GOOD, records=None), RULES) == {}


def test_a_saved_history_is_judged_as_it_was(tmp_path: Path) -> None:
    save(GOOD, tmp_path / "history.json.gz")
    assert load(tmp_path / "history.json.gz") == GOOD
