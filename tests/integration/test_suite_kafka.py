"""Kafka as the user of a suite meets it: a setting, a command, a doctor, and the events of a run in a topic."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from behest.event.v1 import event_pb2
from kit.kafka import KafkaCluster
from kit.suites import ROOT, call, open_suite_under_test, tool_turns

NOWHERE = "127.0.0.1:1"


def behest(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command as a user's script runs it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BEHEST") and not key.endswith("_API_KEY")}
    path = os.pathsep.join(str(ROOT / name) for name in ("services", "gen"))
    command = [sys.executable, "-m", "suite", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**kept, "PYTHONPATH": path, **env}, capture_output=True, text=True, timeout=100, check=False
    )


def settings_of(kafka: KafkaCluster) -> dict[str, str]:
    """The environment that names the cluster and topics of the test's own."""
    purposes = ("RUNS", "DELTAS", "TOOL_EXECUTIONS", "PROVIDER_CALLS", "COMMANDS", "DEAD_COMMANDS")
    names = {f"BEHEST__KAFKA__TOPICS__{purpose}__NAME": kafka.topic(purpose.lower()) for purpose in purposes}
    return {"BEHEST__KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers, **names}


@pytest.mark.feature("X2")
def test_topics_are_checked_created_and_then_as_they_should_be(kafka: KafkaCluster, tmp_path: Path) -> None:
    env = settings_of(kafka)
    checked = behest(tmp_path, "topics", "apply", "--check", **env)
    assert checked.returncode == 1 and {json.loads(line)["state"] for line in checked.stdout.splitlines()} == {"missing"}
    applied = behest(tmp_path, "topics", "apply", "--no-json", **env)
    assert applied.returncode == 0 and applied.stdout.count("created") == 5, applied.stderr
    again = behest(tmp_path, "topics", "apply", "--check", **env)
    assert again.returncode == 0 and {json.loads(line)["state"] for line in again.stdout.splitlines()} == {"as set"}
    differing = behest(tmp_path, "topics", "apply", "--check", **env, BEHEST__KAFKA__TOPICS__RUNS__PARTITIONS="5")
    assert differing.returncode == 1
    (line,) = [json.loads(line) for line in differing.stdout.splitlines() if json.loads(line)["for"] == "runs"]
    assert line["differences"] == ["has 12 partitions, the settings say 5"]


@pytest.mark.feature("X2")
def test_topics_cannot_be_applied_while_kafka_is_off_or_away(tmp_path: Path) -> None:
    off = behest(tmp_path, "topics", "apply")
    assert (off.returncode, off.stdout) == (2, "") and "kafka.bootstrap_servers is empty" in off.stderr
    away = behest(tmp_path, "topics", "apply", BEHEST__KAFKA__BOOTSTRAP_SERVERS=NOWHERE)
    assert away.returncode == 1 and f"Kafka at {NOWHERE} cannot be used" in away.stderr


@pytest.mark.feature("X2")
def test_the_doctor_says_what_is_wrong_with_kafka_and_nothing_where_it_is_off(kafka: KafkaCluster, tmp_path: Path) -> None:
    def found(**env: str) -> list[tuple[bool, str]]:
        env["BEHEST__PROVIDER_GATEWAY__DEFAULT_MODEL"] = "scripted/echo"  # whether a real model answers is not asked here
        said = behest(tmp_path, "doctor", "--data", str(tmp_path), "--port-base", "29000", **env)
        findings = [json.loads(line) for line in said.stdout.splitlines()]
        return [(each["ok"], each["text"]) for each in findings if each["check"] == "kafka"]

    assert found() == []
    ((ok, text),) = found(**settings_of(kafka))
    assert ok is False and f"{kafka.topic('runs')}: missing" in text and "behest topics apply" in text


@pytest.mark.feature("E2")
@pytest.mark.parametrize("one_process", [True, False])
async def test_the_events_of_a_run_are_in_the_topic_as_they_are_in_the_log(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: bool
) -> None:
    env = settings_of(kafka)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    applied = await asyncio.to_thread(behest, tmp_path, "topics", "apply", **env)
    assert applied.returncode == 0, applied.stderr
    script = {"turns": tool_turns([["a", "b"], ["c"]])}
    async with open_suite_under_test(tmp_path, script, one_process=one_process) as suite, call(suite) as caller:
        run = await caller.create(agent="worker")
        log = await caller.watch(run.id)
        wanted = [event for event in log if event.WhichOneof("kind") not in ("text_delta", "reasoning_delta", "tool_call_delta")]
        topic = kafka.topic("runs")
        records = await kafka.records_when(topic, lambda found: len(found) >= len(wanted))
    events = [event_pb2.Event.FromString(record.value) for record in records]
    assert [(event.sequence, event.WhichOneof("kind")) for event in events] == [(e.sequence, e.WhichOneof("kind")) for e in wanted]
    assert {record.key.decode() for record in records} == {run.session_id}
