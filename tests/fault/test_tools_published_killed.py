"""Published executions while the executor that publishes them is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.waypoints import ARGUMENT, PERMIT
from kit.kafka import KafkaCluster
from kit.suites import call, check_history, open_suite_under_test, tool_turns


@pytest.mark.feature("E2")
async def test_an_executor_killed_between_publishing_and_its_note_of_it_publishes_again_and_loses_nothing(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await kafka.create_topic(kafka.topic("executions"))
    await kafka.create_topic(kafka.topic("runs"))
    monkeypatch.setenv(PERMIT, "1")
    monkeypatch.setenv("BEHEST__KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("BEHEST__KAFKA__TOPICS__TOOL_EXECUTIONS__NAME", topic)
    monkeypatch.setenv("BEHEST__KAFKA__TOPICS__RUNS__NAME", kafka.topic("runs"))
    script = {"turns": tool_turns([["a", "b"], ["c"], ["d", "e"]])}
    async with open_suite_under_test(tmp_path, script) as suite, call(suite) as caller:
        await suite.terminate("tool_executor")
        await suite.start("tool_executor", ARGUMENT, "executor.published:1:kill")
        run = await caller.create()
        assert await suite.processes["tool_executor"].wait() == -9
        before = [dict(record.headers)["ce_id"].decode() for record in await kafka.records(topic)]
        assert before, "what was published before the end is there"
        await suite.start("tool_executor")
        events = await caller.watch(run.id)
        check_history(events)
        finished = [event.tool_execution_finished for event in events if event.HasField("tool_execution_finished")]
        keys = {f"{run.id}/{ended.turn}/{ended.result.call_id}" for ended in finished}
        assert len(keys) == 5
        records = await kafka.records_when(
            topic, lambda found: {dict(r.headers)["ce_id"].decode() for r in found} >= keys and len(found) >= 5 + len(before), seconds=60
        )
        ids = [dict(record.headers)["ce_id"].decode() for record in records]
        assert set(ids) == keys
        assert all(ids.count(key) == 1 + before.count(key) for key in keys), "what was not noted comes again, nothing else does"
