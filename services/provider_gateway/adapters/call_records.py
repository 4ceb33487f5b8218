"""Ended model calls as CloudEvents, one record each, handed to a Publisher behind the calls' back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import quote

import structlog

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_pb2
from chassis.kafka.cloud_events import event_type, own_headers, rfc3339, shared_headers, source_of
from chassis.kafka.publishing import Publisher, Record
from chassis.rpc import running
from chassis.world import Clock
from provider_gateway.domain.calls import EndedCall, FailedAttempt
from provider_gateway.wire import SERVICE, fault_to, usage_to

MESSAGE = provider_pb2.ProviderCall.DESCRIPTOR.full_name
ENDED = event_type("call_ended")

MOST_WAITING = 10_000
"""Calls that wait to be published, some megabytes; when there are more, the newest are dropped, counted and told of."""

BATCH = 500
LINGER = 0.05
LAST_SECONDS = 2.0  # for what waits when the gateway ends

_logger = structlog.get_logger("provider_gateway")


class CallPublications:
    """Calls in a topic. A call never waits for it: what cannot be published in time is dropped with a count."""

    def __init__(self, publisher: Publisher, topic: str, clock: Clock, most_waiting: int = MOST_WAITING) -> None:
        self._publisher = publisher
        self._topic = topic
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting: deque[EndedCall] = deque()
        self._arrival = asyncio.Event()
        self.dropped = 0
        self._told = 0

    def ended(self, call: EndedCall) -> None:
        """Has the call published, or counts it as dropped when too many wait."""
        if len(self._waiting) < self._most_waiting:
            self._waiting.append(call)
            self._arrival.set()
            return
        self.dropped += 1
        if self._told == 0:
            self._told = 1
            _logger.warning("model calls are not published: too many wait for Kafka", waiting=len(self._waiting))

    async def run(self) -> None:
        """Publishes until it is cancelled."""
        while True:
            await self._arrival.wait()
            await self._clock.sleep(LINGER)
            self._arrival.clear()
            while self._waiting:
                await self._publish_some()

    async def publish_last(self) -> None:
        """Publishes what waits, if that can be done soon; else says how much is lost."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                while self._waiting:
                    await self._publish_some()
        except TimeoutError:
            _logger.warning("model calls are lost that waited to be published", count=len(self._waiting))

    async def _publish_some(self) -> None:
        """Publishes a batch, which waits on until the brokers have it."""
        batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
        await self._publisher.publish([call_record(call, self._topic) for call in batch])
        for _ in batch:
            self._waiting.popleft()
        if self._told:
            _logger.warning("model calls were not published", count=self.dropped)
            self._told = self.dropped = 0


@asynccontextmanager
async def publishing(publications: CallPublications) -> AsyncIterator[CallPublications]:
    """Publishes while the body runs, and what is left at its end."""
    try:
        async with running(publishing=publications.run()):
            yield publications
    finally:
        await publications.publish_last()


def call_record(call: EndedCall, topic: str) -> Record:
    """The record of a call. Calls of a run have its id as their key, others their own."""
    message = call_out(call)
    run_id = call.request_id.partition("/")[0]
    subject = f"providers/{quote(call.provider, safe='')}"
    ended_at = message.started_at.ToNanoseconds() + round(call.duration * 1e9)
    headers = [
        *shared_headers(source_of(SERVICE, call.tenant), MESSAGE, subject, call.tenant),
        *own_headers(call.id, ENDED.encode(), rfc3339(*divmod(ended_at, 1_000_000_000)), call.traceparent),
    ]
    return Record(topic, (run_id or call.id).encode(), message.SerializeToString(), headers)


def call_out(call: EndedCall) -> provider_pb2.ProviderCall:
    """A call as a message of the contract."""
    message = provider_pb2.ProviderCall(
        id=call.id,
        request_id=call.request_id,
        metadata=call.metadata,
        provider=call.provider,
        model=call.model,
        streamed=call.streamed,
        duration_ms=call.duration * 1000,
        first_output_ms=None if call.first_output is None else call.first_output * 1000,
        response_id=call.response_id,
        finish_reason=chat_pb2.FinishReason.ValueType(call.finish.value if call.finish else 0),
        usage=usage_to(call.usage) if call.usage else None,
        fault=fault_to(call.fault) if call.fault else None,
        failed_attempts=_attempts(call.failed),
    )
    message.started_at.FromNanoseconds(round(call.started_at * 1e6) * 1000)
    return message


def _attempts(failed: Iterable[FailedAttempt]) -> list[provider_pb2.ProviderAttempt]:
    return [
        provider_pb2.ProviderAttempt(
            fault=fault_to(attempt.fault), duration_ms=attempt.duration * 1000, provider=attempt.provider, model=attempt.model
        )
        for attempt in failed
    ]
