"""The rules of the tool executor: cutting, arguments, stages, traits, the ledger's table."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tool_executor.domain import execution as results
from tool_executor.domain.arguments import MAX_BYTES, ArgumentsRefused, dotted, read_arguments, recorded
from tool_executor.domain.cutting import Bounds, clip, cut
from tool_executor.domain.execution import Execution, Result, Status, ToolCall
from tool_executor.domain.ledger import Verdict, judge
from tool_executor.domain.stages import stages
from tool_executor.domain.tool import Declared, Tool, Traits, contradiction, overpromised

TEXT = st.text(alphabet=st.sampled_from("a\n\r é漢😀"), max_size=6000)


@pytest.mark.feature("T8")
@settings(max_examples=150, deadline=None)
@given(text=TEXT, bounds=st.builds(Bounds, st.integers(1024, 3000), st.integers(3, 60)))
def test_a_cut_text_keeps_within_bytes_and_lines_and_is_both_ends_of_the_whole(text: str, bounds: Bounds) -> None:
    kept = cut(text, bounds)
    assert kept.full_bytes == len(text.encode())
    assert len(kept.text.encode()) <= bounds.max_bytes
    assert kept.text.count("\n") + 1 <= bounds.max_lines
    if not kept.truncated:
        assert kept.text == text
        return
    head, marker, tail = _parts(kept.text)
    assert text.startswith(head) and text.endswith(tail)
    left_out = kept.full_bytes - len(head.encode()) - len(tail.encode())
    assert f"{left_out} bytes left out" in marker and f"{kept.full_bytes} bytes in {text.count(chr(10)) + 1} lines" in marker


def _parts(text: str) -> tuple[str, str, str]:
    head, _, rest = text.partition("\n[... ")
    marker, _, tail = rest.partition(" ...]\n")
    return head, marker, tail


@pytest.mark.feature("T8")
def test_fifty_megabytes_without_a_newline_are_cut_to_fifty_kilobytes() -> None:
    kept = cut("é" * 25_000_000, Bounds())
    assert kept.truncated and kept.full_bytes == 50_000_000
    assert 50_000 < len(kept.text.encode()) <= 50 * 1024


@given(text=st.text(max_size=200), size=st.integers(0, 300))
def test_clipping_never_splits_a_character(text: str, size: int) -> None:
    clipped = clip(text, size)
    assert len(clipped.encode()) <= size and (text.startswith(clipped))


@pytest.mark.feature("T4")
@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (b"[1]", "must be a JSON object, not an array"),
        (b"null", "not null"),
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "NaN is no JSON value"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7"),
        (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "more than 64 levels"),
        (b'{"a":' * 100_000, "levels deep"),
        (b'{"a":' + b"9" * 10_000 + b"}", "a number that cannot be read"),
        (b'{"a": 1e999}', "a number that cannot be read: 1e999 is too large"),
        (b'{"a":"' + b"x" * MAX_BYTES + b'"}', f"at most {MAX_BYTES}"),
    ],
)
def test_arguments_that_are_nonsense_are_refused_with_a_reason(written: bytes, reason: str) -> None:
    with pytest.raises(ArgumentsRefused, match=reason):
        read_arguments(written)


@pytest.mark.parametrize("written", [b"", b"  \n", b"{}"])
def test_no_arguments_may_be_written_as_nothing(written: bytes) -> None:
    assert read_arguments(written) == {}


def test_deep_but_allowed_arguments_are_taken() -> None:
    assert read_arguments(b'{"a":' + b"[" * 62 + b"]" * 62 + b', "b": [[], {}, []]}')["b"] == [[], {}, []]


def test_arguments_beyond_the_bound_are_recorded_by_size_and_digest() -> None:
    assert recorded(b"{}") == b"{}"
    kept = json.loads(recorded(b"x" * (MAX_BYTES + 1)))
    assert kept["omitted_bytes"] == MAX_BYTES + 1 and len(kept["sha256"]) == 64


def test_paths_are_written_as_people_write_them() -> None:
    assert dotted(["cities", 0, "name"]) == "cities[0].name"
    assert dotted([]) == ""


@pytest.mark.feature("T5")
@given(st.lists(st.booleans(), max_size=12))
def test_stages_keep_the_order_and_leave_unsafe_calls_alone(safe: list[bool]) -> None:
    groups = stages(list(enumerate(safe)))
    assert [call for group in groups for call in group] == list(range(len(safe)))
    for group in groups:
        assert len(group) == 1 or all(safe[call] for call in group)
    for before, after in pairwise(groups):
        assert not (safe[before[-1]] and safe[after[0]]), "neighbours that may run together are together"


@pytest.mark.feature("T1")
def test_unsaid_traits_are_the_careful_choice() -> None:
    assert Declared().resolve() == Traits(
        read_only=False, idempotent=False, destructive=True, open_world=True, concurrency_safe=False, long_running=False
    )


@pytest.mark.feature("T1")
def test_read_only_implies_what_follows_from_it() -> None:
    traits = Declared(read_only=True).resolve()
    assert traits.idempotent and traits.concurrency_safe and not traits.destructive and traits.open_world
    assert contradiction(traits) is None
    assert "destructive" in str(contradiction(Declared(read_only=True, destructive=True).resolve()))


def test_traits_over_others_take_what_is_unsaid_from_them() -> None:
    own = Declared(read_only=True, open_world=False).resolve()
    assert Declared(long_running=True).resolve_over(own) == replace(own, long_running=True)
    assert Declared(read_only=False).resolve_over(own) == Traits()


def test_promising_more_than_the_function_does_is_noticed() -> None:
    assert overpromised(Declared(read_only=True).resolve(), Traits()) == "read_only"
    assert overpromised(Declared(open_world=False).resolve(), Traits()) == "open_world"
    assert overpromised(Traits(), Declared(read_only=True).resolve()) is None


@pytest.mark.feature("T1")
def test_the_version_changes_when_the_tool_does() -> None:
    tool = Tool("t", "d", b"{}", "m:t", 30.0)
    assert tool.version == Tool("t", "d", b"{}", "m:t", 30.0).version
    assert len({tool.version, replace(tool, description="e").version, replace(tool, timeout=1.0).version}) == 3


ASKED = Execution("tenant", "run/1", ToolCall("1", "pay", b"{}"), "me", 100.0, repeatable=False)
CLAIM = replace(ASKED, instance="other", started_at=90.0)
REPEATABLE = replace(ASKED, repeatable=True)


@pytest.mark.feature("T7")
@pytest.mark.parametrize(
    ("asked", "held", "lives", "verdict"),
    [
        (ASKED, None, False, Verdict.BEGIN),
        (ASKED, replace(CLAIM, call=ToolCall("1", "pay", b'{"a":1}')), True, Verdict.REUSED),
        (ASKED, replace(CLAIM, call=ToolCall("1", "refund", b"{}")), False, Verdict.REUSED),
        (ASKED, replace(CLAIM, result=Result(Status.FAILED)), False, Verdict.FINISHED),
        (ASKED, CLAIM, True, Verdict.ELSEWHERE),
        (ASKED, CLAIM, False, Verdict.UNKNOWN),
        (REPEATABLE, CLAIM, False, Verdict.UNKNOWN),
        (ASKED, replace(CLAIM, repeatable=True), False, Verdict.UNKNOWN),
        (REPEATABLE, replace(CLAIM, repeatable=True), False, Verdict.TAKE_OVER),
        (ASKED, replace(CLAIM, instance="me"), True, Verdict.UNKNOWN),
    ],
)
def test_the_ledger_judges_by_its_table(asked: Execution, held: Execution | None, lives: bool, verdict: Verdict) -> None:
    assert judge(asked, held, lives).verdict is verdict


@pytest.mark.feature("T7")
def test_a_takeover_counts_the_attempt_and_an_orphan_is_said_to_be_unknown() -> None:
    assert judge(REPEATABLE, replace(CLAIM, repeatable=True, attempt=2), False).execution.attempt == 3
    orphan = judge(ASKED, CLAIM, False).execution
    assert orphan.result is not None and orphan.result.status is Status.UNKNOWN and orphan.result.effect_unknown
    assert orphan.duration == 10.0 and "was not run again" in orphan.result.content


@pytest.mark.feature("T6")
@given(message=st.text(max_size=6000), name=st.text(min_size=1, max_size=50))
def test_failures_are_valid_short_json_whatever_the_message(message: str, name: str) -> None:
    for result in (results.failed(message), results.tool_not_found(name, [name]), results.timed_out(name, 1.0, True)):
        read = json.loads(result.content)
        assert result.is_error and {"error", "message"} <= read.keys() and len(result.content.encode()) < 60_000


@pytest.mark.feature("T7")
@pytest.mark.parametrize(("repeatable", "effect_unknown"), [(True, False), (False, True)])
def test_interrupted_tools_say_whether_they_may_have_taken_effect(repeatable: bool, effect_unknown: bool) -> None:
    for result in (results.timed_out("t", 30.0, repeatable), results.cancelled("t", repeatable)):
        assert result.effect_unknown is effect_unknown
        assert ("may have taken effect" in result.content) is effect_unknown
    assert not results.never_started("t").effect_unknown
