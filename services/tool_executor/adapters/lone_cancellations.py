"""For an executor that shares its ledger with no other: there is nobody to tell, and nobody to hear from."""

from __future__ import annotations

from collections.abc import Collection

from tool_executor.operations.ports import Cancellation


class LoneCancellations:
    """See the port."""

    async def ask(self, tenant: str, run_id: str, call_ids: Collection[str]) -> list[str]:
        """Nobody has other calls."""
        return []

    async def hear(self) -> list[Cancellation]:
        """Nobody asks."""
        return []
