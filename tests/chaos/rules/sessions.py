"""What must be true of sessions: their messages, the order of their runs, and their events in the order of commits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import session_pb2
from chaos.history import TERMINAL, History, event_of, events_of
from chaos.rules import Finding
from chaos.rules.evidence import around, event_line, line, several

_ABOUT = 3


def _messages(raws: Sequence[bytes]) -> list[session_pb2.StoredMessage]:
    return [session_pb2.StoredMessage.FromString(raw) for raw in raws]


def messages_are_well_formed(history: History) -> Iterator[Finding]:
    """Positions count from 1, ids are unique, and every tool call is followed by its result before anybody else speaks."""
    for session_id, session in history.sessions.items():
        messages = _messages(session.messages)
        for place, wrong in _malformed(messages):
            evidence = tuple(line(message) for message in messages[max(0, place - _ABOUT) : place + _ABOUT])
            yield Finding(messages[place - 1].run_id if place else "", f"session {session_id}, message {place + 1}: {wrong}", evidence)
            break


def _malformed(messages: Sequence[session_pb2.StoredMessage]) -> Iterator[tuple[int, str]]:
    open_calls: list[str] = []
    seen: set[str] = set()
    for place, stored in enumerate(messages):
        if stored.position != place + 1:
            yield place, f"it is at position {stored.position}"
        if stored.id in seen:
            yield place, f"its id {stored.id} was used before"
        seen.add(stored.id)
        if stored.message.role == chat_pb2.ROLE_TOOL:
            if stored.message.tool_call_id not in open_calls:
                yield place, f"a result of a call {stored.message.tool_call_id} that is not open"
            else:
                open_calls.remove(stored.message.tool_call_id)
        elif open_calls:
            yield place, f"calls without result before it: {open_calls}"
        if stored.message.role == chat_pb2.ROLE_ASSISTANT:
            open_calls = [call.id for call in stored.message.tool_calls]
    if open_calls:
        yield len(messages), f"calls without result at the end: {open_calls}"


def messages_are_those_of_the_logs(history: History) -> Iterator[Finding]:
    """What a log says has joined the session is there, once and in that order, after the run's input; nothing else of the run is."""
    for session_id, session in history.sessions.items():
        stored: dict[str, list[str]] = defaultdict(list)
        for message in _messages(session.messages)[session.forked_at :]:
            stored[message.run_id].append(message.id)
        for run_id in (set(stored) | {r for r in history.runs if _session(history, r) == session_id}) - {""}:
            told = _told(history, run_id)
            if stored[run_id] not in told:
                yield Finding(run_id, f"session {session_id} has other messages of it than its log", (f"{stored[run_id]}", f"{told[0]}"))


def _told(history: History, run_id: str) -> list[list[str]]:
    """The messages that must be there. A run that never began may have been alone in its session, or have waited with its input."""
    committed = [i for event in events_of(history, run_id, "messages_committed") for i in event.messages_committed.message_ids]
    created = events_of(history, run_id, "run_created")
    whole = [*(event.run_created.input_message_id for event in created), *committed]
    return [whole] if events_of(history, run_id, "run_started") else [whole, committed]


def _session(history: History, run_id: str) -> str:
    return run_pb2.Run.FromString(history.runs[run_id].row).session_id


def forks_share_their_beginning(history: History) -> Iterator[Finding]:
    """A fork begins with the messages of the session that it was forked from, all of them up to where the run under way began."""
    for session_id, session in history.sessions.items():
        origin = history.sessions.get(session.forked_from)
        if origin is None:
            continue
        copied, original = _messages(session.messages[: session.forked_at]), _messages(origin.messages[: session.forked_at])
        if [(m.position, m.message) for m in copied] != [(m.position, m.message) for m in original]:
            told = ("forked:", *map(line, copied[-_ABOUT:]), "original:", *map(line, original[-_ABOUT:]))
            yield Finding("", f"session {session_id} is no fork of {session.forked_from} at {session.forked_at}", told)


