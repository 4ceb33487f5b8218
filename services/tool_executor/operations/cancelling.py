"""Stopping calls wherever they run: here at once, in other executors as soon as they hear of it."""

from __future__ import annotations

from collections.abc import Collection

from tool_executor.operations.batch import Batches
from tool_executor.operations.ports import Cancellations


class Cancelling:
    """Stops the calls of all executors that share a ledger."""

    def __init__(self, batches: Batches, cancellations: Cancellations) -> None:
        self._batches = batches
        self._cancellations = cancellations

    async def cancel(self, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
        """Stops calls of a run, under way or waiting; returns the ids of those that are known to have been told."""
        here = self._batches.cancel(tenant, run_id, call_ids)
        elsewhere = await self._cancellations.ask(tenant, run_id, call_ids)
        return sorted({*here, *elsewhere})

    async def obey(self) -> None:
        """Stops here what others were asked to stop."""
        for asked in await self._cancellations.hear():
            self._batches.cancel(asked.tenant, asked.run_id, asked.call_ids)
