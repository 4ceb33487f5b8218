"""Approvals between the wire and the domain. Pure, as convert.py."""

from __future__ import annotations

import re
from collections.abc import Mapping

from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as pb
from chassis.faults import Violation
from chassis.rpc.call import PRINCIPAL_KEY
from orchestrator.api import convert
from orchestrator.domain.approvals import Decision, Vote
from orchestrator.domain.deciding import Resolve
from orchestrator.operations.approvals import Listed, ListedPage
from orchestrator.operations.ports import RunQuery
from orchestrator.wire_approvals import set_time

MOST_REASON = 1000
MOST_RUNS = 100
PRINCIPAL = re.compile(r"[!-~]([ -~]{0,254}[!-~])?")
DECISIONS = (event_pb2.APPROVAL_DECISION_APPROVE, event_pb2.APPROVAL_DECISION_DENY)


def resolve(request: pb.ResolveApprovalRequest, metadata: Mapping[str, str]) -> Resolve:
    """A decision, checked. Raises RequestInvalid."""
    principal = metadata.get(PRINCIPAL_KEY, "")
    convert.refuse([*_violations(request), *_nobody(principal)])
    return Resolve(request.approval_id, request.arguments_digest, Decision(request.decision), principal, request.reason)


def run_query(request: pb.ListApprovalsRequest) -> RunQuery:
    """The runs whose approvals are listed. Raises RequestInvalid."""
    if not 0 <= request.page_size <= MOST_RUNS:
        convert.refuse([Violation("page_size", f"is {request.page_size}; it lies between 0 and {MOST_RUNS}")])
    states = () if request.all else (int(run_pb2.RUN_STATE_AWAITING_APPROVAL),)
    return RunQuery(request.session_id, states, request.page_size, request.page_token, ever_awaited_approval=True)


def refuse_two_scopes(request: pb.ListApprovalsRequest) -> None:
    """Raises RequestInvalid for a run and something besides that could only contradict it."""
    if request.session_id or request.page_token:
        field = "session_id" if request.session_id else "page_token"
        convert.refuse([Violation(field, "goes without run_id: the approvals of one run are one page; leave one of both out")])


def page(listed: ListedPage) -> pb.ListApprovalsResponse:
    """A page for the wire."""
    return pb.ListApprovalsResponse(approvals=map(approval, listed.approvals), next_page_token=listed.next_page_token)


def approval(listed: Listed) -> run_pb2.Approval:
    """An approval for the wire."""
    asked, given = listed.asked, listed.asked.approval
    assert isinstance(asked.call.body, chat_pb2.ToolCall)
    wire = run_pb2.Approval(
        id=given.id,
        run_id=listed.run_id,
        session_id=listed.session_id,
        agent=listed.agent,
        turn=asked.turn,
        call=asked.call.body,
        arguments_digest=given.digest,
        state=int(listed.standing),  # type: ignore[arg-type]  # the enums share their numbers
        approvals_needed=given.needed,
        votes=[_vote(vote) for vote in given.votes if vote.decision is not Decision.EXPIRE],
    )
    set_time(wire.requested_at, given.requested_at)
    set_time(wire.expires_at, given.expires_at)
    return wire


def _vote(vote: Vote) -> run_pb2.ApprovalVote:
    wire = run_pb2.ApprovalVote(
        principal=vote.principal,
        decision=int(vote.decision),  # type: ignore[arg-type]  # the enums share their numbers
        reason=vote.reason,
    )
    set_time(wire.decided_at, vote.at)
    return wire


def _violations(request: pb.ResolveApprovalRequest) -> list[Violation]:
    found = convert.id_violations(request.request_id)
    for field in ("approval_id", "arguments_digest"):
        if not getattr(request, field):
            found.append(Violation(field, "is empty; it stands in what ListApprovals tells of the approval"))
    if request.decision not in DECISIONS:
        found.append(Violation("decision", f"is {request.decision}; choose APPROVE or DENY"))
    if len(request.reason) > MOST_REASON:
        found.append(Violation("reason", f"has {len(request.reason)} characters; at most {MOST_REASON}"))
    return found


def _nobody(principal: str) -> list[Violation]:
    if PRINCIPAL.fullmatch(principal):
        return []
    what = "must be 1 to 256 printable ASCII characters: who decides is on record"
    return [Violation(f"metadata[{PRINCIPAL_KEY}]", what)]
