"""The AsyncAPI document holds together: what it refers to exists, and says what is published."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.kafka.settings import KafkaSettings
from session_store.adapters.event_records import EVENT_TYPES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "asyncapi.yaml"
DOCUMENT = yaml.safe_load(PAGE.read_text())


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from [below] if key == "$ref" else references(below)
    elif isinstance(value, list):
        for below in value:
            yield from references(below)


def found(reference: str) -> Any:
    node = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


@pytest.mark.feature("E3")
def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        if reference.startswith("#/"):
            assert found(reference)
        else:
            assert (PAGE.parent / reference).is_file(), reference


@pytest.mark.feature("E3")
def test_every_message_is_in_the_proto_that_it_names() -> None:
    for name, message in DOCUMENT["components"]["messages"].items():
        text = (PAGE.parent / message["payload"]["schema"]["$ref"]).read_text()
        package, _, short = message["x-protobuf-message"].rpartition(".")
        assert f"package {package};" in text and f"message {short} {{" in text, name
        if "x-protobuf-kind" in message:
            assert re.search(rf"\b{message['x-protobuf-kind']} = \d+;", text), name


@pytest.mark.feature("E3")
def test_every_topic_and_every_event_of_a_run_is_there() -> None:
    assert {channel["address"] for channel in DOCUMENT["channels"].values()} == {
        topic.name for topic in KafkaSettings().topics.by_purpose().values()
    }
    told = {**DOCUMENT["channels"]["runs"]["messages"], **DOCUMENT["channels"]["deltas"]["messages"]}
    assert set(told) == set(EVENT_TYPES.values())
