"""What must be true of the logs of runs, of their rows, and of what followers saw of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from behest.chat.v1 import chat_pb2
from behest.run.v1 import run_pb2
from chaos.history import STATES, TERMINAL, History, Order, Stream, event_of, events_of, kind_of, unplaced
from chaos.rules import Finding
from chaos.rules.evidence import around, event_line, line, several, tail, words


def gapless(history: History) -> Iterator[Finding]:
    """A log counts from 1 without gap or repetition, and every event is its run's."""
    for run_id, record in history.runs.items():
        for place, raw in enumerate(record.log):
            event = event_of(raw)
            if event.sequence != place + 1 or event.run_id != run_id:
                text = f"event {place + 1} of the log says that it is event {event.sequence} of {event.run_id}"
                yield Finding(run_id, text, around(record.log, place))
                break


def at_rest(history: History) -> Iterator[Finding]:
    """Every run has ended, some time after the last fault was healed."""
    for run_id, record in history.runs.items():
        if not any(kind_of(raw) in TERMINAL for raw in record.log):
            row = run_pb2.Run.FromString(record.row)
            text = f"the run is stuck: {run_pb2.RunState.Name(row.state)} at event {len(record.log)}"
            yield Finding(run_id, text, tail(history, run_id))


def one_terminal_event(history: History) -> Iterator[Finding]:
    """A run ends once, and nothing comes after."""
    for run_id, record in history.runs.items():
        places = [place for place, raw in enumerate(record.log) if kind_of(raw) in TERMINAL]
        if len(places) > 1:
            yield Finding(run_id, f"{len(places)} terminal events", tuple(event_line(record.log[place]) for place in places))
        elif places and places[0] != len(record.log) - 1:
            yield Finding(run_id, "events after the terminal event", around(record.log, places[0]))


def rows_equal_logs(history: History) -> Iterator[Finding]:
    """A run's row says what its log says."""
    for run_id, record in history.runs.items():
        row = run_pb2.Run.FromString(record.row)
        differences = list(_differences(row, [event_of(raw) for raw in record.log[-1:]]))
        if row.sequence != len(record.log):
            differences.append(f"row.sequence {row.sequence}, log {len(record.log)}")
        if differences:
            yield Finding(run_id, "the row is not what the log says", (*differences, line(row), *tail(history, run_id, 2)))


def _differences(row: run_pb2.Run, last: Sequence[object]) -> Iterator[str]:
    for event in last:
        kind = event.WhichOneof("kind")  # type: ignore[attr-defined]
        if kind not in TERMINAL:
            continue
        end = getattr(event, kind)
        if row.state != STATES[kind]:
            yield f"row.state {row.state}, log {kind}"
        if row.usage != end.usage or row.turns != end.turns:
            yield f"row.usage {line(row.usage)} turns {row.turns}, log {line(end.usage)} turns {end.turns}"
        if kind == "run_completed" and row.output_message_id != end.message_id:
            yield f"row.output_message_id {row.output_message_id}, log {end.message_id}"
        if kind == "run_failed" and row.fault.reason != end.fault.reason:
            yield f"row.fault {row.fault.reason}, log {end.fault.reason}"


def one_outcome_a_call(history: History) -> Iterator[Finding]:
    """A call that began has one outcome in a run that ended, and never two."""
    for run_id in history.runs:
        calls: dict[tuple[int, str], list[str]] = defaultdict(list)
        for event in events_of(history, run_id):
            kind = event.WhichOneof("kind")
            if kind == "tool_execution_started":
                calls[event.tool_execution_started.turn, event.tool_execution_started.call_id].append("started")
            elif kind == "tool_execution_finished":
                calls[event.tool_execution_finished.turn, event.tool_execution_finished.result.call_id].append("finished")
        has_ended = bool(events_of(history, run_id, *TERMINAL))
        whole = ["started", "finished"]
        for (turn, call_id), story in calls.items():
            if story != whole and (has_ended or story != ["started"]):
                yield Finding(run_id, f"call {call_id} of turn {turn}: {', '.join(story)}", tail(history, run_id))


def accepted_runs_exist(history: History) -> Iterator[Finding]:
    """A run whose acceptance was answered exists with what was ordered; one request id is one run, two are two."""
    by_request: dict[str, set[str]] = defaultdict(set)
    by_run: dict[str, set[str]] = defaultdict(set)
    for order in history.orders:
        if not order.run_id:
            continue
        by_request[order.request_id].add(order.run_id)
        by_run[order.run_id].add(order.request_id)
        if wrong := _accepted_wrong(history, order):
            yield Finding(order.run_id, wrong, (f"ordered: {order}", *tail(history, order.run_id, 2)))
    for request_id, run_ids in by_request.items():
        if len(run_ids) > 1:
            yield Finding(min(run_ids), f"request {request_id} became {len(run_ids)} runs", tuple(sorted(run_ids)))
    for run_id, request_ids in by_run.items():
        if len(request_ids) > 1:
            yield Finding(run_id, f"{len(request_ids)} requests became one run", tuple(sorted(request_ids)))


def _accepted_wrong(history: History, order: Order) -> str:
    created = events_of(history, order.run_id)[:1]
    if not created or created[0].WhichOneof("kind") != "run_created":
        return "an accepted run is not there"
    if "".join(part.text for part in created[0].run_created.input.parts) != order.text:
        return "an accepted run has another input than was ordered"
    return "" if created[0].session_id == order.session_id else "an accepted run is in another session than was answered"


