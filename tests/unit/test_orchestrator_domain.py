"""History selection, loop detection, and the laws they keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import AgentNotFound, RunEnded, SettingsInvalid
from orchestrator.domain import events as e
from orchestrator.domain.commands import Cancel, Steer, handle
from orchestrator.domain.history import estimate, select
from orchestrator.domain.loops import Step, detect
from orchestrator.domain.values import Agent, Entry, HistoryLimits, Role, Usage
from orchestrator.operations.agents import Agents


def message(number: int, role: Role = Role.USER, tokens: int = 10, calls: tuple[str, ...] = (), answers: str = "") -> Entry:
    return Entry(f"m{number}", role, tokens, calls, answers)


@st.composite
def conversations(draw: st.DrawFn) -> list[Entry]:
    entries: list[Entry] = []
    for turn in range(draw(st.integers(0, 12))):
        entries.append(message(len(entries), tokens=draw(st.integers(1, 50))))
        calls = tuple(f"c{turn}.{i}" for i in range(draw(st.integers(0, 3))))
        entries.append(message(len(entries), Role.ASSISTANT, draw(st.integers(1, 50)), calls))
        entries += [message(len(entries) + i, Role.TOOL, draw(st.integers(1, 50)), (), call) for i, call in enumerate(calls)]
    return entries


@pytest.mark.feature("C2")
@given(conversations(), st.integers(1, 30), st.integers(1, 300))
def test_selection_keeps_the_newest_in_order_and_never_parts_a_call_from_its_results(
    entries: list[Entry], messages: int, tokens: int
) -> None:
    kept = select(entries, HistoryLimits(messages, tokens))
    assert list(kept) == entries[len(entries) - len(kept) :]
    asked = {call for entry in kept for call in entry.calls}
    answered = {entry.answers for entry in kept if entry.role is Role.TOOL}
    assert asked == answered
    newest_group = 1 + len(next((entry.calls for entry in reversed(entries) if entry.role is not Role.TOOL), ()))
    assert len(kept) <= max(messages, newest_group)
    assert sum(entry.tokens for entry in kept) <= max(tokens, sum(entry.tokens for entry in entries[-newest_group:]))


@pytest.mark.feature("C2")
def test_system_messages_are_kept_whatever_the_limits() -> None:
    entries = [message(0, Role.SYSTEM), *(message(i) for i in range(1, 9))]
    assert [entry.id for entry in select(entries, HistoryLimits(2, 1000))] == ["m0", "m7", "m8"]


@pytest.mark.feature("C2")
def test_a_call_without_results_and_a_result_without_a_call_are_left_out() -> None:
    entries = [message(0, Role.TOOL, answers="x"), message(1), message(2, Role.ASSISTANT, calls=("y",)), message(3)]
    assert [entry.id for entry in select(entries, HistoryLimits())] == ["m1", "m3"]


@pytest.mark.feature("C10")
def test_the_estimate_is_a_quarter_of_the_bytes_and_a_frame() -> None:
    assert [estimate(size) for size in (0, 1, 4, 5, 400)] == [4, 5, 5, 6, 104]


def step(tool: str = "t", arguments: str = "a", content: str = "r") -> Step:
    return Step.of([(tool, arguments, content)])


@pytest.mark.feature("R10")
@pytest.mark.parametrize(
    ("steps", "pattern"),
    [
        ([step()] * 3, "identical_calls"),
        ([step()] * 2, ""),
        ([step(), step(content="other"), step()], ""),
        ([step("a"), step("b")] * 3, "cycle"),
        ([step("a"), step("b"), step("c"), step("d")] * 3, "cycle"),
        ([step("a"), step("b")] * 2, ""),
        ([step(arguments=str(i)) for i in range(5)], "no_progress"),
        ([step(arguments=str(i)) for i in range(4)], ""),
        ([step(arguments=str(i), content=str(i)) for i in range(12)], ""),
    ],
)
def test_each_pattern_of_repetition_is_told_and_progress_is_none(steps: list[Step], pattern: str) -> None:
    assert detect(tuple(steps)) == pattern


def test_cancelling_what_has_ended_does_nothing_and_steering_it_is_refused() -> None:
    assert handle(True, Cancel("why")) == ()
    assert handle(False, Cancel("why")) == (e.CancelRequested("why"),)
    with pytest.raises(RunEnded):
        handle(True, Steer(message(1), interrupt=False))


@given(st.lists(st.builds(Usage, *[st.integers(0, 1000)] * 6, st.booleans(), st.just(1)), min_size=1))
def test_a_sum_of_usage_knows_its_cost_only_when_every_part_does(parts: list[Usage]) -> None:
    total = sum(parts, Usage())
    assert total.cost_known == all(part.cost_known for part in parts)
    assert total.calls == len(parts)
    assert total.total_tokens == sum(part.total_tokens for part in parts)


@pytest.mark.feature("A1")
def test_an_unknown_agent_is_refused_with_the_nearest_name() -> None:
    agents = Agents({"assistant": Agent("assistant"), "coder": Agent("coder")}, "coder")
    assert agents.get("").name == "coder"
    with pytest.raises(AgentNotFound, match="did you mean 'assistant'"):
        agents.get("asistant")
    with pytest.raises(SettingsInvalid, match="default_agent"):
        Agents({"a": Agent("a")}, "b")
