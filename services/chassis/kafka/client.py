"""Connections to Kafka's brokers by the settings, and what to do about it when they fail."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaClient, errors
from aiokafka.conn import create_conn

from chassis.faults import Fault, KafkaAccessRefused, KafkaUnavailable, SettingsInvalid, TopicMissing
from chassis.kafka.settings import KafkaSettings

REQUEST_SECONDS = 10.0

# What the library says of each attempt is said once, by whoever uses it, as a fault with a remedy.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

AUTHENTICATION = (
    errors.SaslAuthenticationFailed,
    errors.AuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
AUTHORISATION = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)


def client_options(settings: KafkaSettings, name: str = "") -> dict[str, Any]:
    """What every client of aiokafka takes: addresses, identity, encryption. Raises SettingsInvalid for files that cannot be used."""
    security = settings.security
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "client_id": "-".join(filter(None, (settings.client_id, name))),
        "request_timeout_ms": round(REQUEST_SECONDS * 1000),
        "security_protocol": ("SASL_" if security.username else "") + ("SSL" if security.tls else "PLAINTEXT"),
    }
    if security.tls:
        options["ssl_context"] = _tls(settings)
    if security.password is not None:
        identity = {"sasl_plain_username": security.username, "sasl_plain_password": security.password.read()}
        options |= {"sasl_mechanism": security.mechanism, **identity}
    return options


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    security = settings.security
    try:
        context = ssl.create_default_context(cafile=security.ca_file)
        if security.certificate_file is not None:
            password = security.key_password.read() if security.key_password else ""  # never asked for on a terminal
            context.load_cert_chain(security.certificate_file, security.key_file, password)
    except (OSError, ssl.SSLError) as error:
        text = f"kafka.security: the certificates cannot be used: {error.strerror or error}; correct ca_file, certificate_file and key_file"
        raise SettingsInvalid(text) from None
    return context


@asynccontextmanager
async def open_client(settings: KafkaSettings, name: str = "") -> AsyncIterator[AIOKafkaClient]:
    """A client that knows the cluster. Raises KafkaUnavailable, KafkaAccessRefused, SettingsInvalid."""
    client = await connect(settings, name)
    try:
        yield client
    finally:
        await client.close()


async def connect(settings: KafkaSettings, name: str = "") -> AIOKafkaClient:
    """As open_client; whoever calls closes it."""
    options = client_options(settings, name)
    client = AIOKafkaClient(**options)
    try:
        await client.bootstrap()
    except errors.KafkaConnectionError:
        await client.close()
        raise await _why_not(settings, client) from None
    except BaseException:
        await client.close()
        raise
    return client


async def _why_not(settings: KafkaSettings, client: AIOKafkaClient) -> Fault:
    """Why no broker could be reached; the library only logs it."""
    problem: Exception = errors.KafkaConnectionError("no broker")
    options = client_options(settings)
    for name in ("bootstrap_servers", "client_id"):
        options.pop(name)
    for host, port, _ in client.hosts:
        try:
            connection = await create_conn(host, port, client_id=settings.client_id, **options)
        except (OSError, TimeoutError, errors.KafkaError) as error:
            problem = error
        else:
            with suppress(Exception):
                await connection.close()
    return explained(problem, settings)


async def learn(client: AIOKafkaClient, topics: set[str]) -> None:
    """Asks where the topics are. Raises UnknownTopicOrPartitionError and TopicAuthorizationFailedError with their names."""
    client.set_topics(topics)
    async with asyncio.timeout(REQUEST_SECONDS):
        if not await client.force_metadata_update():
            raise errors.KafkaConnectionError("no broker answers")
    refused = client.cluster.unauthorized_topics & topics
    if refused:
        raise errors.TopicAuthorizationFailedError(", ".join(sorted(refused)))
    missing = [topic for topic in sorted(topics) if not client.cluster.partitions_for_topic(topic)]
    if missing:
        raise errors.UnknownTopicOrPartitionError(", ".join(missing))


def explained(error: Exception, settings: KafkaSettings, topics: Sequence[str] = ()) -> Fault:
    """The fault that tells an operator what to do about an error of Kafka; topics are those it is about, where the error does not say."""
    if isinstance(error, Fault):
        return error
    named = ", ".join(_topics_of(error) or topics) or "the topics"
    if isinstance(error, AUTHENTICATION) or _is_certificate(error):
        text = f"Kafka refuses who we are ({_said(error)}); correct kafka.security: mechanism, username, password and certificates"
        return KafkaAccessRefused(text, metadata=_metadata(settings))
    if isinstance(error, AUTHORISATION):
        return _not_allowed(error, settings, named)
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        text = f"Kafka has no topic {named}; create it with `behest topics apply`, or correct kafka.topics"
        return TopicMissing(text, metadata={"topics": named})
    if isinstance(error, errors.BrokerResponseError):
        remedy = "this should pass; look at the brokers' logs if it does not" if error.retriable else "look at the brokers' logs"
        text = f"Kafka at {settings.bootstrap_servers} refuses: {_said(error)}; {remedy}"
    else:
        text = f"Kafka at {settings.bootstrap_servers} cannot be used: {_said(error)}; start it, or correct kafka.bootstrap_servers"
    return KafkaUnavailable(text, metadata=_metadata(settings), retry_after=1.0)


def refused(settings: KafkaSettings, right: str, what: str) -> KafkaAccessRefused:
    """The fault for something that our user may not do."""
    user = settings.security.username or "our identity"
    return KafkaAccessRefused(f"Kafka does not let {user} {what}; grant it {right}", metadata=_metadata(settings))


def _not_allowed(error: Exception, settings: KafkaSettings, named: str) -> Fault:
    user = settings.security.username or "our identity"
    if isinstance(error, errors.TopicAuthorizationFailedError):
        needs = f"grant {user} Describe and Write on topics {named} (Read on the topic of commands)"
    elif isinstance(error, errors.GroupAuthorizationFailedError):
        needs = f"grant {user} Read on the consumer group"
    else:
        needs = f"grant {user} IdempotentWrite, or Create and AlterConfigs for `behest topics apply`, on the cluster"
    return KafkaAccessRefused(f"Kafka refuses access ({_said(error)}); {needs}", metadata=_metadata(settings))


def _topics_of(error: Exception) -> Sequence[str]:
    given = [each for each in error.args if isinstance(each, str | set | frozenset)]
    found = given[0] if given else ()
    return (found,) if isinstance(found, str) else sorted(found)


def _is_certificate(error: Exception) -> bool:
    return isinstance(error, ssl.SSLError)


def _said(error: Exception) -> str:
    if isinstance(error, errors.NodeNotReadyError):
        return "a broker cannot be reached"
    if isinstance(error, TimeoutError | asyncio.TimeoutError | errors.RequestTimedOutError):
        return f"no answer within {REQUEST_SECONDS:g} s"
    return (error.strerror if isinstance(error, OSError) and error.strerror else None) or str(error) or type(error).__name__


def _metadata(settings: KafkaSettings) -> dict[str, str]:
    return {"bootstrap_servers": settings.bootstrap_servers}
