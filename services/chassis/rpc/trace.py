"""W3C trace context: which trace a call belongs to. Spans are telemetry.py's."""

from __future__ import annotations

import functools
import random
import re

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_random = random.Random()  # noqa: S311 — ids, not secrets; seeded from the system


def new_traceparent() -> str:
    """A trace that starts here, marked as sampled."""
    return f"00-{_random.getrandbits(128) | 1:032x}-{_random.getrandbits(64) | 1:016x}-01"


def continued(traceparent: str) -> str:
    """The trace to work in: the given one when it is well formed, else a new one."""
    return traceparent if traceparent and _well_formed(traceparent) else new_traceparent()


@functools.lru_cache(maxsize=1024)  # the many calls that a run makes are in one trace
def _well_formed(traceparent: str) -> bool:
    return _TRACEPARENT.fullmatch(traceparent) is not None


def trace_id(traceparent: str) -> str:
    """The trace's id: 32 hexadecimal digits."""
    return traceparent[3:35]
