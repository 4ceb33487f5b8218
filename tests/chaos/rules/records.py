"""What must be true of Kafka: it holds every event of every run in order, and what came by it was carried out once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from behest.run.v1 import run_pb2
from chaos.history import DELTAS, History, Letter, Record, event_of, events_of, kind_of, unplaced
from chaos.rules import Finding
from chaos.rules.evidence import event_line, several, tail


def kafka_holds_every_event(history: History) -> Iterator[Finding]:
    """The records of a run, each counted where it came first, are its events save deltas, in order, under its session's key."""
    if history.records is None:
        return
    by_run: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(history.records, key=lambda r: (r.topic, r.partition, r.offset)):
        by_run[record.id.rpartition("/")[0]].append(record)
    for run_id, run in history.runs.items():
        records = _first(by_run[run_id])
        wrong = _wrong(records, run.log, run_pb2.Run.FromString(run.row).session_id)
        if wrong:
            evidence = several(f"{r.partition}/{r.offset} {r.id} key {r.key}" for r in records)
            yield Finding(run_id, f"Kafka: {wrong}", evidence)


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
