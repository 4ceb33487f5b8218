"""Telling others of ended executions: at least once each, by as many executors as there are, a batch at a time in memory."""

from __future__ import annotations

import structlog

from chassis.faults import Fault
from chassis.waypoints import waypoint
from chassis.world import Clock
from tool_executor.operations.ports import Publications, Unpublished

BATCH = 256
LOOK_SECONDS = 0.5  # how soon after its end an execution is published

_log = structlog.get_logger("tool_executor")


class Publishing:
    """Publishes what ended. After a crash the last batch is published again, under the same ids."""

    def __init__(self, unpublished: Unpublished, publications: Publications, clock: Clock) -> None:
        self._unpublished = unpublished
        self._publications = publications
        self._clock = clock
        self._told = ""

    async def run(self) -> None:
        """Publishes until it is cancelled."""
        while True:
            try:
                while await self.publish_due():
                    pass
                self._told = ""
            except Fault as fault:
                if fault.message != self._told:
                    _log.warning("executions wait to be published", reason=fault.reason, problem=fault.message)
                self._told = fault.message
            except Exception:  # noqa: BLE001 - a defect in one round must not end the rounds
                _log.exception("publishing executions failed; trying again")
            await self._clock.sleep(LOOK_SECONDS)

    async def publish_due(self) -> bool:
        """Publishes a batch; whether there may be more."""
        executions = await self._unpublished.due(self._clock.now(), BATCH)
        if not executions:
            return False
        await self._publications.publish(executions)
        waypoint("executor.published")
        await self._unpublished.published(executions)
        return len(executions) == BATCH
