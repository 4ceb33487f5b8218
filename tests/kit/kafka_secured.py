"""A broker that asks who is there: one more listener, with SASL and rights, beside the open one of kit.kafka."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from kit.kafka import KafkaCluster, open_kafka
from kit.kafka_broker import Broker
from kit.ports import free_port

USER, PASSWORD = "app", "correct-horse"
RIGHTS = """
listener.name.secured.sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users={super_users}
"""


class SecuredKafka:
    """A cluster of one broker. `secured` is the address that asks for USER and PASSWORD; the user may do nothing until `grant`."""

    def __init__(self, cluster: KafkaCluster, secured: str) -> None:
        self.cluster = cluster
        self.secured = secured
        self._plain = self._settings.read_text()

    @property
    def _broker(self) -> Broker:
        return self.cluster.brokers[0]

    @property
    def _settings(self) -> Path:
        return self._broker.folder / "server.properties"

    async def allow(self, *users: str) -> None:
        """Starts the broker again with these users allowed to do anything, and nobody else save who comes without a name."""
        names = ";".join(f"User:{user}" for user in ("ANONYMOUS", *users))
        text = self._plain.replace("\nadvertised.listeners=", f"\nadvertised.listeners=SECURED://{self.secured},")
        text = text.replace("\nlisteners=", f"\nlisteners=SECURED://{self.secured},")
        text = text.replace("protocol.map=", "protocol.map=SECURED:SASL_PLAINTEXT,")
        if self._broker.process is not None:
            self._broker.kill()
        self._settings.write_text(text + RIGHTS.format(user=USER, password=PASSWORD, super_users=names))
        self._broker.start()
        await self.cluster.serving()


@contextlib.asynccontextmanager
async def open_secured_kafka(folder: Path) -> AsyncIterator[SecuredKafka]:
    """The broker, its user known and without any right."""
    async with open_kafka(folder) as cluster:
        secured = SecuredKafka(cluster, f"127.0.0.1:{free_port()}")
        await secured.allow()
        yield secured
