"""Creating topics, and comparing those there are with the settings. Nothing is ever deleted or changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chassis.faults import SettingsInvalid
from chassis.kafka.client import AUTHORISATION, REQUEST_SECONDS, client_options, explained, open_client, refused
from chassis.kafka.settings import KafkaSettings, TopicSettings

COPIES = 3  # where there are brokers for them; two of them must have a record before it is acknowledged
BATCH_ROOM = 512  # bytes that a batch takes besides its records

_LOOKS = 100
_RETENTION, _LARGEST, _IN_SYNC, _CLEANUP = "retention.ms", "max.message.bytes", "min.insync.replicas", "cleanup.policy"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one topic is like: `created`, `missing`, `as set`, or how it differs."""

    topic: str
    purpose: str
    exists: bool
    created: bool = False
    differences: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether it can be used as the settings say."""
        return self.exists and not self.differences

    @property
    def text(self) -> str:
        """The finding in words."""
        if not self.exists:
            return "missing"
        if self.differences:
            return "; ".join(self.differences)
        return "created" if self.created else "as set"


async def check_topics(settings: KafkaSettings) -> list[Finding]:
    """How each topic stands. Raises KafkaUnavailable, KafkaAccessRefused, SettingsInvalid."""
    async with _open_admin(settings) as admin:
        return await _compared(admin, settings, frozenset())


async def apply_topics(settings: KafkaSettings) -> list[Finding]:
    """Creates what is missing, and how each topic stands then. Raises KafkaUnavailable, KafkaAccessRefused, SettingsInvalid."""
    async with _open_admin(settings) as admin:
        present = await _present(admin)
        missing = [topic for topic in wanted(settings).values() if topic.name not in present]
        if missing:
            copies = await _copies(admin, settings)
            await _create(admin, settings, [_new_topic(topic, copies, settings) for topic in missing])
        return await _compared(admin, settings, frozenset(topic.name for topic in missing))


def wanted(settings: KafkaSettings) -> Mapping[str, TopicSettings]:
    """The topics that the settings need, by purpose: that of deltas only when they are published."""
    return {purpose: topic for purpose, topic in settings.topics.by_purpose().items() if purpose != "deltas" or settings.deltas}


@asynccontextmanager
async def _open_admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    async with open_client(settings):  # says why when the brokers cannot be reached; the admin client does not
        pass
    admin = AIOKafkaAdminClient(**client_options(settings, "admin"))
    try:
        async with asyncio.timeout(3 * REQUEST_SECONDS):
            await admin.start()
            yield admin
    except (errors.KafkaError, OSError, TimeoutError) as error:
        raise explained(error, settings, [topic.name for topic in wanted(settings).values()]) from error
    finally:
        await admin.close()


async def _present(admin: AIOKafkaAdminClient) -> Mapping[str, Any]:
    """The topics there are and may be seen. All are asked for: asking by name could create them."""
    return {topic["topic"]: topic for topic in await admin.describe_topics() if topic["error_code"] == 0}


async def _copies(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> int:
    brokers = len((await admin.describe_cluster())["brokers"])
    return settings.replication or min(COPIES, brokers)


def _config(topic: TopicSettings, copies: int, settings: KafkaSettings) -> dict[str, str]:
    config = {_RETENTION: str(round(topic.retention_hours * 3_600_000)), _LARGEST: str(settings.max_message_bytes + BATCH_ROOM)}
    return {**config, _IN_SYNC: "2", _CLEANUP: "delete"} if copies > 2 else {**config, _CLEANUP: "delete"}


def _new_topic(topic: TopicSettings, copies: int, settings: KafkaSettings) -> NewTopic:
    return NewTopic(topic.name, topic.partitions, copies, topic_configs=_config(topic, copies, settings))


async def _create(admin: AIOKafkaAdminClient, settings: KafkaSettings, topics: Sequence[NewTopic]) -> None:
    response = await admin.create_topics(list(topics))
    for name, code, message in response.topic_errors:
        error = errors.for_code(code)
        if error is errors.InvalidReplicationFactorError:
            text = (
                f"topic {name} cannot have {topics[0].replication_factor} copies: {message}; lower kafka.replication or start more brokers"
            )
            raise SettingsInvalid(text, metadata={"topic": name})
        if issubclass(error, AUTHORISATION):
            raise refused(settings, "Create on the cluster, or on topics of these names", f"create the topic {name}")
        if error not in (errors.NoError, errors.TopicAlreadyExistsError):
            raise error(message or name)
    for _ in range(_LOOKS):  # brokers learn of a topic one after another, and there is no way to wait for it
        if {topic.name for topic in topics} <= (await _present(admin)).keys():
            return
        await asyncio.sleep(0.05)


async def _compared(admin: AIOKafkaAdminClient, settings: KafkaSettings, created: frozenset[str]) -> list[Finding]:
    present, topics = await _present(admin), wanted(settings)
    configs = await _configs(admin, settings, [topic.name for topic in topics.values() if topic.name in present])
    findings = []
    for purpose, topic in topics.items():
        found = present.get(topic.name)
        differences = _differences(topic, found, configs.get(topic.name, {}), settings) if found else ()
        findings.append(Finding(topic.name, purpose, found is not None, topic.name in created, tuple(differences)))
    return findings


async def _configs(admin: AIOKafkaAdminClient, settings: KafkaSettings, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    if not names:
        return {}
    wanted_keys = dict.fromkeys((_RETENTION, _LARGEST, _CLEANUP), "")
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted_keys) for name in names])
    found: dict[str, Mapping[str, str]] = {}
    for response in responses:
        for code, message, _, name, entries in response.resources:
            error = errors.for_code(code)
            if issubclass(error, AUTHORISATION):
                raise refused(settings, "DescribeConfigs on it", f"see how the topic {name} is configured")
            if error is not errors.NoError:
                raise error(message or name)
            found[name] = {key: value for key, value, *_ in entries}
    return found


def _differences(topic: TopicSettings, found: Mapping[str, Any], config: Mapping[str, str], settings: KafkaSettings) -> Sequence[str]:
    said = []
    partitions = len(found["partitions"])
    if partitions != topic.partitions:
        said.append(f"has {partitions} partitions, the settings say {topic.partitions}")
    copies = min(len(partition["replicas"]) for partition in found["partitions"])
    if settings.replication is not None and copies != settings.replication:
        said.append(f"has {copies} copies, the settings say {settings.replication}")
    hours = int(config[_RETENTION]) / 3_600_000 if int(config[_RETENTION]) >= 0 else float("inf")
    if hours != topic.retention_hours:
        said.append(f"keeps records {hours:g} h, the settings say {topic.retention_hours:g} h")
    if int(config[_LARGEST]) < settings.max_message_bytes:
        said.append(f"takes {config[_LARGEST]} bytes, kafka.max_message_bytes is {settings.max_message_bytes}")
    if config[_CLEANUP] != "delete":
        said.append(f"is cleaned up by {config[_CLEANUP]!r}, which loses records of a session; it should be 'delete'")
    return said