def one_run_at_a_time(history: History) -> Iterator[Finding]:
    """In the order of commits, no run of a session begins or goes on before the one that began earlier has ended."""
    for session_id, session in history.sessions.items():
        active = ""
        for place, raw in enumerate(session.events):
            event = event_of(raw)
            kind = event.WhichOneof("kind")
            if kind in ("run_started", "run_resumed"):
                if active not in ("", event.run_id):
                    evidence = tuple(f"{event_of(r).run_id} {event_line(r)}" for r in session.events[max(0, place - 6) : place + 1])
                    yield Finding(event.run_id, f"session {session_id}: it began while {active} was under way", evidence)
                    break
                active = event.run_id
            elif kind in TERMINAL and event.run_id == active:
                active = ""


def messages_of_runs_stay_together(history: History) -> Iterator[Finding]:
    """The messages of one run are not parted by those of another."""
    for session_id, session in history.sessions.items():
        blocks: list[str] = []
        for message in _messages(session.messages)[session.forked_at :]:
            if message.run_id and blocks[-1:] != [message.run_id]:
                blocks.append(message.run_id)
        for run_id, count in Counter(blocks).items():
            if count > 1:
                yield Finding(run_id, f"session {session_id}: its messages are parted by those of other runs", several(blocks))


def the_queue_keeps_its_order(history: History) -> Iterator[Finding]:
    """Of two runs of a session, the one that was accepted before the other was even asked for begins first.

    A run was asked for when its request was first sent, answered or not.
    """
    first: dict[str, float] = {}
    for order in history.orders:
        first[order.request_id] = min(order.sent_at, first.get(order.request_id, order.sent_at))
    sent: dict[str, float] = {}
    answered: dict[str, float] = {}
    for order in history.orders:
        if order.run_id:
            sent[order.run_id] = first[order.request_id]
            answered[order.run_id] = min(order.answered_at, answered.get(order.run_id, order.answered_at))
    for session_id, session in history.sessions.items():
        begun = [event_of(raw).run_id for raw in session.events if event_of(raw).WhichOneof("kind") == "run_started"]
        begun = [run_id for run_id in begun if run_id in sent]
        for place, run_id in enumerate(begun):
            overtaken = [later for later in begun[place + 1 :] if answered[later] < sent[run_id]]
            if overtaken:
                earlier = sent[run_id] - answered[overtaken[0]]
                text = f"it began before {overtaken[0]}, which was accepted {earlier:.3f} s before it was asked for"
                yield Finding(run_id, f"session {session_id}: {text}", several(begun))
                break


def session_events_are_those_of_the_runs(history: History) -> Iterator[Finding]:
    """A session followed as a whole has every event of its runs once, in each run's order, in the order of commits."""
    for session_id, session in history.sessions.items():
        by_run: dict[str, list[event_pb2.Event]] = defaultdict(list)
        position = 0
        for raw in session.events:
            event = event_of(raw)
            if event.position <= position:
                yield Finding(event.run_id, f"session {session_id}: position {event.position} after {position}", (event_line(raw),))
            position = event.position
            by_run[event.run_id].append(event)
        for run_id in {r for r in history.runs if _session(history, r) == session_id} | set(by_run):
            if by_run[run_id] != events_of(history, run_id):
                followed, stored = [e.sequence for e in by_run[run_id]], [e.sequence for e in events_of(history, run_id)]
                evidence = (f"followed: {followed}", f"stored: {stored}")
                yield Finding(run_id, f"session {session_id} followed as a whole has other events of this run than its log", evidence)


def session_streams_equal_sessions(history: History) -> Iterator[Finding]:
    """A follower of a session gets its events from where it began, byte for byte."""
    for stream in history.session_streams:
        session = history.sessions.get(stream.session_id)
        whole = [raw for raw in session.events if event_of(raw).position > stream.after] if session else []
        if list(stream.events) != whole[: len(stream.events)]:
            pairs = zip(stream.events, [*whole, *[b""] * len(stream.events)], strict=False)
            place = next(place for place, (seen, stored) in enumerate(pairs) if seen != stored)
            evidence = ("seen:", *around(stream.events, place), "stored:", *around(whole, min(place, len(whole))))
            text = f"session {stream.session_id}: a stream by {stream.by} after {stream.after} differs at event {place + 1} of it"
            yield Finding(event_of(stream.events[place]).run_id, text, evidence)
