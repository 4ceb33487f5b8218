"""Commands from a real Kafka, carried out by a suite in this process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as pb
from chassis.kafka.cloud_events import Header
from kit.commands import Commanded, headers, open_commanded, start
from kit.kafka import KafkaCluster

ROOT = Path(__file__).parents[2]
STALLED = {"turns": [{"text": ["thinking"], "fault": {"kind": "stall", "after_pieces": 1}}]}
CALLING = {
    "rules": [{"when": {"role": "tool"}, "turns": [{"text": ["done"]}]}],
    "turns": [{"calls": [{"name": "time"}]}],
    "otherwise": "repeat",
}
ASK = {"tool": "time", "action": "ask"}
AWAITING = run_pb2.RUN_STATE_AWAITING_APPROVAL
CANCELLED, COMPLETED = run_pb2.RUN_STATE_CANCELLED, run_pb2.RUN_STATE_COMPLETED


def last(record: object, name: str) -> str:
    """The last header of a name."""
    return [value.decode() for key, value in record.headers if key == name][-1]  # type: ignore[attr-defined]


@pytest.mark.feature("E5")
@pytest.mark.feature("R20")
async def test_a_command_starts_a_run_for_its_tenant_and_in_its_trace(kafka: KafkaCluster, tmp_path: Path) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with open_commanded(kafka, tmp_path) as commanded:
        session = await commanded.new_session("acme")
        order = start("hello", session_id=session, metadata={"ticket": "42"})
        await commanded.send("start", order, key=session, tenant="acme", traceparent=trace)
        (run,) = await commanded.runs_when(lambda runs: runs and runs[0].state == COMPLETED, "acme")
        assert (run.session_id, dict(run.metadata)) == (session, {"ticket": "42"})
        assert await commanded.all_runs() == []
        async with commanded.suite.client(tenant="acme") as client:
            assert {event.traceparent.split("-")[1] for event in await client.replay(run.id)} == {trace.split("-")[1]}


@pytest.mark.feature("E5")
@pytest.mark.feature("R14")
@pytest.mark.feature("R7")
async def test_commands_of_a_session_are_carried_out_in_their_order_and_once_however_often_they_come(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    async with open_commanded(kafka, tmp_path, script=STALLED) as commanded:
        id_ = await commanded.send("start", start("go"), key="k")
        (run,) = await commanded.runs_when(len)
        await commanded.send("start", start("go"), id_, key="k")
        for name in ("one", "two"):
            said = pb.SendInputRequest(run_id=run.id, input=[{"text": name}])
            await commanded.send("input", said, name, key="k")
            await commanded.send("input", said, name, key="k")
        for _ in range(2):
            await commanded.send("cancel", pb.CancelRunRequest(run_id=run.id, reason="enough"), "stop", key="k")
        (run,) = await commanded.runs_when(lambda runs: runs[0].state == CANCELLED)
        await commanded.settled(8)
        async with commanded.suite.client() as client:
            events = await client.replay(run.id)
        heard = [event.input_received.input.parts[0].text for event in events if event.HasField("input_received")]
        assert heard == ["one", "two"]
        assert [event.cancel_requested.reason for event in events if event.HasField("cancel_requested")] == ["enough"]
        assert await kafka.records(commanded.dead) == []


@pytest.mark.feature("E5")
async def test_what_cannot_be_carried_out_is_put_aside_unchanged_with_the_reason_and_where_it_stood(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    async with open_commanded(kafka, tmp_path, partitions=1, tenants=["default", "acme"]) as commanded:
        order = start("go").SerializeToString()
        await commanded.send("start", start("go"), "taken", key="k")
        broken: list[tuple[bytes | None, list[Header], str, str]] = [
            (b"\xff\xff\xff", headers("start", "1"), "REQUEST_INVALID", "the value is no behest.run.v1.CreateRunRequest"),
            (order, [("x", b"\xff"), *headers("start", "2")[:-1]], "REQUEST_INVALID", "the header ce_type is missing"),
            (order, headers("dance", "3"), "METHOD_NOT_FOUND", "ce_type is one of"),
            (order, headers("forbid", "4"), "METHOD_NOT_FOUND", "dev.behest.command.approve.v1"),
            (order, headers("start", "5", "evil"), "REQUEST_INVALID", "tenant 'evil' may not send commands"),
            (start("go", request_id="6b").SerializeToString(), headers("start", "6"), "REQUEST_INVALID", "make them equal"),
            (start("other").SerializeToString(), headers("start", "taken"), "REQUEST_ID_REUSED", "with another payload"),
            (None, headers("start", "8"), "INPUT_EMPTY", "the input is empty"),
            (start("go", session_id="gone").SerializeToString(), headers("start", "9"), "SESSION_NOT_FOUND", "no session 'gone'"),
            (pb.CancelRunRequest(run_id="gone").SerializeToString(), headers("cancel", "10"), "RUN_NOT_FOUND", ""),
            (order + b"\xfa\x7f\x01x", headers("start", "11"), "REQUEST_INVALID", "fields that this version does not know"),
        ]
        for value, given, _, _ in broken:
            await kafka.send(commanded.topic, value, b"k", given)
        await commanded.settled(len(broken) + 1)
        dead = await commanded.dead_letters(len(broken))
        assert len(await commanded.all_runs()) == 1
        assert [(r.key, r.value) for r in dead] == [(b"k", value) for value, *_ in broken]
        assert [list(r.headers[: len(given)]) for r, (_, given, _, _) in zip(dead, broken, strict=True)] == [
            given for _, given, _, _ in broken
        ]
        assert [last(r, "behest-dead-reason") for r in dead] == [reason for *_, reason, _ in broken]
        for record, (*_, text) in zip(dead, broken, strict=True):
            assert text in last(record, "behest-dead-message")
        assert {last(r, "behest-dead-domain") for r in dead} == {"orchestrator.behest.dev", "session-store.behest.dev"}
        places = [(last(r, "behest-dead-topic"), last(r, "behest-dead-partition"), last(r, "behest-dead-offset")) for r in dead]
        assert places == [(commanded.topic, "0", str(offset)) for offset in range(1, len(broken) + 1)]


@pytest.mark.feature("E5")
async def test_commands_wait_behind_a_dead_letter_that_cannot_be_kept(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with open_commanded(kafka, tmp_path, partitions=1) as commanded:
        await kafka.delete_topic(commanded.dead)
        await commanded.send("dance", start("no such thing"))
        await commanded.send("start", start("behind it"))
        await kafka.send(kafka.topic("runs"), b"", key=b"a moment passes")
        assert await commanded.all_runs() == []
        await kafka.create_topic(commanded.dead)
        (run,) = await commanded.runs_when(len)
        assert (run.title, len(await commanded.dead_letters())) == ("behind it", 1)


@pytest.mark.feature("E5")
async def test_a_dead_letter_that_is_sent_again_once_it_can_be_carried_out_is_carried_out(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with open_commanded(kafka, tmp_path) as commanded:
        await commanded.send("start", start("go", session_id="later"), "again")
        (dead,) = await commanded.dead_letters()
        await commanded.new_session(session_id="later")
        await kafka.send(commanded.topic, dead.value, dead.key, dead.headers)
        (run,) = await commanded.runs_when(lambda runs: runs and runs[0].state == COMPLETED)
        assert run.session_id == "later"


@pytest.mark.feature("E5")
async def test_two_orchestrators_share_the_partitions_and_one_that_leaves_gives_its_own_back_at_once(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    async with open_commanded(kafka, tmp_path, partitions=4) as commanded:
        await send_some(commanded, "a")
        async with commanded.another_orchestrator():
            await until_members(commanded, 2)
            await send_some(commanded, "b")
            await commanded.runs_when(lambda runs: len(runs) == 16)
        await send_some(commanded, "c")
        runs = await commanded.runs_when(lambda runs: len(runs) >= 24)
        await commanded.settled(24)
        assert sorted(run.title for run in runs) == sorted(f"{name}{number}" for name in "abc" for number in range(8))


@pytest.mark.feature("X5")
@pytest.mark.feature("R20")
async def test_the_example_starts_a_run(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with open_commanded(kafka, tmp_path) as commanded:
        example = [sys.executable, str(ROOT / "examples" / "command.py"), kafka.bootstrap_servers, "What is 17 * 23?", commanded.topic]
        paths = os.pathsep.join(str(ROOT / folder) for folder in ("services", "gen"))
        process = await asyncio.create_subprocess_exec(*example, env={**os.environ, "PYTHONPATH": paths}, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        (run,) = await commanded.runs_when(len)
        assert run.title == "What is 17 * 23?"
        assert f"Sent {run.metadata['command']};" in said.decode()


def approving(approval: run_pb2.Approval, **values: Any) -> pb.ResolveApprovalRequest:
    """A decision about an approval as it stands."""
    approve = event_pb2.APPROVAL_DECISION_APPROVE
    return pb.ResolveApprovalRequest(
        **{"approval_id": approval.id, "arguments_digest": approval.arguments_digest, "decision": approve, **values}
    )


async def asked(commanded: Commanded, key: str) -> run_pb2.Approval:
    """What a run waits for that a command started."""
    await commanded.send("start", start(key, metadata={"key": key}), key=key)
    runs = await commanded.runs_when(lambda runs: any(run.title == key and run.state == AWAITING for run in runs))
    (run,) = [run for run in runs if run.title == key]
    async with commanded.suite.client() as client:
        (approval,) = await client.approvals(run_id=run.id)
    return approval


@pytest.mark.feature("E5")
@pytest.mark.feature("A3")
@pytest.mark.feature("R14")
async def test_a_command_approves_a_waiting_call_once_however_often_it_comes(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with open_commanded(kafka, tmp_path, script=CALLING, permissions=[ASK]) as commanded:
        approval = await asked(commanded, "pay")
        for _ in range(3):
            await commanded.send("approve", approving(approval, reason="fine"), "yes", key="k", ce_principal="ann@example.com")
        (run,) = await commanded.runs_when(lambda runs: runs[0].state == COMPLETED)
        await commanded.send("approve", approving(approval, reason="fine"), "yes", key="k", ce_principal="ann@example.com")
        await commanded.settled(5)
        async with commanded.suite.client() as client:
            events = await client.replay(run.id)
            (seen,) = await client.approvals(run_id=run.id, everything=True)
        assert [(vote.principal, vote.reason) for vote in seen.votes] == [("ann@example.com", "fine")]
        assert sum(event.HasField("approval_resolved") for event in events) == 1
        assert sum(event.HasField("tool_execution_started") for event in events) == 1
        assert await kafka.records(commanded.dead) == []


@pytest.mark.feature("E5")
@pytest.mark.feature("A4")
async def test_who_only_reads_and_writes_kafka_can_approve(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with open_commanded(kafka, tmp_path, script=CALLING, permissions=[ASK]) as commanded:
        await commanded.send("start", start("pay"))
        kind = ("ce_type", b"dev.behest.approval.requested.v1")
        records = await kafka.records_when(kafka.topic("runs"), lambda records: any(kind in record.headers for record in records))
        (value,) = [record.value for record in records if kind in record.headers]
        requested = event_pb2.Event.FromString(value).approval_requested
        told = {"approval_id": requested.approval_id, "arguments_digest": requested.arguments_digest}
        await commanded.send("approve", approving(run_pb2.Approval(), **told), ce_principal="ann")
        await commanded.runs_when(lambda runs: runs[0].state == COMPLETED)


@pytest.mark.feature("E5")
@pytest.mark.feature("A3")
async def test_decisions_that_cannot_count_are_put_aside_with_the_reason(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with open_commanded(kafka, tmp_path, partitions=1, script=CALLING, permissions=[ASK]) as commanded:
        approval = await asked(commanded, "pay")
        ann = {"ce_principal": "ann"}
        wrong: list[tuple[pb.ResolveApprovalRequest, dict[str, str], str]] = [
            (approving(approval), {}, "REQUEST_INVALID"),
            (approving(approval, decision=event_pb2.APPROVAL_DECISION_EXPIRE), ann, "REQUEST_INVALID"),
            (approving(approval, approval_id="gone/1/c"), ann, "APPROVAL_NOT_FOUND"),
            (approving(approval, arguments_digest="00"), ann, "APPROVAL_MISMATCH"),
        ]
        for number, (request, more, _) in enumerate(wrong):
            await commanded.send("approve", request, f"w{number}", key="k", **more)
        await commanded.send("approve", approving(approval), "elsewhere", key="k", tenant="other", **ann)
        denial = approving(approval, decision=event_pb2.APPROVAL_DECISION_DENY, reason="no")
        await commanded.send("approve", denial, "no", key="k", **ann)
        await commanded.send("approve", approving(approval), "late", key="k", ce_principal="bob")
        await commanded.send("approve", approving(approval), "no", key="k", **ann)
        await commanded.runs_when(lambda runs: runs[0].state == COMPLETED)
        dead = await commanded.dead_letters(len(wrong) + 3)
        reasons = [*(reason for *_, reason in wrong), "APPROVAL_NOT_FOUND", "APPROVAL_DECIDED", "REQUEST_ID_REUSED"]
        assert [last(record, "behest-dead-reason") for record in dead] == reasons


@pytest.mark.feature("E5")
@pytest.mark.feature("A3")
async def test_an_approval_that_comes_too_late_is_put_aside_and_the_call_does_not_run(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with open_commanded(kafka, tmp_path, script=CALLING, permissions=[{**ASK, "expires_ms": 1}]) as commanded:
        await commanded.send("start", start("pay"))
        (run,) = await commanded.runs_when(lambda runs: runs and runs[0].state == COMPLETED)
        async with commanded.suite.client() as client:
            (approval,) = await client.approvals(run_id=run.id, everything=True)
            await commanded.send("approve", approving(approval), ce_principal="ann")
            (dead,) = await commanded.dead_letters()
            assert last(dead, "behest-dead-reason") == "APPROVAL_EXPIRED"
            assert not any(event.HasField("tool_execution_started") for event in await client.replay(run.id))


@pytest.mark.feature("E5")
@pytest.mark.feature("A3")
async def test_of_commands_to_two_orchestrators_one_decides(kafka: KafkaCluster, tmp_path: Path) -> None:
    async with (
        open_commanded(kafka, tmp_path, partitions=4, script=CALLING, permissions=[ASK]) as commanded,
        commanded.another_orchestrator(),
    ):
        await until_members(commanded, 2)
        approval = await asked(commanded, "pay")
        for number in range(8):
            await commanded.send("approve", approving(approval), f"try-{number}", key=str(number), ce_principal=f"p{number}")
        (run,) = await commanded.runs_when(lambda runs: runs[0].state == COMPLETED)
        dead = await commanded.dead_letters(7)
        assert {last(record, "behest-dead-reason") for record in dead} == {"APPROVAL_DECIDED"}
        async with commanded.suite.client() as client:
            assert sum(event.HasField("approval_resolved") for event in await client.replay(run.id)) == 1


async def send_some(commanded: Commanded, name: str) -> None:
    for number in range(8):
        await commanded.send("start", start(f"{name}{number}"), f"{name}{number}", key=str(number))


async def until_members(commanded: Commanded, count: int) -> None:
    """Returns when the group is stable and has so many members."""
    async with asyncio.timeout(20), commanded.kafka.admin() as admin:
        while True:
            (described,) = (await admin.describe_consumer_groups([commanded.group]))[0].groups
            if described[2] == "Stable" and len(described[5]) == count:
                return
            await asyncio.sleep(0.05)
