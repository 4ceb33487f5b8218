"""kill -9 at each point where a run that asks for approval changes hands: asked once, decided once, run once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as pb
from behest.tool.v1 import tool_pb2
from chassis.faults import ApprovalDecided, Fault
from chassis.rpc.call import PRINCIPAL_KEY
from chassis.waypoints import ARGUMENT, PERMIT
from kit.suites import Caller, SuiteUnderTest, call, check_history, kinds, open_suite_under_test, tool_turns

AGENTS = {"worker": {"tools": ["*"], "permissions": [{"tool": "record", "action": "ask"}]}}
LABELS = ["one", "two"]
POINTS = [
    ("orchestrator", "driver.append.before:2"),
    ("orchestrator", "driver.append.after:2"),
    ("orchestrator", "driver.command.before:1"),
    ("orchestrator", "driver.command.after:2"),
    ("orchestrator", "driver.taken:1"),
    ("orchestrator", "driver.tools.before:1"),
    ("orchestrator", "driver.tools.after:1"),
    ("session_store", "store.append.written:2"),
    ("session_store", "store.append.committed:2"),
    ("session_store", "store.command.written:2"),
    ("session_store", "store.command.committed:2"),
    ("session_store", "store.lease.handed:1"),
    ("tool_executor", "executor.receipt:1"),
]
Given = TypeVar("Given")


async def patiently(ask: Callable[[], Awaitable[Given]], enough: Callable[[Given], object] = lambda given: True) -> Given:
    """What a call gives, once it does and it is enough: meanwhile something may be dead."""
    async with asyncio.timeout(60):
        while True:
            try:
                if enough(given := await ask()):
                    return given
            except ApprovalDecided:
                raise
            except Fault:
                pass
            await asyncio.sleep(0.05)  # what was killed is being started again


async def carried_out(caller: Caller) -> list[event_pb2.Event]:
    """The history of a run whose two calls were approved, each by a request that is repeated until it is answered."""
    create = pb.CreateRunRequest(input=[{"text": "go"}], request_id="order")
    run = (await patiently(lambda: caller.runs.CreateRun(create, timeout=10))).run
    listing = pb.ListApprovalsRequest(run_id=run.id)
    asked = await patiently(lambda: caller.runs.ListApprovals(listing, timeout=10), lambda response: len(response.approvals) == len(LABELS))
    for approval in asked.approvals:
        await patiently(partial(approve, caller, approval))
    return await caller.watch(run.id)


async def approve(caller: Caller, approval: run_pb2.Approval) -> pb.ResolveApprovalResponse:
    """Ann approves, always by the same request."""
    wish = pb.ResolveApprovalRequest(
        approval_id=approval.id,
        arguments_digest=approval.arguments_digest,
        decision=event_pb2.APPROVAL_DECISION_APPROVE,
        request_id=f"yes-{approval.call.id}",
    )
    return await caller.runs.ResolveApproval(wish, timeout=10, metadata=((PRINCIPAL_KEY, "ann"),))


async def start_again_when_dead(suite: SuiteUnderTest, part: str) -> int:
    """The code that a part ended with; it runs again."""
    code = await suite.processes[part].wait()
    await suite.start(part)
    return code


@pytest.mark.feature("R12")
@pytest.mark.feature("R15")
@pytest.mark.feature("A3")
@pytest.mark.parametrize(("part", "point"), POINTS, ids=[point for _, point in POINTS])
async def test_wherever_a_part_is_killed_each_call_is_asked_about_decided_and_run_once(
    part: str, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PERMIT, "1")
    script: dict[str, Any] = {"rules": [{"when": {"equals": "go"}, "turns": tool_turns([LABELS])}]}
    async with open_suite_under_test(tmp_path, script, agents=AGENTS) as suite, call(suite) as caller:
        await suite.terminate(part)
        await suite.start(part, ARGUMENT, f"{point}:kill")
        dying = asyncio.create_task(start_again_when_dead(suite, part))
        events = await carried_out(caller)
        assert await asyncio.wait_for(dying, 60) == -9, f"{part} never came to {point}"
        check_history(events)
        found = kinds(events)
        assert found[-1] == "run_completed", suite.logs()
        assert [found.count(kind) for kind in ("approval_requested", "approval_resolved")] == [2, 2]
        ended = [event.tool_execution_finished.result.status for event in events if event.HasField("tool_execution_finished")]
        unknown = ended.count(tool_pb2.EXECUTION_STATUS_UNKNOWN)
        assert set(suite.effects.values()) == {1} and len(suite.effects) >= len(LABELS) - unknown
