"""What must be true of Kafka: it holds every event of every run in order, and what came by it was carried out once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from behest.run.v1 import run_pb2
from chaos.history import DELTAS, History, Letter, Record, event_of, events_of, kind_of, unplaced
from chaos.rules import Finding
from chaos.rules.evidence import event_line, several, tail


def kafka_holds_every_event(history: History) -> Iterator[Finding]:
    """The records of a run, each counted where it came first, are its events save deltas, in order, under its session's key.

    A repetition says the same, and nothing was published of a run that is not there.
    """
    if history.records is None:
        return
    by_run: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(history.records, key=lambda r: (r.topic, r.partition, r.offset)):
        by_run[record.id.rpartition("/")[0]].append(record)
    for run_id, run in history.runs.items():
        records = _first(by_run[run_id])
        wrong = _wrong(records, run.log, run_pb2.Run.FromString(run.row).session_id)
        if wrong := wrong or _other_repetition(by_run[run_id]):
            evidence = several(f"{r.partition}/{r.offset} {r.id} key {r.key}" for r in records)
            yield Finding(run_id, f"Kafka: {wrong}", evidence)

    for run_id in sorted(set(by_run) - set(history.runs)):
        yield Finding(
            run_id, "Kafka: events of a run that is not there", several(f"{r.partition}/{r.offset} {r.id}" for r in by_run[run_id])
        )


def kafka_keeps_the_order_of_sessions(history: History) -> Iterator[Finding]:
    """The events of a session, each counted where it came first, are in the order of commits."""
    by_session: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(history.records or (), key=lambda r: (r.topic, r.partition, r.offset)):
        by_session[record.key].append(record)
    for session_id, session in history.sessions.items():
        events = [event_of(raw) for raw in session.events if kind_of(raw) not in DELTAS]
        places = {f"{event.run_id}/{event.sequence}": event.position for event in events}
        published = [record for record in _first(by_session[session_id]) if record.id in places]
        for before, after in pairwise(published):
            if places[before.id] > places[after.id]:
                text = f"session {session_id}: Kafka has {after.id} after {before.id}, which was committed later"
                yield Finding(after.id.rpartition("/")[0], text, _places(published))
                break


def _places(records: list[Record]) -> tuple[str, ...]:
    return several(f"{r.partition}/{r.offset} {r.id}" for r in records)


def _other_repetition(records: list[Record]) -> str:
    """What a record says otherwise than the first of its id."""
    first = {record.id: record for record in _first(records)}
    for record in records:
        if unplaced(record.value) != unplaced(first[record.id].value):
            return f"{record.id} was published twice, and says something else at {record.partition}/{record.offset}"
    return ""


def _first(records: list[Record]) -> list[Record]:
    """Repetitions left out."""
    seen: dict[str, Record] = {}
    for record in records:
        seen.setdefault(record.id, record)
    return list(seen.values())


def _wrong(records: list[Record], log: tuple[bytes, ...], session_id: str) -> str:
    expected = [event_of(unplaced(raw)) for raw in log if kind_of(raw) not in DELTAS]
    published = [event_of(unplaced(record.value)) for record in records]
    if [e.sequence for e in published] != [e.sequence for e in expected]:
        missing = sorted({e.sequence for e in expected} - {e.sequence for e in published})
        return f"events {[e.sequence for e in published]} instead of {[e.sequence for e in expected]}; missing {missing}"
    for seen, stored in zip(published, expected, strict=True):
        if seen != stored:
            return f"event {stored.sequence} differs: {event_line(seen.SerializeToString())}"
    if len({record.partition for record in records}) > 1:
        return "one run in several partitions"
    keys = {record.key for record in records}
    ids = [record.id for record in records if record.id != f"{event_of(record.value).run_id}/{event_of(record.value).sequence}"]
    if keys - {session_id} or ids:
        return f"keys {sorted(keys)} instead of {session_id}, ids {ids}"
    return ""


def letters_are_settled_once(history: History) -> Iterator[Finding]:
    """A command that Kafka has is carried out once, whatever it was sent how often, or put aside, and never both."""
    texts: dict[str, list[str]] = defaultdict(list)
    for run_id in history.runs:
        for event in events_of(history, run_id, "run_created", "input_received"):
            parts = getattr(event, str(event.WhichOneof("kind"))).input.parts
            texts["".join(part.text for part in parts)].append(run_id)
    for letter in set(history.letters):
        if wrong := _unsettled(history, letter, texts[letter.text]):
            yield Finding(letter.run_id, f"{letter.id}, which asks for {letter.kind}: {wrong}", tail(history, letter.run_id))


def _unsettled(history: History, letter: Letter, done: list[str]) -> str:
    dead = letter.id in history.dead_letters
    if letter.kind == "cancel":  # a run that had ended stays as it is
        cancelled = events_of(history, letter.run_id, "cancel_requested", "run_completed", "run_failed")
        return "" if dead or cancelled else "the run was not cancelled"
    if len(done) != 1 - dead:
        return f"done {len(done)} times" + (" and put aside" if dead else "")
    return "" if dead or letter.run_id in ("", done[0]) else f"it reached {done[0]}"
