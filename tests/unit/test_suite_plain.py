"""Messages as JSON that programs like to read, and logs as lines that people do."""

from __future__ import annotations

import json

from google.protobuf.timestamp_pb2 import Timestamp

from behest.chat.v1 import chat_pb2 as chat_pb
from behest.event.v1 import event_pb2 as event_pb
from behest.run.v1 import run_pb2 as run_pb
from behest.tool.v1 import tool_pb2 as tool_pb
from kit.fake_run_service import log_of, numbered
from suite.cli.listing import age
from suite.plain import enum_word, json_line, plain
from suite.timeline import rows, shortened


def test_numbers_are_numbers_enums_words_and_times_iso() -> None:
    run = run_pb.Run(id="r", state=run_pb.RUN_STATE_COMPLETED, sequence=2**40, metadata={"b": "2", "a": "1"})
    run.created_at.FromJsonString("2026-01-02T03:04:05Z")
    expected = {"id": "r", "state": "completed", "sequence": 2**40, "created_at": "2026-01-02T03:04:05Z", "metadata": {"a": "1", "b": "2"}}
    assert plain(run) == expected


def test_json_in_bytes_is_shown_as_what_it_holds_and_other_bytes_as_base64() -> None:
    assert plain(chat_pb.ToolCall(arguments=b'{"a": 1}')) == {"arguments": {"a": 1}}
    assert plain(chat_pb.Blob(data=b"\xff\x00")) == {"data": "/wA="}


def test_an_unknown_enum_number_stays_a_number() -> None:
    assert enum_word(run_pb.RunState.DESCRIPTOR, 99) == "99"
    assert enum_word(chat_pb.ToolChoice.Mode.DESCRIPTOR, chat_pb.ToolChoice.MODE_NAMED) == "named"


def test_an_object_is_one_line_even_when_its_text_has_several() -> None:
    assert "\n" not in json_line(plain(chat_pb.Part(text="a\nb")))
    assert json.loads(json_line({"ü": "€"})) == {"ü": "€"}


def test_deltas_in_a_row_share_one_line_of_the_timeline() -> None:
    found = list(rows(log_of(["Hel", "lo"])))
    assert [row.sequence for row in found] == ["1", "2", "3", "4-5", "6", "7"]
    assert found[3].details == '"Hello"'


def test_every_kind_of_event_has_a_line() -> None:
    kinds = [field.name for field in event_pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields]
    events = []
    for kind in kinds:
        event = event_pb.Event()
        getattr(event, kind).SetInParent()
        events.append(event)
    found = list(rows(numbered(events)))
    assert [row.kind for row in found] == [kind.replace("_", " ") for kind in kinds]


def test_a_tool_result_tells_status_and_duration() -> None:
    result = tool_pb.ToolResult(tool="calculator", status=tool_pb.EXECUTION_STATUS_SUCCEEDED, duration_ms=1.25, replayed=True)
    event = event_pb.Event(tool_execution_finished=event_pb.ToolExecutionFinished(result=result))
    assert next(rows(numbered([event]))).details == "calculator succeeded, 1.2 ms, remembered"


def test_details_are_cut_to_one_short_line() -> None:
    assert shortened("a\n b   c") == "a b c"
    assert len(shortened("x" * 500)) == 96


def test_an_age_is_told_in_its_largest_unit() -> None:
    ages = [age(Timestamp(seconds=1000), now) for now in (1000, 1059, 1060, 1000 + 7200, 1000 + 90_000, 990)]
    assert ages == ["0 s", "59 s", "1 min", "2 h", "1 d", "0 s"]
