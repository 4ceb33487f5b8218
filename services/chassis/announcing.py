"""Telling of what was committed, which cannot undo it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog


def announce_commit(tell: Callable[[Any], None], result: Any) -> None:
    """Tells of the result of a write; what goes wrong in that is logged, for the write stands and the others of its group wait."""
    try:
        tell(result)
    except Exception:  # noqa: BLE001 — see above
        structlog.get_logger().exception("announcing a committed write failed; the write stands")
