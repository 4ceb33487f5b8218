"""The port that events leave through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from chassis.faults import Fault
from chassis.kafka.cloud_events import Header


class Record(NamedTuple):
    """One record. Records of one key stay in order; `elsewhere` says where the value can be read if it is too large to be sent."""

    topic: str
    key: bytes
    value: bytes | None
    headers: list[Header]
    elsewhere: str = ""


class Publisher(Protocol):
    """Takes records to wherever their readers are."""

    @property
    def problem(self) -> Fault | None:
        """What keeps records from being published now, None when nothing is known to."""

    async def publish(self, records: Iterable[Record]) -> None:
        """Returns when all records are kept for good; waits for that as long as it takes, and holds no more than these.

        At least once: after a cut some may be there twice. Whoever drops what it saw before sees the records of a key in their order.
        A cancelled call may have published any beginning of each key's records.
        """
