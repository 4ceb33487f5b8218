"""What a running tool knows of its call, and how it speaks while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Stop:
    """Whether a call was told to stop. Safe to read from any thread."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told = False


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The call as its tool sees it. A parameter annotated with it is filled in and does not appear in the schema.

    `deadline` is a `time.monotonic()` moment after which the call is stopped. `key` is the same for every attempt of the same
    call, so it serves as an idempotency key for other systems; `attempt` counts from 1.
    """

    call_id: str
    key: str
    tenant: str
    run_id: str
    session_id: str
    attempt: int
    deadline: float
    report: Callable[[str, float | None], None]
    stop: Stop

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Tells whoever waits how far it is: a line for a person, and how much is done from 0 to 1. Callable from any thread."""
        self.report(message, fraction)

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled or timed out. A function that is not async should look at it now and then."""
        return self.stop.told
