"""The order in which the calls of one turn may run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def stages(calls: Sequence[tuple[T, bool]]) -> list[list[T]]:
    """The calls in groups to run one after another; each comes with whether it may run beside others.

    Neighbours that may run beside others share a group. A call that may not is alone in its own, so it sees the effects
    of all calls before it and none of those after it.
    """
    groups: list[list[T]] = []
    open_group = False
    for call, concurrency_safe in calls:
        if not (concurrency_safe and open_group):
            groups.append([])
        groups[-1].append(call)
        open_group = concurrency_safe
    return groups
