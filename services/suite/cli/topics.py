"""`behest topics apply`: the topics of Kafka as the settings say, and how those that are there differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from chassis.faults import SettingsInvalid
from chassis.kafka.settings import KafkaSettings
from chassis.kafka.topics import Finding, apply_topics, check_topics
from chassis.settings import load_sections
from suite.cli.loop import open_loop
from suite.cli.outcome import Exit
from suite.cli.output import Column, Output
from suite.composition import SuiteOptions

COLUMNS = (Column("topic", whole=True), Column("for"), Column("state"))


def run_topics(config: Path | None, check: bool, json: bool | None) -> Exit:
    """Creates what is missing, unless it is only to be checked; FAILED when a topic is missing or differs afterwards."""
    settings = kafka_settings(SuiteOptions(Path(), config))
    with open_loop() as loop:
        findings = loop.run(check_topics(settings) if check else apply_topics(settings))
    _show(Output(json), findings)
    return Exit.OK if all(finding.good for finding in findings) else Exit.FAILED


def kafka_settings(options: SuiteOptions) -> KafkaSettings:
    """The settings of Kafka. Raises SettingsInvalid, also when Kafka is off."""
    loaded = load_sections({"kafka": KafkaSettings}, options.settings_file(), os.environ)["kafka"]
    settings = cast(KafkaSettings, loaded)
    if not settings.on:
        raise SettingsInvalid("kafka.bootstrap_servers is empty, so Kafka is off; set it, such as broker-1:9092,broker-2:9092")
    return settings


def _show(output: Output, findings: Sequence[Finding]) -> None:
    if not output.json:
        output.table(COLUMNS, [(each.topic, each.purpose, each.text) for each in findings], empty="no topics")
        return
    for each in findings:
        state = "missing" if not each.exists else "different" if each.differences else "created" if each.created else "as set"
        output.object({"topic": each.topic, "for": each.purpose, "state": state, "differences": list(each.differences)})
