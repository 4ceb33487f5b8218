"""Approvals as their users meet them: a suite in this process, its client, and the `behest` command."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as pb
from behest.run.v1.run_service_pb2_grpc import RunServiceStub
from behest.tool.v1 import tool_service_pb2 as tools
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis.faults import ApprovalDecided, ApprovalExpired, ApprovalMismatch, ApprovalNotFound, RequestInvalid, RunNotFound
from chassis.rpc.call import PRINCIPAL_KEY
from kit.ports import neighbouring_ports
from suite.addresses import Service
from suite.client import Behest
from suite.composition import SuiteOptions
from suite.embedded import Suite, open_suite
from suite.handle import RunHandle

ROOT = Path(__file__).parents[2]
ARGUMENTS = {"expression": "6 * 7"}
SCRIPT = {
    "rules": [
        {"when": {"role": "tool", "contains": "denied"}, "turns": [{"text": ["as you wish"]}]},
        {"when": {"role": "tool"}, "turns": [{"text": ["it is 42"]}]},
    ],
    "turns": [{"calls": [{"name": "calculator", "arguments": ARGUMENTS}]}],
    "otherwise": "repeat",
}
ASK = {"tool": "calc*", "action": "ask"}
AWAITING, COMPLETED = run_pb2.RUN_STATE_AWAITING_APPROVAL, run_pb2.RUN_STATE_COMPLETED


@contextlib.asynccontextmanager
async def open_asking(folder: Path, *rules: dict[str, Any], listen: bool = False, **limits: Any) -> AsyncIterator[Suite]:
    clerk = {"tools": ["calculator"], "permissions": list(rules) or [ASK], "limits": limits}
    config = {
        "log": {"level": "warning"},
        "orchestrator": {"agents": {"clerk": clerk}},
        "provider_gateway": {"default_model": "scripted/m", "providers": {"scripted": {"adapter": "scripted", "script": SCRIPT}}},
        "tool_executor": {"database": f"sqlite:{folder / 'tools.db'}"},
        "session_store": {"database": f"sqlite:{folder / 'store.db'}"},
    }
    path = folder / "behest.yaml"
    path.write_text(yaml.safe_dump(config))
    options = SuiteOptions(folder, path, neighbouring_ports() if listen else None, local_model=False)
    async with open_suite(options, listen=listen) as suite:
        yield suite


async def waiting(client: Behest, text: str = "what is 6 * 7?", **order: Any) -> tuple[RunHandle, run_pb2.Approval]:
    """A run that waits, and what it waits for."""
    run = await client.run(text, **order)
    async for event in run:
        if event.HasField("approval_requested"):
            break
    (approval,) = await client.approvals(run_id=run.id)
    return run, approval


async def events_of(run: RunHandle) -> list[event_pb2.Event]:
    return [event async for event in run]


@pytest.mark.feature("R15")
@pytest.mark.feature("A3")
@pytest.mark.feature("A4")
async def test_a_run_waits_without_a_driver_and_goes_on_when_it_is_approved(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as suite, suite.client() as client:
        run, approval = await waiting(client)
        assert (await run.refresh()).state == AWAITING
        assert approval.call.name == "calculator" and json.loads(approval.call.arguments) == ARGUMENTS
        assert approval.arguments_digest == hashlib.sha256(approval.call.arguments).hexdigest()
        assert (approval.state, approval.agent, approval.session_id) == (run_pb2.APPROVAL_STATE_PENDING, "clerk", run.session_id)
        decided = await client.approve(approval, principal="ann@example.com", reason="fine")
        assert decided.state == run_pb2.APPROVAL_STATE_APPROVED
        assert [(vote.principal, vote.reason) for vote in decided.votes] == [("ann@example.com", "fine")]
        assert await run.answer() == "it is 42"
        assert (await run.refresh()).state == COMPLETED
        executor = ToolServiceStub(suite.channels[Service.TOOL_EXECUTOR])
        request = tools.GetExecutionRequest(key=approval.id)
        assert (await executor.GetExecution(request)).execution.approved_by == "ann@example.com"
        assert await client.approvals() == []
        assert [each.id for each in await client.approvals(everything=True)] == [approval.id]


@pytest.mark.feature("A3")
async def test_the_model_reads_who_denied_and_why(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as suite, suite.client() as client:
        run, approval = await waiting(client)
        await client.deny(approval, principal="bob", reason="do it in your head")
        assert await run.answer() == "as you wish"
        finished = [event.tool_execution_finished for event in await events_of(run) if event.HasField("tool_execution_finished")]
        assert [each.result.status for each in finished] == [9]
        messages = await client.messages(run.session_id)
        assert messages[2].message.parts[0].text == "denied by bob: do it in your head"
        with pytest.raises(ApprovalDecided, match="bob denied"):
            await client.approve(approval, principal="ann")


@pytest.mark.feature("A3")
async def test_a_decision_names_the_arguments_an_approval_that_exists_and_who_decides(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as suite, suite.client() as client, suite.client(tenant="other") as other:
        run, approval = await waiting(client)
        runs = RunServiceStub(suite.channels[Service.ORCHESTRATOR])
        request = pb.ResolveApprovalRequest(
            approval_id=approval.id, arguments_digest=approval.arguments_digest, decision=event_pb2.APPROVAL_DECISION_APPROVE
        )
        with pytest.raises(RequestInvalid, match=f"metadata.{PRINCIPAL_KEY}"):
            await runs.ResolveApproval(request)
        with pytest.raises(ApprovalMismatch, match=approval.arguments_digest):
            await client.approve(run_pb2.Approval(id=approval.id, arguments_digest="00"), principal="ann")
        for wrong in ("nothing", f"{run.id}/9/x", "//"):
            with pytest.raises(ApprovalNotFound):
                await client.approve(run_pb2.Approval(id=wrong, arguments_digest="00"), principal="ann")
        with pytest.raises(ApprovalNotFound):
            await other.approve(approval, principal="ann")
        assert await other.approvals() == []
        with pytest.raises(RunNotFound):
            await other.approvals(run_id=run.id)
        request.decision = event_pb2.APPROVAL_DECISION_EXPIRE
        with pytest.raises(RequestInvalid, match="decision"):
            await runs.ResolveApproval(request, metadata=((PRINCIPAL_KEY, "ann"),))
        assert (await run.refresh()).state == AWAITING


@pytest.mark.feature("A3")
async def test_many_decisions_at_once_over_rpc_have_one_winner(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as suite, suite.client() as client:
        run, approval = await waiting(client)
        tries = [client.approve(approval, principal=f"p{i}") if i % 2 else client.deny(approval, principal=f"p{i}") for i in range(10)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, run_pb2.Approval)]
        assert sum(isinstance(outcome, ApprovalDecided) for outcome in outcomes) == 9
        approved = winner.state == run_pb2.APPROVAL_STATE_APPROVED
        assert await run.answer() == ("it is 42" if approved else "as you wish")


@pytest.mark.feature("A3")
async def test_nobody_deciding_in_time_counts_as_denied_and_deciding_later_is_refused(tmp_path: Path) -> None:
    async with open_asking(tmp_path, {**ASK, "expires_ms": 200}) as suite, suite.client() as client:
        run, approval = await waiting(client)
        assert await run.answer() == "as you wish"
        with pytest.raises(ApprovalExpired):
            await client.approve(approval, principal="ann")
        (seen,) = await client.approvals(run_id=run.id, everything=True)
        assert seen.state == run_pb2.APPROVAL_STATE_EXPIRED and not seen.votes


@pytest.mark.feature("R5")
async def test_the_wall_time_goes_on_while_a_run_waits(tmp_path: Path) -> None:
    async with open_asking(tmp_path, max_wall_ms=600) as suite, suite.client() as client:
        run, approval = await waiting(client)
        assert approval.expires_at.ToNanoseconds() - approval.requested_at.ToNanoseconds() <= 600_000_000
        assert (await events_of(run))[-1].run_failed.fault.reason == "TIME_EXHAUSTED"
        (seen,) = await client.approvals(run_id=run.id, everything=True)
        assert seen.state == run_pb2.APPROVAL_STATE_ABANDONED


@pytest.mark.feature("R7")
async def test_a_waiting_run_is_cancelled_at_once(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as suite, suite.client() as client:
        run, _ = await waiting(client)
        await run.cancel("never mind")
        assert (await events_of(run))[-1].run_cancelled.reason == "never mind"
        assert (await run.refresh()).state == run_pb2.RUN_STATE_CANCELLED


@pytest.mark.feature("A3")
async def test_two_people_must_approve_where_the_rule_says_so(tmp_path: Path) -> None:
    async with open_asking(tmp_path, {**ASK, "approvals_needed": 2}) as suite, suite.client() as client:
        run, approval = await waiting(client)
        assert (await client.approve(approval, principal="ann")).state == run_pb2.APPROVAL_STATE_PENDING
        with pytest.raises(ApprovalDecided, match="ann approved"):
            await client.approve(approval, principal="ann")
        assert (await run.refresh()).state == AWAITING
        await client.approve(approval, principal="bob")
        assert await run.answer() == "it is 42"


@pytest.mark.feature("A2")
async def test_a_rule_for_destructive_tools_lets_one_run_that_only_reads(tmp_path: Path) -> None:
    async with open_asking(tmp_path, {"tool": "*", "action": "ask", "destructive_only": True}) as suite, suite.client() as client:
        run = await client.run("what is 6 * 7?")
        assert await run.answer() == "it is 42", "the calculator is read_only"


@pytest.mark.feature("A4")
async def test_approvals_are_listed_by_run_session_and_tenant_page_by_page(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as suite, suite.client() as client:
        found = [await waiting(client, f"question {number}") for number in range(5)]
        ids = [approval.id for _, approval in reversed(found)]
        assert [each.id for each in await client.approvals()] == ids
        assert [each.id for each in await client.approvals(session_id=found[2][0].session_id)] == [found[2][1].id]
        runs = RunServiceStub(suite.channels[Service.ORCHESTRATOR])
        seen, token = [], ""
        while len(seen) < 5:
            page = await runs.ListApprovals(pb.ListApprovalsRequest(page_size=2, page_token=token))
            assert 1 <= len(page.approvals) <= 2
            seen += [each.id for each in page.approvals]
            token = page.next_page_token
        assert seen == ids and not token
        for wrong in ({"page_size": 101}, {"run_id": "r", "session_id": "s"}):
            with pytest.raises(RequestInvalid):
                await runs.ListApprovals(pb.ListApprovalsRequest(**wrong))


@pytest.mark.feature("R12")
@pytest.mark.feature("R15")
async def test_a_run_awaits_its_approval_over_a_restart_of_the_suite(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as suite, suite.client() as client:
        run, approval = await waiting(client)
    async with open_asking(tmp_path) as suite, suite.client() as client:
        assert [each.id for each in await client.approvals()] == [approval.id]
        await client.approve(approval, principal="ann")
        assert await (await client.attach(run.id)).answer() == "it is 42"


async def behest(suite: Suite, *arguments: str) -> tuple[int, str, str]:
    """A run of the command: exit code and what it said."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("services", "gen"))}
    command = [sys.executable, "-m", "suite", *arguments, "--target", suite.settings.listen(Service.ORCHESTRATOR)]
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*command, env=env, **pipes)
    out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


