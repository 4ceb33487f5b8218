"""kill -9 of each part of a suite while runs are under way: nothing is lost, nothing is repeated, every run ends once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from behest.event.v1 import event_pb2
from behest.tool.v1 import tool_pb2
from kit.suites import SECTIONS, Caller, SuiteUnderTest, call, check_history, kinds, open_suite_under_test, tool_turns

RUNS, TURNS = 4, 6
SHAPES = [pytest.param(True, "suite", id="one-process"), *(pytest.param(False, part, id=part) for part in SECTIONS)]


def script() -> dict[str, Any]:
    """Each run has a script of its own, so that its effects can be told apart."""
    rules = []
    for run in range(RUNS):
        labels = [[f"run{run}.{turn}.a", f"run{run}.{turn}.b"] for turn in range(TURNS)]
        rules.append({"when": {"equals": f"work {run}"}, "turns": tool_turns(labels, wait_ms=40, delay_ms=10)})
    return {"rules": rules}


@pytest.mark.feature("R12")
@pytest.mark.feature("R4")
@pytest.mark.feature("T7")
@pytest.mark.feature("S3")
@pytest.mark.parametrize("at", [1, 5, 9])
@pytest.mark.parametrize(("one_process", "part"), SHAPES)
async def test_a_part_killed_while_runs_are_under_way_costs_no_run_and_repeats_no_effect(
    one_process: bool, part: str, at: int, tmp_path: Path
) -> None:
    async with open_suite_under_test(tmp_path, script(), one_process=one_process) as suite, call(suite) as caller:
        runs = [await caller.create(f"work {number}") for number in range(RUNS)]
        watching = [asyncio.create_task(caller.watch(run.id)) for run in runs]
        await caller.until(runs[0].id, "tool_execution_started", at)
        await suite.kill(part)
        await suite.start(part)
        histories = await asyncio.gather(*watching)
        for number, events in enumerate(histories):
            _check(suite, number, events)
        await _check_replays(caller, histories)


def _check(suite: SuiteUnderTest, number: int, events: list[event_pb2.Event]) -> None:
    check_history(events)
    assert kinds(events)[-1] == "run_completed", suite.logs()
    unknown = _labels(events, tool_pb2.EXECUTION_STATUS_UNKNOWN)
    done = _labels(events, tool_pb2.EXECUTION_STATUS_SUCCEEDED)
    assert len(unknown) + len(done) == 2 * TURNS
    effects = {label: count for label, count in suite.effects.items() if label.startswith(f"run{number}.")}
    assert all(effects[label] == 1 for label in done)
    assert all(effects.get(label, 0) <= 1 for label in unknown)


def _labels(events: list[event_pb2.Event], status: int) -> list[str]:
    """The labels of the calls that ended so."""
    calls: dict[tuple[int, str], str] = {}
    for event in events:
        if event.WhichOneof("kind") == "tool_call_completed":
            done = event.tool_call_completed
            calls[done.turn, done.call.id] = done.call.arguments.decode().split('"label":"')[1].split('"')[0]
    ended = [event.tool_execution_finished for event in events if event.WhichOneof("kind") == "tool_execution_finished"]
    return [calls[end.turn, end.result.call_id] for end in ended if end.result.status == status]


async def _check_replays(caller: Caller, histories: list[list[event_pb2.Event]]) -> None:
    """Who watched through the crash saw what is in the log."""
    for events in histories:
        assert await caller.watch(events[0].run_id) == events


@pytest.mark.feature("R13")
async def test_a_terminated_orchestrator_hands_its_runs_over_without_waiting_for_their_end(tmp_path: Path) -> None:
    async with open_suite_under_test(tmp_path, script()) as suite, call(suite) as caller:
        run = await caller.create("work 0")
        watching = asyncio.create_task(caller.watch(run.id))
        await caller.until(run.id, "tool_execution_started", 3)
        await suite.terminate("orchestrator")
        await suite.start("orchestrator")
        events = await watching
        _check(suite, 0, events)
        assert "run_resumed" in kinds(events)
        assert _labels(events, tool_pb2.EXECUTION_STATUS_UNKNOWN) == []


@pytest.mark.feature("R12")
@pytest.mark.feature("R6")
async def test_queued_runs_survive_the_death_of_everything(tmp_path: Path) -> None:
    async with open_suite_under_test(tmp_path, script(), one_process=True) as suite, call(suite) as caller:
        first = await caller.create("work 0")
        second = await caller.create("work 1", session_id=first.session_id, on_busy=2)
        await caller.until(first.id, "tool_execution_started")
        await suite.kill("suite")
        await suite.start("suite")
        for number, run in enumerate((first, second)):
            _check(suite, number, await caller.watch(run.id))
        texts = [text for role, text in await caller.conversation(first.session_id) if role == "user"]
        assert texts == ["work 0", "work 1"]
