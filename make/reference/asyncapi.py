"""The AsyncAPI document: the topics, what is in them, and who writes and reads them, from the protos and the modules that make records."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import Descriptor

from behest.event.v1 import event_pb2
from behest.provider.v1 import provider_pb2
from behest.tool.v1 import tool_pb2
from chassis.kafka.settings import KafkaSettings, TopicSettings
from orchestrator.adapters.kafka_commands import DEAD_HEADERS
from orchestrator.api.commands import KINDS
from provider_gateway.adapters.call_records import ENDED as CALL_ENDED
from reference import protos
from session_store.adapters.event_records import DELTAS, EVENT_TYPES
from tool_executor.adapters.execution_records import ENDED

ROOT = Path(__file__).resolve().parent.parent.parent
PROTOBUF = "application/vnd.google.protobuf;version=3"


@dataclass(frozen=True, slots=True)
class Told:
    """A type of event, its data, and the kind that is set in it where its data can be of several."""

    type: str
    data: Descriptor
    kind: str = ""


def topics() -> Mapping[str, list[Told]]:
    """What each topic holds, by purpose."""
    events = [Told(type_, event_pb2.Event.DESCRIPTOR, kind) for kind, type_ in EVENT_TYPES.items()]
    commands = [Told(type_, kind.request.DESCRIPTOR) for type_, kind in KINDS.items()]
    return {
        "runs": [told for told in events if told.kind not in DELTAS],
        "deltas": [told for told in events if told.kind in DELTAS],
        "tool_executions": [Told(ENDED, tool_pb2.Execution.DESCRIPTOR)],
        "provider_calls": [Told(CALL_ENDED, provider_pb2.ProviderCall.DESCRIPTOR)],
        "commands": commands,
        "dead_commands": commands,
    }


def lines() -> Iterator[str]:
    """The document, line by line."""
    yield "# Made by make/docs.py from the protos and the code. Topics have the names that the settings give them; these are the defaults."
    yield from yaml.safe_dump(document(), sort_keys=False, width=140, allow_unicode=True).splitlines()


def document() -> dict[str, Any]:
    """The document as data."""
    told = topics()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "behest",
            "version": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
            "description": (
                "Events as CloudEvents 1.0 in the binary mode of its Kafka binding, and commands in the same form. "
                "At least once: drop what you saw before, by ce_source and ce_id, and the records of a key come in their order. "
                "Types and messages only ever grow; skip types and fields that you do not know."
            ),
        },
        "defaultContentType": "application/protobuf",
        "servers": {"kafka": {"host": "{bootstrap}", "protocol": "kafka", "variables": {"bootstrap": {"default": "127.0.0.1:9092"}}}},
        "channels": {purpose: _channel(topic, told[purpose]) for purpose, topic in KafkaSettings().topics.by_purpose().items()},
        "operations": {purpose: _operation(purpose) for purpose in told},
        "components": {
            "messages": {each.type: _message(each) for own in told.values() for each in own},
            "schemas": {"headers": _headers()},
        },
    }


def _channel(topic: TopicSettings, told: list[Told]) -> dict[str, Any]:
    kafka = {
        "topic": topic.name,
        "partitions": topic.partitions,
        "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": round(topic.retention_hours * 3_600_000)},
        "bindingVersion": "0.5.0",
    }
    return {
        "address": topic.name,
        "description": " ".join((type(topic).__doc__ or "").split()),
        "messages": {each.type: {"$ref": f"#/components/messages/{each.type}"} for each in told},
        "bindings": {"kafka": kafka},
    }


def _operation(purpose: str) -> dict[str, Any]:
    action = "receive" if purpose == "commands" else "send"
    return {"action": action, "channel": {"$ref": f"#/channels/{purpose}"}}


def _message(told: Told) -> dict[str, Any]:
    file = told.data.file.name
    payload: dict[str, Any] = {"schemaFormat": PROTOBUF, "schema": {"$ref": f"../../proto/{file}"}}
    named = {"x-protobuf-message": told.data.full_name, **({"x-protobuf-kind": told.kind} if told.kind else {})}
    return {
        "name": told.type,
        "summary": _summary(told),
        "contentType": "application/protobuf",
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": payload,
        **named,
    }


def _summary(told: Told) -> str:
    """The comment of the kind, else of the message."""
    file = protos.files()[told.data.file.name]
    for message, comment, path in protos.messages(file):
        if message.name == told.data.name:
            kinds = {field.name: protos.comment(file, *path, 2, index) for index, field in enumerate(message.field)}
            return kinds[told.kind] if told.kind else comment
    raise KeyError(told.data.full_name)


def _headers() -> dict[str, Any]:
    required = {
        "ce_specversion": "Always 1.0.",
        "ce_id": "Names the event within its source; the same when it is repeated. Of a run's event: <run>/<sequence>.",
        "ce_source": "Who says it: /<service>/<tenant>.",
        "ce_type": "What it is.",
    }
    optional = {
        "ce_time": "When it happened, RFC 3339.",
        "ce_subject": "What it is about, such as runs/<run>.",
        "ce_dataschema": "The data's protobuf message: proto:<full name>.",
        "ce_tenant": "Whose it is.",
        "ce_session": "The session, which is the record's key, too.",
        "ce_traceparent": "W3C trace context of what caused it.",
        "traceparent": "The same, where tracers look for it.",
        "ce_omittedbytes": "The data is too large for a record and left out: how many bytes it has.",
        "ce_dataref": "Where data that was left out is read: a method and a field of its request.",
        **{f"behest-dead-{name}": f"Of a command that was put aside: {text}" for name, text in DEAD_HEADERS.items()},
    }
    properties = {name: {"type": "string", "description": text} for name, text in {**required, **optional}.items()}
    return {"type": "object", "required": list(required), "properties": properties}
