"""Sees to it that an assigned run ends: whatever goes wrong on the way, its one terminal event is written."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import structlog

from chassis.faults import Fault, Internal, LeaseLost, RunEnded, RunNotFound
from chassis.rpc import Call, call_scope
from chassis.waypoints import waypoint
from chassis.world import World
from orchestrator.domain.events import RunCreated, UsageRecorded
from orchestrator.domain.run import IllegalEvent, Phase, Recorded, Run, fold
from orchestrator.domain.values import RunId, SessionId, Usage
from orchestrator.operations.drive import Drive
from orchestrator.operations.inbox import Signal
from orchestrator.operations.ports import Assignment, Lease, Patience, Ports

GONE = (LeaseLost, RunEnded, RunNotFound)
"""Faults that say that there is nothing left to drive."""

_BARELY = 2  # rounds after which a run is ended by its terminal event alone

_logger = structlog.get_logger("orchestrator.driver")


class Persistence:
    """Drives a run to its end; if that fails, ends it; if that fails too, reads its log again and writes nothing but the end."""

    def __init__(self, driver_id: str, ports: Ports, world: World, patience: Patience) -> None:
        self._driver_id = driver_id
        self._ports = ports
        self._world = world
        self._patience = patience

    async def drive(self, assignment: Assignment, signal: Signal, session_id: SessionId | None, log: Sequence[Recorded]) -> None:
        """Returns when the run has ended. Raises one of GONE when it is not this driver's any more. A given log is not read again."""
        backoff, fault = self._patience.backoff, None
        for round_ in itertools.count():
            try:
                if session_id is None:
                    with call_scope(Call(tenant=assignment.tenant)):
                        session_id, log = await self._ports.journal.read(assignment.run_id, 0)
                    waypoint("driver.taken")
                fault = await self._try(assignment, signal, session_id, log, fault, barely=round_ >= _BARELY)
            except GONE:
                raise
            except Exception as problem:
                _logger.error("run could not be read; trying again", run_id=assignment.run_id, retry_in=backoff, exc_info=problem)
            else:
                if fault is None:
                    return
            session_id = None
            await self._world.clock.sleep(backoff)
            backoff = min(2 * backoff, self._patience.longest_backoff)

    async def _try(
        self, assignment: Assignment, signal: Signal, session_id: SessionId, log: Sequence[Recorded], fault: Fault | None, barely: bool
    ) -> Fault | None:
        """Drives or, for a fault, ends the run. Returns why it could not be ended, None when it was."""
        try:
            run = fold(Run(assignment.run_id, session_id), log)
        except IllegalEvent as defect:
            fault, barely = fault or self._internal(assignment.run_id, defect), True
        run = _stump(assignment.run_id, session_id, log) if barely else run
        if run.ended:
            return None
        lease = Lease(assignment.run_id, session_id, assignment.tenant, self._driver_id, assignment.epoch)
        drive = Drive(run, lease, self._ports, self._world.clock, self._patience, signal)
        # All calls that a run makes belong to the trace of the call that created it.
        with call_scope(Call(tenant=assignment.tenant, traceparent=_trace(log))):
            fault = fault or await self._to_the_end(drive)
            return await self._fail(drive, fault) if fault else None

    async def _to_the_end(self, drive: Drive) -> Fault | None:
        try:
            await drive.to_the_end()
        except GONE:
            raise
        except Exception as problem:  # noqa: BLE001 — any defect must still end the run with its one terminal event
            return self._fault(drive.run.id, problem)
        return None

    async def _fail(self, drive: Drive, fault: Fault) -> Fault | None:
        try:
            await drive.fail(fault)
        except GONE:
            raise
        except Exception as problem:
            _logger.error("run could not be failed; trying again", run_id=drive.run.id, reason=fault.reason, exc_info=problem)
            return fault
        return None

    def _fault(self, run_id: RunId, problem: Exception) -> Fault:
        return problem if isinstance(problem, Fault) else self._internal(run_id, problem)

    def _internal(self, run_id: RunId, defect: Exception) -> Internal:
        defect_id = self._world.ids.new()
        _logger.error("run failed by a defect", run_id=run_id, defect_id=defect_id, exc_info=defect)
        return Internal(f"a defect ended the run; the service's log has it under {defect_id}", metadata={"id": defect_id})


def _trace(log: Sequence[Recorded]) -> str:
    created = log[0].event if log else None
    return created.traceparent if isinstance(created, RunCreated) else ""


def _stump(run_id: RunId, session_id: SessionId, log: Sequence[Recorded]) -> Run:
    """A run of which nothing is known but its length and what it consumed: it can be ended, and needs nothing else."""
    run = Run(run_id, session_id, Phase.READY, log[-1].sequence if log else 0)
    spent = [recorded.event for recorded in log if isinstance(recorded.event, UsageRecorded)]
    return run._replace(usage=spent[-1].total if spent else Usage(), turn=spent[-1].turn if spent else 0)
