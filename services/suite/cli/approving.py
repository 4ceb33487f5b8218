"""`behest approvals`, `behest approve` and `behest deny`: tool calls that wait for people."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from behest.event.v1 import event_pb2 as event_pb
from behest.run.v1 import run_pb2 as run_pb
from chassis.faults import ApprovalNotFound
from suite import timeline
from suite.cli.listing import list_all, with_client
from suite.cli.outcome import Exit
from suite.cli.output import Column, Output
from suite.cli.reach import Where
from suite.client import Behest
from suite.plain import enum_word

COLUMNS = [Column("approval", whole=True), Column("state", whole=True), Column("expires", whole=True), Column("by"), Column("call")]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person decided. Without a digest, about the arguments as they are listed now; without a name, as the one logged in."""

    approval_id: str
    approves: bool
    reason: str = ""
    principal: str = ""
    digest: str = ""


def run_approvals(where: Where, run: str, session: str, json: bool | None, *, everything: bool) -> Exit:
    """`behest approvals`."""

    async def show(client: Behest, output: Output) -> Exit:
        found = await client.approvals(run_id=run, session_id=session, everything=everything)
        empty = "nothing was ever asked for" if everything else "nothing waits for approval; --all shows what was decided"
        return list_all(output, found, COLUMNS, _cells, empty)

    return with_client(where, show, json)


def run_decide(where: Where, verdict: Verdict, json: bool | None) -> Exit:
    """`behest approve` and `behest deny`."""

    async def show(client: Behest, output: Output) -> Exit:
        approval = await _found(client, verdict.approval_id)
        if verdict.digest:
            approval.arguments_digest = verdict.digest
        decide = client.approve if verdict.approves else client.deny
        decided = await decide(approval, reason=verdict.reason, principal=verdict.principal or getpass.getuser())
        if output.json:
            output.message(decided)
        else:
            output.line(f"{timeline.shortened(timeline.call_text(decided.call))}: {_standing(decided)}")
        return Exit.OK

    return with_client(where, show, json)


async def _found(client: Behest, approval_id: str) -> run_pb.Approval:
    run_id = approval_id.partition("/")[0]
    for approval in await client.approvals(run_id=run_id, everything=True) if run_id else ():
        if approval.id == approval_id:
            return approval
    raise ApprovalNotFound(f"no approval {approval_id!r}; `behest approvals` lists them", metadata={"approval_id": approval_id})


def _standing(approval: run_pb.Approval) -> str:
    word = enum_word(run_pb.ApprovalState.DESCRIPTOR, approval.state)
    if approval.state != run_pb.APPROVAL_STATE_PENDING or approval.approvals_needed <= 1:
        return word
    return f"{len(approval.votes)} of {approval.approvals_needed}"


def _cells(approval: run_pb.Approval) -> Sequence[str]:
    voters = ", ".join(f"{'' if vote.decision == event_pb.APPROVAL_DECISION_APPROVE else '!'}{vote.principal}" for vote in approval.votes)
    return approval.id, _standing(approval), _moment(approval.expires_at), voters, timeline.call_text(approval.call)


def _moment(stamp: Timestamp) -> str:
    return stamp.ToDatetime().isoformat(" ", "minutes") + " UTC"