def requests_run_once(history: History) -> Iterator[Finding]:
    """A request whose answer was lost and which was sent again made no second run."""
    texts: dict[str, list[str]] = defaultdict(list)
    for run_id in history.runs:
        for event in events_of(history, run_id)[:1]:
            texts["".join(part.text for part in event.run_created.input.parts)].append(run_id)
    for text in {order.text for order in history.orders}:
        if len(texts[text]) > 1:
            yield Finding(texts[text][0], f"the order {text!r} became {len(texts[text])} runs", tuple(texts[text]))


def acknowledged_appends_are_kept(history: History) -> Iterator[Finding]:
    """What the store acknowledged to a driver is in the log."""
    for append in history.appends:
        record = history.runs.get(append.run_id)
        stored = record.log[append.first - 1 : append.first - 1 + len(append.events)] if record else ()
        if tuple(map(unplaced, stored)) != tuple(map(unplaced, append.events)):
            evidence = (*map(event_line, append.events[:4]), "is in the log:", *map(event_line, stored[:4]))
            yield Finding(append.run_id, f"an acknowledged append at {append.first} is not in the log", evidence)


def acknowledged_commands_are_kept(history: History) -> Iterator[Finding]:
    """An acknowledged command is in the log, where the answer said, once."""
    for command in history.commands:
        if command.kind == "cancel":
            if not events_of(history, command.run_id, "cancel_requested"):
                yield Finding(command.run_id, "an acknowledged cancel is not in the log", tail(history, command.run_id))
            continue
        inputs = events_of(history, command.run_id, "input_received")
        places = [e.sequence for e in inputs if "".join(part.text for part in e.input_received.input.parts) == command.text]
        if places != [command.sequence]:
            text = f"an input acknowledged at {command.sequence} is in the log at {places or 'no place'}"
            yield Finding(command.run_id, text, (str(command), *tail(history, command.run_id)))


def streams_equal_logs(history: History) -> Iterator[Finding]:
    """A follower gets the log from where it began, byte for byte; a stream that says it is complete reached the run's end."""
    for stream in history.streams:
        record = history.runs.get(stream.run_id)
        log = record.log if record else ()
        expected = log[stream.after : stream.after + len(stream.events)]
        if stream.events != expected:
            yield _unequal(stream, expected)
        elif stream.complete and stream.after + len(stream.events) < len(log):
            text = f"a stream by {stream.by} after {stream.after} ended as complete at {stream.after + len(stream.events)} of {len(log)}"
            yield Finding(stream.run_id, text, tail(history, stream.run_id, 2))


def _unequal(stream: Stream, expected: Sequence[bytes]) -> Finding:
    pairs = zip(stream.events, [*expected, *[b""] * len(stream.events)], strict=False)
    place = next(place for place, (seen, stored) in enumerate(pairs) if seen != stored)
    evidence = ("seen:", *around(stream.events, place), "stored:", *around(expected, min(place, len(expected))))
    return Finding(stream.run_id, f"a stream by {stream.by} after {stream.after} differs from the log at event {place + 1} of it", evidence)


def limits_hold(history: History) -> Iterator[Finding]:
    """A run makes no more tool calls and takes no more turns than it may."""
    for order in history.orders:
        calls = len(events_of(history, order.run_id, "tool_execution_started"))
        turns = max((e.model_started.turn for e in events_of(history, order.run_id, "model_started")), default=0)
        if order.max_tool_calls and calls > order.max_tool_calls:
            yield Finding(order.run_id, f"{calls} tool calls, {order.max_tool_calls} allowed", tail(history, order.run_id))
        if order.max_iterations and turns > order.max_iterations:
            yield Finding(order.run_id, f"{turns} turns, {order.max_iterations} allowed", tail(history, order.run_id))


def usage_is_a_sum(history: History) -> Iterator[Finding]:
    """What a run used is the sum of its calls, in its events, at its end, and in the sums of its session."""
    by_session: dict[str, list[chat_pb2.Usage]] = defaultdict(list)
    for run_id, record in history.runs.items():
        recorded = events_of(history, run_id, "usage_recorded")
        total = _total([event.usage_recorded.call for event in recorded])
        told = [_tuple(event.usage_recorded.total) for event in recorded[-1:]]
        told += [_tuple(getattr(e, e.WhichOneof("kind")).usage) for e in events_of(history, run_id, *TERMINAL)]
        if any(each != total for each in told):
            yield Finding(run_id, words("usage is", *told, "and the sum of the calls", total), tail(history, run_id, 3))
        row = run_pb2.Run.FromString(record.row)
        by_session[row.session_id] += [event.usage_recorded.call for event in recorded]
    for session_id, session in history.sessions.items():
        stored, total = _tuple(chat_pb2.Usage.FromString(session.usage)), _total(by_session[session_id])
        if stored != total:
            runs = [run_id for run_id, r in history.runs.items() if run_pb2.Run.FromString(r.row).session_id == session_id]
            yield Finding(runs[0] if runs else "", f"session {session_id} used {stored}; its runs {total}", several(runs))


def _tuple(usage: chat_pb2.Usage) -> tuple[int, int, int]:
    return usage.input_tokens, usage.output_tokens, usage.calls


def _total(calls: Sequence[chat_pb2.Usage]) -> tuple[int, int, int]:
    return sum(c.input_tokens for c in calls), sum(c.output_tokens for c in calls), sum(c.calls for c in calls)


def nothing_failed_by_a_defect(history: History) -> Iterator[Finding]:
    """No run failed for a reason that nobody foresaw, no call was answered so, and no process ended by itself."""
    for run_id in history.runs:
        for event in events_of(history, run_id, "run_failed"):
            if event.run_failed.fault.reason == "INTERNAL":
                yield Finding(run_id, "the run failed by a defect", tail(history, run_id))
    for defect in history.defects:
        yield Finding("", defect.where, tuple(defect.text.splitlines()))
