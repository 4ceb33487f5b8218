"""The settings of Kafka: section kafka of the configuration, shared by all services."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chassis.secret import Secret

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]]+):\d{1,5}")


class SecuritySettings(BaseModel):
    """How the brokers are reached and who we are to them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tls: bool = Field(False, description="Whether connections are encrypted.")
    ca_file: Path | None = Field(None, description="The authorities that may sign the brokers' certificates, PEM. Unset: the system's.")
    certificate_file: Path | None = Field(None, description="Our certificate, PEM, where brokers ask for one.")
    key_file: Path | None = Field(None, description="The key of our certificate, PEM. Unset: it is in certificate_file.")
    key_password: Secret | None = Field(None, description="What the key is encrypted with.")
    mechanism: Mechanism = Field("SCRAM-SHA-512", description="How the password is proved; used when username is set.")
    username: str = Field("", description="The user of SASL. Empty: no SASL.")
    password: Secret | None = Field(None, description="The password of SASL.")

    @model_validator(mode="after")
    def _complete(self) -> SecuritySettings:
        if bool(self.username) != (self.password is not None):
            raise ValueError("username and password go together; set both or neither")
        tls_only = [name for name in ("ca_file", "certificate_file", "key_file", "key_password") if getattr(self, name) is not None]
        if tls_only and not self.tls:
            raise ValueError(f"{tls_only[0]} has no effect without tls; set tls to true, or remove it")
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file needs certificate_file; set both")
        return self


class TopicSettings(BaseModel):
    """One topic; what is set here is what `behest topics apply` creates and compares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The topic's name.")
    partitions: int = Field(
        12, ge=1, le=10_000, description="Partitions. Raising it later parts a session's old records from its new ones."
    )
    retention_hours: float = Field(168, gt=0, le=1_000_000, description="Hours that records are kept.")

    @field_validator("name")
    @classmethod
    def _possible(cls, value: str) -> str:
        if _TOPIC.fullmatch(value) is None or value in (".", ".."):
            raise ValueError("must be 1 to 249 of a-z, A-Z, 0-9, ., _ and -")
        return value


class RunsTopic(TopicSettings):
    """Events of runs, save deltas."""

    name: str = Field("behest.runs", description="The topic of runs' events, save deltas.")


class DeltasTopic(TopicSettings):
    """Deltas of text, reasoning and arguments."""

    name: str = Field("behest.deltas", description="The topic of deltas; used when kafka.deltas is true.")
    retention_hours: float = Field(24, gt=0, le=1_000_000, description="Hours that records are kept.")


class ToolExecutionsTopic(TopicSettings):
    """What the tool-executor did."""

    name: str = Field("behest.tool-executions", description="The topic of what the tool-executor did.")


class ProviderCallsTopic(TopicSettings):
    """What the provider-gateway called, and what it cost."""

    name: str = Field("behest.provider-calls", description="The topic of what the provider-gateway called, and what it cost.")


class CommandsTopic(TopicSettings):
    """Commands to the orchestrator."""

    name: str = Field("behest.commands", description="The topic that the orchestrator takes commands from.")
    retention_hours: float = Field(
        24, gt=0, le=1_000_000, description="Hours that records are kept. Commands older than 23 are not carried out, but put aside."
    )


class DeadCommandsTopic(TopicSettings):
    """Commands that could not be carried out, with the reason."""

    name: str = Field("behest.commands.dead", description="The topic of commands that could not be carried out, with the reason.")
    retention_hours: float = Field(720, gt=0, le=1_000_000, description="Hours that records are kept.")


class TopicsSettings(BaseModel):
    """The topics, by what they are for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: RunsTopic = Field(RunsTopic(), description="Events of runs, save deltas.")
    deltas: DeltasTopic = Field(DeltasTopic(), description="Deltas of text, reasoning and arguments.")
    tool_executions: ToolExecutionsTopic = Field(ToolExecutionsTopic(), description="What the tool-executor did.")
    provider_calls: ProviderCallsTopic = Field(ProviderCallsTopic(), description="What the provider-gateway called, and what it cost.")
    commands: CommandsTopic = Field(CommandsTopic(), description="Commands to the orchestrator.")
    dead_commands: DeadCommandsTopic = Field(DeadCommandsTopic(), description="Commands that could not be carried out.")

    @model_validator(mode="after")
    def _apart(self) -> TopicsSettings:
        purposes: dict[str, str] = {}
        for purpose, topic in self.by_purpose().items():
            if topic.name in purposes:
                raise ValueError(f"{purposes[topic.name]} and {purpose} are both named {topic.name}; give each its own")
            purposes[topic.name] = purpose
        return self

    def by_purpose(self) -> dict[str, TopicSettings]:
        """Every topic, by the key that sets it."""
        return {purpose: getattr(self, purpose) for purpose in type(self).model_fields}


class KafkaSettings(BaseModel):
    """Where events go to and commands come from. Without bootstrap_servers Kafka is off and everything else works."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap_servers: str = Field("", description="Brokers to begin with, host:port separated by commas. Empty: no Kafka.")
    security: SecuritySettings = Field(SecuritySettings(), description="Encryption and identity.")
    client_id: str = Field("behest", min_length=1, max_length=200, description="How brokers' logs and quotas call us.")
    deltas: bool = Field(False, description="Whether deltas are published, too; they are most of all events.")
    max_message_bytes: int = Field(
        1_000_000,
        ge=10_000,
        le=100_000_000,
        description="The largest record the topics take. A larger event is published without its data, which the run's log has.",
    )
    replication: int | None = Field(
        None, ge=1, le=100, description="Copies of each partition when a topic is created. Unset: three, or as many as there are brokers."
    )
    topics: TopicsSettings = Field(TopicsSettings(), description="Topics by purpose.")

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        servers = [server.strip() for server in value.split(",")] if value.strip() else []
        wrong = [server for server in servers if _SERVER.fullmatch(server) is None]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not host:port; write such as broker-1:9092,broker-2:9092")
        return ",".join(servers)

    @property
    def on(self) -> bool:
        """Whether Kafka is used."""
        return bool(self.bootstrap_servers)


NO_KAFKA = KafkaSettings()
