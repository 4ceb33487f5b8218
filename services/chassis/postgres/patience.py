"""How long a server may be away before its callers hear of it, and how often it is asked meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

PATIENCE_SECONDS = 5.0
_STEPS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(slots=True)
class Backoff:
    """Waits longer each time."""

    failures: int = 0

    async def wait(self) -> None:
        """Waits before the next attempt."""
        self.failures += 1
        await asyncio.sleep(_STEPS[min(self.failures, len(_STEPS)) - 1])
