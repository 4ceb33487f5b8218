"""Batches of the log as CloudEvents, one record per event, handed to a Publisher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from behest.event.v1 import event_pb2
from behest.session.v1 import journal_service_pb2 as pb
from chassis.kafka.cloud_events import event_type, own_headers, rfc3339, shared_headers, source_of
from chassis.kafka.publishing import Publisher, Record
from chassis.kafka.settings import TopicsSettings
from session_store.domain.batch import Announcement, position_of

SERVICE = "session-store"
MESSAGE = event_pb2.Event.DESCRIPTOR.full_name
DELTAS = frozenset({"text_delta", "reasoning_delta", "tool_call_delta"})
EVENT_TYPES = {field.name: event_type(field.name) for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["kind"].fields}
"""The type that each kind of event is published as."""

_TYPES = {kind: type_.encode() for kind, type_ in EVENT_TYPES.items()}
_UNKNOWN = event_type("event_unknown").encode()  # a newer version's, while replicas are being replaced
_FOLLOW = "/behest.session.v1.JournalService/Follow"


class EventPublications:
    """Publishes the events of runs; deltas to their own topic, if at all."""

    def __init__(self, publisher: Publisher, topics: TopicsSettings, deltas: bool) -> None:
        self._publisher = publisher
        self._runs = topics.runs.name
        self._deltas = topics.deltas.name if deltas else None

    @property
    def problem(self) -> str:
        """What keeps events from being published."""
        fault = self._publisher.problem
        return fault.message if fault else ""

    async def publish(self, batches: Sequence[Announcement]) -> None:
        """Publishes their events."""
        records = [record for each in batches for record in event_records(each, self._runs, self._deltas)]
        if records:
            await self._publisher.publish(records)


def event_records(announcement: Announcement, runs: str, deltas: str | None) -> Iterator[Record]:
    """The records of a batch: whole events, with what the store leaves out of what it keeps. No topic for deltas leaves them out."""
    tenant, batch = announcement.tenant, announcement.batch
    key, elsewhere = batch.session_id.encode(), f"{_FOLLOW}?run_id={batch.run_id}"
    shared: Sequence[tuple[str, bytes]] = ()
    position, trace = position_of(batch.number, 0), ""
    for sequence, event in enumerate(pb.FollowResponse.FromString(batch.data).events, batch.first):
        trace = event.traceparent or trace
        kind = event.WhichOneof("kind")
        topic = deltas if kind in DELTAS else runs
        if topic is not None:
            shared = shared or _shared(announcement)
            event.run_id, event.session_id, event.tenant = batch.run_id, batch.session_id, tenant
            event.traceparent, event.position = trace, position
            moment = rfc3339(event.time.seconds, event.time.nanos)
            own = own_headers(f"{batch.run_id}/{sequence}", _TYPES.get(kind or "", _UNKNOWN), moment, trace)
            yield Record(topic, key, event.SerializeToString(), [*shared, *own], elsewhere)
        position += 1


def _shared(announcement: Announcement) -> Sequence[tuple[str, bytes]]:
    tenant, batch = announcement.tenant, announcement.batch
    return shared_headers(source_of(SERVICE, tenant), MESSAGE, f"runs/{batch.run_id}", tenant, batch.session_id)
