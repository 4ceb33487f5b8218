"""The call under way: who asks, until when, in which trace. Set by the pipeline, read by whoever needs it."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DEFAULT_TENANT = "default"

TENANT_KEY = "behest-tenant"
TRACE_KEY = "traceparent"
PRINCIPAL_KEY = "behest-principal"


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its handler sees it.

    `deadline` is a `time.monotonic()` moment, None for no deadline. `metadata` holds the request's text metadata, keys in lower case.
    """

    method: str = ""
    tenant: str = DEFAULT_TENANT
    deadline: float | None = None
    traceparent: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


CURRENT: contextvars.ContextVar[Call] = contextvars.ContextVar("behest_call")
_OUTSIDE = Call()


def current_call() -> Call:
    """The call under way; outside of any, one of the default tenant without deadline."""
    return CURRENT.get(_OUTSIDE)


@contextlib.contextmanager
def call_scope(call: Call) -> Iterator[Call]:
    """Makes call the one under way, for this task and those it starts."""
    token = CURRENT.set(call)
    try:
        yield call
    finally:
        CURRENT.reset(token)
