"""The approvals in a run's log, of all its turns, and what a decision about one of them adds to the log. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from chassis.faults import ApprovalDecided, ApprovalExpired, ApprovalMismatch, ApprovalNotFound, RunEnded
from orchestrator.domain import events as e
from orchestrator.domain.approvals import Approval, Decision, Standing, Vote
from orchestrator.domain.run import Recorded
from orchestrator.domain.values import CallId, ToolCall


@dataclass(frozen=True, slots=True)
class Resolve:
    """Decide about a call that waits for approval. `digest` says which arguments were looked at."""

    approval_id: str
    digest: str
    decision: Decision
    principal: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """An approval with the call that it is about."""

    turn: int
    call: ToolCall
    approval: Approval


@dataclass(slots=True)
class Approvals:
    """The approvals of one run, in the order in which they were asked for. `take` every event of its log, in order."""

    agent: str = ""
    sequence: int = 0
    ended: bool = False
    _calls: dict[CallId, ToolCall] = field(default_factory=dict)
    _asked: dict[str, Asked] = field(default_factory=dict)

    def take(self, log: Iterable[Recorded]) -> None:
        """Goes on with a stretch of the log."""
        for recorded in log:
            self.sequence = recorded.sequence
            self._take(recorded)

    def all(self) -> tuple[Asked, ...]:
        """Every approval."""
        return tuple(self._asked.values())

    def find(self, approval_id: str) -> Asked:
        """One approval. Raises ApprovalNotFound."""
        asked = self._asked.get(approval_id)
        if asked is None:
            raise not_found(approval_id)
        return asked

    def standing(self, asked: Asked) -> Standing:
        """Where an approval stands; one that the run's end overtook is abandoned."""
        standing = asked.approval.standing
        return Standing.ABANDONED if self.ended and standing is Standing.PENDING else standing

    def _take(self, recorded: Recorded) -> None:
        match recorded.event:
            case e.RunCreated(agent):
                self.agent = agent.name
            case e.ModelStarted():
                self._calls.clear()
            case e.ToolCallCompleted(_, call):
                self._calls[call.id] = call
            case e.ApprovalRequested(turn, id_, call_id, _, digest, expires_at, needed):
                approval = Approval(id_, digest, needed, recorded.time, expires_at)
                self._asked[id_] = Asked(turn, self._calls[call_id], approval)
            case e.ApprovalResolved(id_, decision, principal, reason) if id_ in self._asked:
                asked, vote = self._asked[id_], Vote(principal, decision, reason, recorded.time)
                self._asked[id_] = replace(asked, approval=asked.approval.with_vote(vote))
            case e.RunCompleted() | e.RunFailed() | e.RunCancelled():
                self.ended = True


def resolve(approvals: Approvals, wish: Resolve, now: float) -> e.ApprovalResolved:
    """What the decision adds to the log, at `now` seconds since the epoch.

    Raises ApprovalNotFound, ApprovalMismatch, ApprovalDecided, ApprovalExpired and RunEnded.
    """
    approval = approvals.find(wish.approval_id).approval
    if wish.digest != approval.digest:
        text = f"approval {approval.id} is about arguments with the digest {approval.digest}; look at them, and name that digest"
        raise ApprovalMismatch(text, metadata={"approval_id": approval.id, "arguments_digest": approval.digest})
    _refuse_decided(approval, wish)
    if approvals.ended:
        raise RunEnded(f"the run ended before anybody decided about {approval.id}", metadata={"approval_id": approval.id})
    if now >= approval.expires_at:
        raise _expired(approval)
    return e.ApprovalResolved(approval.id, wish.decision, wish.principal, wish.reason, approval.outstanding_after(wish.decision))


def not_found(approval_id: str) -> ApprovalNotFound:
    """The fault for an approval that was never asked for, or not of this tenant."""
    text = f"no approval {approval_id[:400]!r}; list approvals to find it"
    return ApprovalNotFound(text, metadata={"approval_id": approval_id[:400]})


def _refuse_decided(approval: Approval, wish: Resolve) -> None:
    if approval.standing is Standing.EXPIRED:
        raise _expired(approval)
    if approval.pending and not approval.repeats(wish.principal, wish.decision):
        return
    before = next((vote for vote in reversed(approval.votes) if vote.principal == wish.principal), approval.votes[-1])
    word = "approved" if before.decision is Decision.APPROVE else "denied"
    text = f"{before.principal} {word} {approval.id} before; a decision is not taken back"
    metadata = {"approval_id": approval.id, "principal": before.principal, "decision": before.decision.name}
    raise ApprovalDecided(text, metadata=metadata)


def _expired(approval: Approval) -> ApprovalExpired:
    text = f"nobody decided about {approval.id} in time: the call counts as denied; give the order again, or raise expires_ms of the rule"
    return ApprovalExpired(text, metadata={"approval_id": approval.id})
