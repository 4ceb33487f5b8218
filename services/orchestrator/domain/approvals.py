"""Who may let a tool call run: rules, approvals and what decides them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.domain.values import Action, Permission, ToolCall, matches


class Decision(enum.IntEnum):
    """What was decided; numbers as in behest.event.v1.ApprovalDecision."""

    APPROVE = 1
    DENY = 2
    EXPIRE = 3


class Standing(enum.IntEnum):
    """Where an approval stands; numbers as in behest.run.v1.ApprovalState."""

    PENDING = 1
    APPROVED = 2
    DENIED = 3
    EXPIRED = 4
    ABANDONED = 5


@dataclass(frozen=True, slots=True)
class Vote:
    """A decision, who took it and why. `at` is in seconds since the epoch."""

    principal: str
    decision: Decision
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Approval:
    """What a tool call waits for. `digest` is the SHA-256 of its arguments byte by byte; times are seconds since the epoch."""

    id: str
    digest: str
    needed: int
    requested_at: float
    expires_at: float
    votes: tuple[Vote, ...] = ()

    @property
    def standing(self) -> Standing:
        """Where it stands: the first denial or expiry counts, and the last approval of as many as are needed."""
        last = self.votes[-1].decision if self.votes else None
        if last is Decision.DENY:
            return Standing.DENIED
        if last is Decision.EXPIRE:
            return Standing.EXPIRED
        return Standing.APPROVED if len(self.votes) >= self.needed else Standing.PENDING

    @property
    def pending(self) -> bool:
        """Whether it is undecided."""
        return self.standing is Standing.PENDING

    def outstanding_after(self, decision: Decision) -> int:
        """How many more people must approve once this was decided."""
        return max(0, self.needed - len(self.votes) - 1) if decision is Decision.APPROVE else 0

    def repeats(self, principal: str, decision: Decision) -> bool:
        """Whether that person approves once more; who has approved may still deny."""
        return decision is Decision.APPROVE and any(vote.principal == principal for vote in self.votes)

    def with_vote(self, vote: Vote) -> Approval:
        """The approval after one more decision; once it is decided, or when a person approves again, nothing changes."""
        return replace(self, votes=(*self.votes, vote)) if self.pending and not self.repeats(vote.principal, vote.decision) else self

    @property
    def refusal(self) -> str:
        """Why the call must not run, for the model; empty when it may."""
        match self.standing:
            case Standing.DENIED:
                reason = f": {self.votes[-1].reason}" if self.votes[-1].reason else ""
                return f"denied by {self.votes[-1].principal}{reason}"
            case Standing.EXPIRED:
                return "denied: nobody approved it in time"
        return ""

    @property
    def approvers(self) -> str:
        """Who let the call run."""
        return ", ".join(vote.principal for vote in self.votes)


def permission_of(rules: Sequence[Permission], call: ToolCall) -> Permission:
    """The last rule that matches; what no rule matches may run."""
    return next((rule for rule in reversed(rules) if _matches(rule, call)), Permission(call.name, Action.ALLOW))


def _matches(rule: Permission, call: ToolCall) -> bool:
    return matches(rule.tool, call.name) and (call.destructive or not rule.destructive_only)
