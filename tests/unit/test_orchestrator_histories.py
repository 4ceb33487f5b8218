"""Golden histories: logs that earlier versions wrote must fold to the same end for ever. tests/histories/record.py adds new ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from behest.event.v1 import event_pb2
from orchestrator.domain.run import IllegalEvent, Run, fold
from orchestrator.wire import event_from_proto, event_to_proto

FOLDER = Path(__file__).parent.parent / "histories"
HISTORIES = sorted(FOLDER.glob("*.json"))


def read(path: Path) -> list[event_pb2.Event]:
    return [json_format.ParseDict(event, event_pb2.Event()) for event in json.loads(path.read_text())]


def state(run: Run) -> dict[str, object]:
    return {"phase": run.phase.value, "turn": run.turn, "tool_calls": run.tool_calls, "tokens": run.usage.total_tokens}


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 6


@pytest.mark.feature("R3")
@pytest.mark.parametrize("path", [p for p in HISTORIES if not p.stem.startswith("refused")], ids=lambda p: p.stem)
def test_a_golden_history_folds_to_its_end(path: Path) -> None:
    log = read(path)
    run = fold(Run("run", "session"), map(event_from_proto, log))
    assert run.ended
    assert state(run) == json.loads(path.with_suffix(".end").read_text())


@pytest.mark.feature("E1")
@pytest.mark.parametrize("path", HISTORIES, ids=lambda p: p.stem)
def test_events_come_back_from_the_domain_as_they_went_in(path: Path) -> None:
    for event in read(path):
        assert event_to_proto(event_from_proto(event)) == event


@pytest.mark.feature("R3")
def test_a_history_with_an_illegal_event_is_refused() -> None:
    with pytest.raises(IllegalEvent):
        fold(Run("run", "session"), map(event_from_proto, read(FOLDER / "refused_tool_after_end.json")))


def test_kinds_of_newer_versions_are_passed_over() -> None:
    log = read(FOLDER / "text.json")
    unknown = event_pb2.Event(sequence=2)
    unknown.time.CopyFrom(log[0].time)
    assert fold(Run("run", "session"), map(event_from_proto, [log[0], unknown])).sequence == 2
