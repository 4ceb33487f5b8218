"""The rules of the effect ledger: claim, execute, receipt. Everything that decides whether a call may run lives in this file.

what the ledger holds for the key          what a new call with that key gets
------------------------------------------ ------------------------------------------------------
nothing                                    BEGIN: run it
another call                               REUSED: refuse the request
a receipt                                  FINISHED: the receipt
a claim, its claimant lives                ELSEWHERE: wait for the receipt
a claim, its claimant is dead, repeatable  TAKE_OVER: run it once more
a claim, its claimant is dead              UNKNOWN: say so, never run it again
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from tool_executor.domain.execution import Execution, unknown

LEASE_SECONDS = 3.0
RENEW_SECONDS = 1.0
PUBLISH_SECONDS = 10.0  # how long whoever took executions to publish them is waited for


class Verdict(enum.Enum):
    """What a call may do, given what the ledger holds for its key."""

    BEGIN = "begin"
    REUSED = "reused"
    FINISHED = "finished"
    ELSEWHERE = "elsewhere"
    TAKE_OVER = "take over"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Standing:
    """A verdict and the execution it is about: the asked-for one when it may run, the remembered one otherwise."""

    verdict: Verdict
    execution: Execution


def judge(asked: Execution, held: Execution | None, claimant_lives: bool) -> Standing:
    """What the asked-for execution may do when the ledger holds `held`; see the table above."""
    if held is None:
        return Standing(Verdict.BEGIN, asked)
    if held.call != asked.call:
        return Standing(Verdict.REUSED, held)
    if held.result is not None:
        return Standing(Verdict.FINISHED, held)
    if claimant_lives and held.instance != asked.instance:
        return Standing(Verdict.ELSEWHERE, held)
    return _judge_orphan(asked, held)


def _judge_orphan(asked: Execution, held: Execution) -> Standing:
    """A claim of one's own that reaches the ledger again is an orphan too: the engine joins what it still runs."""
    if held.repeatable and asked.repeatable:
        return Standing(Verdict.TAKE_OVER, replace(asked, attempt=held.attempt + 1))
    ended = held.ended(unknown(held.call.name), asked.started_at, max(0.0, asked.started_at - held.started_at))
    return Standing(Verdict.UNKNOWN, ended)
