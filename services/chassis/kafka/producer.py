"""An idempotent producer on aiokafka's client: what is sent is known to the byte, and nothing is held but that.

aiokafka's own producer retries out of sight for ever, cannot be stopped while the brokers are away, and takes records one by one at five
times the cost. This one sends a batch per partition at a time, says what became of each, and leaves it to its caller to go on.

Brokers drop a batch whose producer id and sequence they have seen, whatever is in it. So a sequence is used again for the same bytes
alone; for others, and after a call that was cancelled in the middle, there is a new identity.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaClient, TopicPartition, errors
from aiokafka.partitioner import murmur2
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from chassis.kafka.client import REQUEST_SECONDS, connect, learn
from chassis.kafka.lanes import Identity, Lane
from chassis.kafka.publishing import Record
from chassis.kafka.settings import KafkaSettings

ALL_COPIES = -1  # acks
_FORGOTTEN = (errors.OutOfOrderSequenceNumber.errno, errors.InvalidProducerEpoch.errno, errors.UnknownProducerId.errno)
_TRANSPORT = (
    errors.KafkaConnectionError,
    errors.NodeNotReadyError,
    errors.RequestTimedOutError,
    errors.StaleMetadata,
    OSError,
    TimeoutError,
)


class Producer:
    """One connection to the cluster, and one identity. For one caller at a time."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._topics: set[str] = set()
        self._client: AIOKafkaClient | None = None
        self._identity: Identity | None = None
        self._in_flight = False

    async def close(self) -> None:
        """Cuts the connections; what was in flight may be kept or not."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def lanes(self, records: Iterable[Record]) -> list[Lane]:
        """The records by partition, for `send`. Raises faults, and errors of aiokafka."""
        records = list(records)
        client = await self._connected({record.topic for record in records})
        counts = {topic: len(client.cluster.partitions_for_topic(topic)) for topic in {record.topic for record in records}}
        lanes: dict[tuple[str, int], Lane] = {}
        for record in records:
            place = record.topic, _hash(record.key) % counts[record.topic]
            lane = lanes.get(place)
            if lane is None:
                lane = lanes[place] = Lane(TopicPartition(*place))
            lane.records.append(record)
        return list(lanes.values())

    async def send(self, lanes: Sequence[Lane], moment: float) -> None:
        """Sends the next batch of each lane and waits until all copies have it. `moment`, in seconds, is the records' time.

        Raises the first failure once every broker was heard; calling again goes on from there.
        """
        client = await self._connected({lane.place.topic for lane in lanes})
        if self._in_flight:  # an earlier call was cancelled: whether the brokers have what it sent is not known
            self.forget(lanes)
        identity = self._identity = self._identity or await _identify(client)
        limit = self._settings.max_message_bytes
        for lane in lanes:
            lane.next_batch(identity, limit, moment)
        self._in_flight = True
        requests = [self._request(client, node, group, identity) for node, group in _by_leader(client, lanes).items()]
        failures = [failure for failure in await asyncio.gather(*requests) if failure is not None]
        self._in_flight = False
        await self._mend(client, failures, lanes)

    def forget(self, lanes: Iterable[Lane]) -> None:
        """Begins anew with another identity; batches that were not acknowledged are made again."""
        self._identity, self._in_flight = None, False
        for lane in lanes:
            lane.batch = None

    async def _request(self, client: AIOKafkaClient, node: int, lanes: Sequence[Lane], identity: Identity) -> Exception | None:
        """Sends to one leader; the first failure, if any."""
        by_topic: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for lane in lanes:
            assert lane.batch is not None
            by_topic[lane.place.topic].append((lane.place.partition, lane.batch.data))
        request = ProduceRequest(
            transactional_id=None, required_acks=ALL_COPIES, timeout=round(REQUEST_SECONDS * 1000), topics=list(by_topic.items())
        )
        try:
            response = await client.send(node, request)
        except (errors.KafkaError, OSError, TimeoutError) as error:
            return error
        answers = {(topic, partition): code for topic, partitions in response.topics for partition, code, *_ in partitions}
        return self._settle(lanes, answers, identity)

    def _settle(self, lanes: Sequence[Lane], answers: Mapping[tuple[str, int], int], identity: Identity) -> Exception | None:
        failure: Exception | None = None
        for lane in lanes:
            code = answers.get(lane.place, errors.UnknownTopicOrPartitionError.errno)
            if lane.settle(code, identity):
                if lane.batch is not None:  # it is to be made smaller
                    self._identity = None
            else:
                failure = failure or errors.for_code(code)(lane.place.topic)
                if code in _FORGOTTEN:
                    self._identity = None
        return failure

    async def _mend(self, client: AIOKafkaClient, failures: Sequence[Exception], lanes: Sequence[Lane]) -> None:
        """Gets ready to try again, and raises the first failure."""
        if self._identity is None:
            self.forget(lanes)
        if not failures:
            return
        if any(isinstance(failure, _TRANSPORT) for failure in failures):
            await self.close()
        elif any(getattr(failure, "invalid_metadata", False) for failure in failures):
            await learn(client, self._topics)
        raise failures[0]

    async def _connected(self, topics: Iterable[str]) -> AIOKafkaClient:
        if self._client is None:
            self._client = await connect(self._settings, self._name)
        client = self._client
        if any(not client.cluster.partitions_for_topic(topic) for topic in topics):
            self._topics |= set(topics)
            await learn(client, self._topics)
        return client


async def _identify(client: AIOKafkaClient) -> Identity:
    node = client.get_random_node()
    response = await client.send(node, InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=(1 << 31) - 1))
    error = errors.for_code(response.error_code)
    if error is not errors.NoError:
        raise error()
    return Identity(response.producer_id, response.producer_epoch)


def _by_leader(client: AIOKafkaClient, lanes: Iterable[Lane]) -> dict[int, list[Lane]]:
    """The lanes by the broker that takes them; -1 has those without a leader, and asking it fails."""
    found: dict[int, list[Lane]] = defaultdict(list)
    for lane in lanes:
        leader = client.cluster.leader_for_partition(lane.place)
        found[-1 if leader is None else leader].append(lane)
    return found


@functools.lru_cache(maxsize=4096)
def _hash(key: bytes) -> int:
    """What Kafka's own clients choose a key's partition by; 9 µs, and keys come again."""
    return int(murmur2(key)) & 0x7FFFFFFF