@pytest.mark.feature("A4")
async def test_the_command_lists_approves_and_denies(tmp_path: Path) -> None:
    async with open_asking(tmp_path, listen=True) as suite, suite.client() as client:
        run, approval = await waiting(client)
        code, out, _ = await behest(suite, "approvals", "--no-json")
        assert code == 0 and approval.id in out and 'calculator {"expression"' in out and "pending" in out
        code, out, _ = await behest(suite, "approve", approval.id, "--as", "ann", "--reason", "fine", "--json")
        assert code == 0 and json.loads(out)["votes"][0]["principal"] == "ann"
        assert await run.answer() == "it is 42"
        code, out, error = await behest(suite, "deny", approval.id, "--as", "bob")
        assert code == 1 and "ann approved" in error
        assert (await behest(suite, "deny", "nothing"))[0] == 4
        code, out, _ = await behest(suite, "watch", run.id, "--no-json")
        assert f"approval requested      calculator {approval.id}" in out and "approved by ann: fine" in out
        _, second = await waiting(client, "again")
        code, out, _ = await behest(suite, "deny", second.id, "--digest", "00")
        assert code == 1
        code, out, _ = await behest(suite, "deny", second.id, "--no-json")
        assert code == 0 and out.strip().endswith(": denied")
        assert (await behest(suite, "approvals", "--no-json"))[1].startswith("nothing waits")
