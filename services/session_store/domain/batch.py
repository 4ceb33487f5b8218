"""What one append adds to a log, and how positions count.

A batch is stored and delivered as one piece: the events of an append, serialized one after another, which the store does not read.
What all of them share, run, session and tenant, is left out of the pieces and put back on delivery: it would be half of the bytes.
Batches are numbered in the order of their commits. An event's position is its batch's number with its index within the batch below,
so positions grow in the order of commits, with gaps, and need no counter of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from session_store.domain.session import RunId, SessionId, Tenant

INDEX_BITS = 12
MAX_EVENTS = 1 << INDEX_BITS  # events of one append


@dataclass(frozen=True, slots=True)
class Batch:
    """The events `first` to `last` of a run's log. `data` is the wire form of a message whose field 1 repeats the events."""

    number: int
    run_id: RunId
    session_id: SessionId
    first: int
    last: int
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return len(self.data)

    @property
    def position(self) -> int:
        """The position of its last event."""
        return position_of(self.number, self.last - self.first)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A committed batch and whose it is. `ends` says whether it ends its run."""

    tenant: Tenant
    batch: Batch
    ends: bool = False

    @property
    def size(self) -> int:
        """Bytes of the batch's data."""
        return self.batch.size


Sized = TypeVar("Sized", Batch, Announcement)


def position_of(number: int, index: int) -> int:
    """The position of the event at index, from 0, of the batch of that number."""
    return number << INDEX_BITS | index


def number_of(position: int) -> int:
    """The number of the batch that a position lies in."""
    return position >> INDEX_BITS


def last_position(number: int) -> int:
    """The greatest position a batch of that number could have."""
    return position_of(number, MAX_EVENTS - 1)


def page_of(items: Iterable[Sized], max_bytes: int) -> list[Sized]:
    """Items until their data would pass max_bytes, at least one if there is one."""
    page: list[Sized] = []
    size = 0
    for item in items:
        size += item.size
        if page and size > max_bytes:
            break
        page.append(item)
    return page
