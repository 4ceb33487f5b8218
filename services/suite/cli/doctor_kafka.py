"""What `behest doctor` finds about Kafka: whether the topics can be used, and how far events have left."""

from __future__ import annotations

from collections.abc import AsyncIterator

from behest.session.v1.outbox_service_pb2 import GetOutboxRequest
from behest.session.v1.outbox_service_pb2_grpc import OutboxServiceStub
from chassis.faults import Fault
from chassis.kafka.settings import KafkaSettings
from chassis.rpc import open_channel
from suite.addresses import Service, listen_address, listens

ASK_SECONDS = 5.0
Found = tuple[str, bool | None, str]  # the check, whether it is well, and the text; None means worth knowing and no fault


async def kafka_findings(settings: KafkaSettings, port_base: int) -> AsyncIterator[Found]:
    """The findings; none when Kafka is off."""
    if not settings.on:
        return
    yield await _topics(settings)
    address = listen_address(Service.SESSION_STORE, port_base)
    if await listens(address):
        yield await _outbox(address)


async def commands_finding(settings: KafkaSettings, group: str) -> Found:
    """How many commands wait to be carried out, by whichever orchestrators."""
    from chassis.kafka.lag import group_lag  # aiokafka is loaded where it is used

    try:
        lag = await group_lag(settings, group, settings.topics.commands.name)
    except Fault as fault:
        return "commands", False, fault.message
    behind = {partition: count for partition, count in sorted(lag.items()) if count}
    told = f" ({', '.join(f'{count} in partition {partition}' for partition, count in behind.items())})" if behind else ""
    return "commands", True, f"{sum(lag.values())} commands wait in {settings.topics.commands.name}{told}"


async def _topics(settings: KafkaSettings) -> Found:
    from chassis.kafka.topics import check_topics  # aiokafka is loaded where it is used

    try:
        wrong = [finding for finding in await check_topics(settings) if not finding.good]
    except Fault as fault:
        return "kafka", False, fault.message
    if wrong:
        told = "; ".join(f"{finding.topic}: {finding.text}" for finding in wrong)
        missing = any(not finding.exists for finding in wrong)
        return "kafka", False if missing else None, f"{told}; `behest topics apply` creates what is missing"
    return "kafka", True, f"{settings.bootstrap_servers} has all topics as they are set"


async def _outbox(address: str) -> Found:
    """How far the suite that runs here has published."""
    try:
        async with open_channel(address, "grpc", frozenset()) as channel:
            outbox = await OutboxServiceStub(channel).GetOutbox(GetOutboxRequest(), timeout=ASK_SECONDS)
    except Fault as fault:
        return "outbox", None, f"the session-store at {address} does not say how far it has published: {fault.message}"
    if not outbox.publishes:
        return "outbox", None, f"the session-store at {address} runs without Kafka; restart it with these settings to publish"
    waiting = outbox.last_number - outbox.published_number
    if outbox.problem:
        return "outbox", False, f"{waiting} batches of events wait: {outbox.problem}"
    return "outbox", True, f"{waiting} of {outbox.last_number} batches of events wait to be published"
