"""What goes to one partition, and the batches it is sent in. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from aiokafka import TopicPartition, errors
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from chassis.kafka.cloud_events import omission_headers
from chassis.kafka.publishing import Record

_SEQUENCES = 1 << 31
_DONE = (0, errors.DuplicateSequenceNumber.errno)
_TOO_LARGE = (errors.MessageSizeTooLargeError.errno, errors.RecordListTooLargeError.errno)


@dataclass(frozen=True, slots=True)
class Identity:
    """A producer to the brokers: they drop what they have seen of it before, by the sequence that its batches have in each partition."""

    id: int
    epoch: int
    sequences: dict[TopicPartition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records as the brokers take them."""

    data: bytes
    count: int


@dataclass(slots=True)
class Lane:
    """Records for one partition, in order. `batch` is what was sent of them and not yet acknowledged."""

    place: TopicPartition
    records: list[Record] = field(default_factory=list)
    batch: Batch | None = None
    _done: int = 0
    _most: int = 1 << 30  # records of a batch; less when the broker found one too large
    _omits: bool = False  # whether the next record goes without its value, too large for the broker even alone

    @property
    def left(self) -> list[Record]:
        """What is not acknowledged."""
        return self.records[self._done :]

    @property
    def finished(self) -> bool:
        """Whether all is acknowledged."""
        return self._done == len(self.records)

    def next_batch(self, identity: Identity, limit: int, moment: float) -> Batch:
        """The batch that is on its way, else one of as many records as fit into limit bytes; a larger one goes without its value."""
        if self.batch is None:
            self.batch = self._build(identity, limit, moment) or self._build(identity, limit, moment, omits=True)
            assert self.batch is not None, "without its value a record is always built"
        return self.batch

    def _build(self, identity: Identity, limit: int, moment: float, omits: bool = False) -> Batch | None:
        sequence, time = identity.sequences.get(self.place, 0), int(moment * 1000)
        builder = DefaultRecordBatchBuilder(2, 0, 0, identity.id, identity.epoch, sequence, limit)
        count = 0
        for record in self._next(omits or self._omits):
            if builder.append(count, time, record.key, record.value, record.headers) is None:
                break
            count += 1
            if count == 1 and builder.size() > limit and not omits:
                return None
        return Batch(bytes(builder.build()), count)

    def _next(self, omits: bool) -> Iterator[Record]:
        records = islice(self.records, self._done, self._done + self._most)
        if omits:
            yield _without_value(next(records))
        yield from records

    def settle(self, code: int, identity: Identity) -> bool:
        """Takes a broker's answer to the batch: whether it was acknowledged, or can be made smaller, so that there is nothing to fear."""
        assert self.batch is not None
        if code in _DONE:
            sequence = identity.sequences.get(self.place, 0)
            identity.sequences[self.place] = (sequence + self.batch.count) % _SEQUENCES
            self._done += self.batch.count
            self.batch, self._omits = None, False
            return True
        return code in _TOO_LARGE and self._shrink(self.batch.count)

    def _shrink(self, count: int) -> bool:
        if count == 1 and self._omits:
            return False
        self._omits, self._most = count == 1, max(1, count // 2)
        return True


def _without_value(record: Record) -> Record:
    size = len(record.value or b"")
    return record._replace(value=None, headers=[*record.headers, *omission_headers(size, record.elsewhere)])
