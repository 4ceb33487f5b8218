"""How early a run gets a driver when runs wait for one."""

from __future__ import annotations

import enum

PRIORITY_SECONDS = 600.0  # what one step of priority is worth in waiting


class Priority(enum.IntEnum):
    """How early a run gets a driver; the numbers are the contract's."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


def rank(accepted_at: float, priority: Priority) -> float:
    """Where a run stands among those that wait; the lowest goes first."""
    return accepted_at - PRIORITY_SECONDS * (priority - Priority.NORMAL)
