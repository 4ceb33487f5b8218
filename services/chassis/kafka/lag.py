"""How far a consumer group is behind the end of a topic."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient

from chassis.kafka.client import REQUEST_SECONDS, client_options, explained, open_client
from chassis.kafka.settings import KafkaSettings


async def group_lag(settings: KafkaSettings, group: str, topic: str) -> Mapping[int, int]:
    """Records that the group has not committed, by partition. Raises KafkaUnavailable, KafkaAccessRefused, TopicMissing."""
    async with open_client(settings):  # says why when the brokers cannot be reached; the others do not
        pass
    try:
        async with asyncio.timeout(3 * REQUEST_SECONDS):
            places, committed = await _committed(settings, group, topic)
            bounds = await _bounds(settings, places)
    except (errors.KafkaError, OSError, TimeoutError) as error:
        raise explained(error, settings, (topic,)) from error
    return {place.partition: end - min(end, max(begin, committed.get(place, 0))) for place, (begin, end) in bounds.items()}


async def _committed(settings: KafkaSettings, group: str, topic: str) -> tuple[Sequence[TopicPartition], Mapping[TopicPartition, int]]:
    """The topic's partitions, and where the group stands in them."""
    admin = AIOKafkaAdminClient(**client_options(settings, "lag"))
    try:
        await admin.start()
        found = [each for each in await admin.describe_topics() if each["topic"] == topic]  # asking by name could create it
        if not found:
            raise errors.UnknownTopicOrPartitionError(topic)
        places = sorted(TopicPartition(topic, partition["partition"]) for partition in found[0]["partitions"])
        return places, {place: at.offset for place, at in (await admin.list_consumer_group_offsets(group)).items()}
    finally:
        await admin.close()


async def _bounds(settings: KafkaSettings, places: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
    """The first offset and the next of each partition."""
    consumer = AIOKafkaConsumer(**client_options(settings, "lag"))
    try:
        await consumer.start()
        consumer.assign(places)
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        return {place: (begins[place], ends[place]) for place in places}
    finally:
        await consumer.stop()
