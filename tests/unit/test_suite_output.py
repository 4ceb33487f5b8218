"""What people read in a terminal fits into it."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from suite.cli.listing import TIMELINE_HEAD, timeline_line
from suite.cli.outcome import broken, command
from suite.cli.output import Column, table_lines
from suite.timeline import Row, duration

COLUMNS = [Column("run", whole=True), Column("age", True, True), Column("input"), Column("more")]


def test_whole_columns_stay_whole_and_the_others_are_cut_to_the_terminal() -> None:
    head, row = table_lines(COLUMNS, [["r" * 36, "3 min", "i" * 70, "m" * 30]], 80)
    assert head.split() == ["run", "age", "input", "more"]
    assert "r" * 36 in row and "3 min" in row and row.count("…") == 2 and cell_len(row) == 80


def test_a_table_with_room_is_not_cut_and_numbers_stand_to_the_right() -> None:
    lines = table_lines(COLUMNS[:2], [["a", "3 min"], ["bc", "12 s"]], None)
    assert lines == ["run     age", "a     3 min", "bc     12 s"]


def test_wide_characters_count_twice() -> None:
    _, row = table_lines([Column("title")], [["日本語日本語日本語"]], 11)
    assert cell_len(row) <= 11 and row.endswith("…")


def test_a_terminal_too_narrow_for_the_whole_columns_cuts_none_of_them() -> None:
    _, row = table_lines(COLUMNS[:2], [["r" * 36, "3 min"]], 20)
    assert row.startswith("r" * 36)


def test_lines_are_broken_between_words_and_keep_their_own_breaks() -> None:
    assert broken("aa bb cc\n  dd ee ff", 6) == "aa bb\ncc\n  dd\n  ee\n  ff"
    assert broken("short", 6) == "short"
    assert broken("https://example.com/long", 6) == "https://example.com/long"


def test_details_of_a_timeline_go_on_below_themselves() -> None:
    row = Row(7, 7, 12.34, "tool execution finished", "word " * 19 + "end", "1 → 2")
    indent = TIMELINE_HEAD.index("details")
    first, *rest = broken(timeline_line(row), 100, indent).split("\n")
    assert first.index("word") == indent and rest and all(line.startswith(" " * indent + "word") for line in rest[:1])
    assert all(len(line) <= 100 for line in [first, *rest])


def test_a_duration_has_a_unit_that_says_something() -> None:
    assert [duration(seconds) for seconds in (0.0171, 0.99, 1.25, 75)] == ["17 ms", "990 ms", "1.2 s", "75.0 s"]


def test_the_command_is_told_as_it_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", [".venv/bin/behest", "up"])
    assert command() == ".venv/bin/behest"
    monkeypatch.setattr("sys.argv", ["/x/suite/__main__.py", "up"])
    assert command() == "behest"
