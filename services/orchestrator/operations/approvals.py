"""What people ask of approvals: which there are, and decisions about them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from chassis.faults import ApprovalDecided, ApprovalExpired, Fault, RunEnded, RunNotFound, SequenceConflict
from chassis.waypoints import waypoint
from chassis.world import Clock
from orchestrator.domain import events as e
from orchestrator.domain.approvals import Standing
from orchestrator.domain.deciding import Approvals, Asked, Resolve, not_found, resolve
from orchestrator.domain.values import RunId, SessionId
from orchestrator.operations.ports import NOWHERE, Follows, RunQuery, Runs, Terms

PAGE = 50
"""Runs whose approvals are listed together; the log of each is read."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An approval as it stands, and whose it is."""

    run_id: RunId
    session_id: SessionId
    agent: str
    asked: Asked
    standing: Standing


@dataclass(frozen=True, slots=True)
class ListedPage:
    """Approvals, of the newest runs first."""

    approvals: tuple[Listed, ...]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    run_id: RunId
    session_id: SessionId
    approvals: Approvals

    def listed(self, asked: Asked) -> Listed:
        return Listed(self.run_id, self.session_id, self.approvals.agent, asked, self.approvals.standing(asked))


class ApprovalDesk:
    """Lists approvals and records decisions. The log is the truth: what it says first counts, whoever decides where."""

    def __init__(self, runs: Runs, follows: Follows, clock: Clock) -> None:
        self._runs = runs
        self._follows = follows
        self._clock = clock

    async def resolve(self, wish: Resolve, terms: Terms) -> Listed:
        """The approval with the decision, once that is durable. Raises what deciding.resolve does, and RequestIdReused.

        A decision is recorded only where the log ends as it was read: so of two at once one finds that the other came first.
        """
        read = await self._read_for(wish.approval_id)
        while True:
            try:
                event = resolve(read.approvals, wish, self._clock.now())
            except (ApprovalDecided, ApprovalExpired, RunEnded) as refusal:
                return await self._again(read, wish, terms, refusal)
            try:
                waypoint("driver.command.before")
                await self._record(read, event, terms)
                waypoint("driver.command.after")
            except (SequenceConflict, RunEnded):
                await self._read_on(read)
                continue
            await self._read_on(read)
            return read.listed(read.approvals.find(wish.approval_id))

    async def pages(self, query: RunQuery, everything: bool) -> ListedPage:
        """The approvals of a page of runs: of those that await approval, or of any."""
        page = await self._follows.list_runs(replace(query, page_size=query.page_size or PAGE))
        found = [listed async for listed in self._of([RunId(row.id) for row in page.rows], everything)]  # type: ignore[attr-defined]  # rows are contract messages
        return ListedPage(tuple(found), page.next_page_token)

    async def of_run(self, run_id: RunId, everything: bool) -> ListedPage:
        """The approvals of one run. Raises RunNotFound."""
        return ListedPage(tuple([listed async for listed in self._of([run_id], everything)]))

    async def _of(self, run_ids: Sequence[RunId], everything: bool) -> AsyncIterator[Listed]:
        for run_id in run_ids:
            read = await self._read(run_id)
            for listed in map(read.listed, read.approvals.all()):
                if everything or listed.standing is Standing.PENDING:
                    yield listed

    async def _record(self, read: _Read, event: e.ApprovalResolved, terms: Terms) -> None:
        pending = [asked for asked in read.approvals.all() if asked.approval.pending and asked.approval.id != event.approval_id]
        waits = bool(event.outstanding or pending)
        expected = read.approvals.sequence
        await self._runs.command(read.run_id, event, replace(terms, expected=expected, keeps_waiting=waits))

    async def _again(self, read: _Read, wish: Resolve, terms: Terms, refusal: Fault) -> Listed:
        """The approval, if the same request decided it before: the answer may have been lost. Raises the refusal otherwise."""
        if not terms.request_id:
            raise refusal
        event = e.ApprovalResolved(wish.approval_id, wish.decision, wish.principal, wish.reason)
        try:
            await self._runs.command(read.run_id, event, replace(terms, expected=NOWHERE))
        except (SequenceConflict, RunEnded):
            raise refusal from None
        return read.listed(read.approvals.find(wish.approval_id))

    async def _read_for(self, approval_id: str) -> _Read:
        """The run that an approval's id names. Raises ApprovalNotFound."""
        run_id = approval_id.partition("/")[0]
        if not run_id:
            raise not_found(approval_id)
        try:
            read = await self._read(RunId(run_id))
        except RunNotFound:
            raise not_found(approval_id) from None
        read.approvals.find(approval_id)
        return read

    async def _read(self, run_id: RunId) -> _Read:
        session_id, log = await self._runs.read(run_id, 0)
        read = _Read(run_id, session_id, Approvals())
        read.approvals.take(log)
        return read

    async def _read_on(self, read: _Read) -> None:
        _, log = await self._runs.read(read.run_id, read.approvals.sequence)
        read.approvals.take(log)
