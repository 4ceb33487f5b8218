"""A whole suite on bad days: providers that fail in every way, tools that misbehave, storage that goes away, storms of calls.

Every run ends once and typed, its session can be used afterwards, and no key is in a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import session_store.adapters.sqlite.storage as storage_adapter
from behest.event.v1 import event_pb2
from behest.tool.v1 import tool_pb2
from chassis.faults import Fault, RunCancelled, RunNotFound, SessionBusy, StorageUnavailable
from chassis.sqlite import open_sqlite
from kit.provider_upstream import Reply, open_upstream, raw_reply, silence, stream, whole
from kit.suites import check_history, kinds
from suite.client import Behest
from suite.composition import SuiteOptions
from suite.embedded import open_suite
from suite.handle import RunHandle

KEY = "sk-not-to-be-told-0123456789"
MISBEHAVING = Path(__file__).parents[1] / "kit/misbehaving_tools.py"
QUICK = {"first_pause_ms": 1, "longest_pause_ms": 2}
LIMITS = {"first_output_seconds": 0.2, "idle_seconds": 0.2, "event_bytes": 100_000}


@contextlib.asynccontextmanager
async def open_client(folder: Path, providers: dict[str, Any], model: str, **sections: Any) -> AsyncIterator[Behest]:
    gateway = {"default_model": model, "retries": QUICK, "providers": providers}
    config = folder / "behest.yaml"
    config.write_text(yaml.safe_dump({"log": {"level": "info"}, "provider_gateway": gateway, **sections}))
    async with open_suite(SuiteOptions(folder, config, local_model=False)) as suite, suite.client() as client:
        yield client


def scripted(folder: Path, script: dict[str, Any], **sections: Any) -> contextlib.AbstractAsyncContextManager[Behest]:
    return open_client(folder, {"scripted": {"adapter": "scripted", "script": script}}, "scripted/m", **sections)


async def outcome(client: Behest, text: str, **order: Any) -> tuple[str, str, list[event_pb2.Event]]:
    """What the caller gets, the answer or the reason; the session; and the checked log."""
    async with asyncio.timeout(30):
        run = await client.run(text, **order)
        try:
            told = await run.answer()
        except Fault as fault:
            told = fault.reason
            assert fault.message
    events = await client.replay(run.id)
    check_history(events)
    return told, run.session_id, events


def sse(*documents: Any) -> bytes:
    return b"".join(f"data: {json.dumps(document)}\n\n".encode() for document in documents)


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, **more}]}


def refusal(status: int, code: str = "y", **headers: str) -> Reply:
    return whole({"error": {"message": f"no, {KEY}", "type": "x", "code": code}}, status, **headers)


GOOD = stream(sse(delta("fine"), delta("", finish_reason="stop")), b"data: [DONE]\n\n")
HALF = stream(sse(delta("half ")), end=False)


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        pytest.param([refusal(401)], "PROVIDER_CREDENTIALS_REFUSED", id="wrong-key"),
        pytest.param([refusal(403)], "PROVIDER_PERMISSION_DENIED", id="forbidden"),
        pytest.param([refusal(404, "model_not_found")], "MODEL_NOT_FOUND", id="no-such-model"),
        pytest.param([refusal(429, retry_after="0.1"), GOOD], "fine", id="asks-to-wait"),
        pytest.param([refusal(429, retry_after="3600")], "PROVIDER_RATE_LIMITED", id="asks-to-wait-an-hour"),
        pytest.param([whole(b"oops", 500)], "PROVIDER_UNAVAILABLE", id="fails"),
        pytest.param([whole(b"oops", 500), GOOD], "fine", id="fails-once"),
        pytest.param([raw_reply(b"\x00\x01 not http\r\n\r\n")], "PROVIDER_RESPONSE_INVALID", id="no-http"),
        pytest.param([whole(b"<html>log in</html>")], "PROVIDER_RESPONSE_INVALID", id="a-web-page"),
        pytest.param([stream(b"data: {nope\n\n")], "PROVIDER_RESPONSE_INVALID", id="no-json"),
        pytest.param([stream(b"data: " + b"x" * 300_000 + b"\n\n")], "PROVIDER_RESPONSE_INVALID", id="an-endless-event"),
        pytest.param([stream(sse(delta("a"), {"error": {"message": f"no, {KEY}"}}))], "PROVIDER_UNAVAILABLE", id="error-within-200"),
        pytest.param([HALF], "STREAM_INCOMPLETE", id="half-a-stream"),
        pytest.param([HALF, GOOD], "fine", id="half-a-stream-once"),
        pytest.param([raw_reply(b"")], "PROVIDER_UNAVAILABLE", id="hangs-up"),
        pytest.param([silence()], "PROVIDER_TIMEOUT", id="silence"),
        pytest.param([silence(sse(delta("a")))], "PROVIDER_TIMEOUT", id="silence-after-a-word"),
    ],
)
@pytest.mark.feature("R4")
@pytest.mark.feature("P21")
async def test_whatever_a_provider_does_the_run_ends_typed_and_the_session_goes_on(
    replies: list[Reply], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with open_upstream(*replies) as upstream:
        provider = {"adapter": "openai", "base_url": f"{upstream.url}/v1", "api_key": KEY, "limits": LIMITS}
        async with open_client(tmp_path, {"p": provider}, "p/m") as client:
            first, session_id, events = await outcome(client, "hello")
            assert first == told
            upstream.replies[:] = [GOOD]
            hour = told == "PROVIDER_RATE_LIMITED"  # a provider that wants to be left alone for so long is
            assert (await outcome(client, "again", session_id=session_id))[0] == (told if hour else "fine")
            assert len(upstream.received) == 1 or not hour
            assert KEY not in str(events)
    output = capfd.readouterr()
    assert KEY not in output.out + output.err and "Traceback" not in output.err


S = tool_pb2.ExecutionStatus


@pytest.mark.parametrize(
    ("tool", "status"),
    [
        ("raises", S.EXECUTION_STATUS_FAILED),
        ("exits", S.EXECUTION_STATUS_FAILED),
        ("interrupts", S.EXECUTION_STATUS_FAILED),
        ("cancels_itself", S.EXECUTION_STATUS_FAILED),
        ("recurses", S.EXECUTION_STATUS_FAILED),
        ("hangs", S.EXECUTION_STATUS_TIMED_OUT),
        ("hangs_in_a_thread", S.EXECUTION_STATUS_TIMED_OUT),
        ("returns_fifty_megabytes", S.EXECUTION_STATUS_SUCCEEDED),
        ("returns_an_object", S.EXECUTION_STATUS_FAILED),
        ("returns_itself", S.EXECUTION_STATUS_FAILED),
        ("returns_half_a_character", S.EXECUTION_STATUS_SUCCEEDED),
        ("returns_a_deep_list", S.EXECUTION_STATUS_FAILED),
    ],
)
@pytest.mark.feature("T6")
async def test_whatever_a_tool_does_the_model_reads_a_bounded_result_and_the_run_completes(tool: str, status: int, tmp_path: Path) -> None:
    script = {"turns": [{"calls": [{"name": tool, "arguments": {}}]}, {"text": ["done"]}]}
    async with scripted(tmp_path, script, **tools_of(MISBEHAVING)) as client:
        told, session_id, events = await outcome(client, "go")
        [result] = [event.tool_execution_finished.result for event in events if event.WhichOneof("kind") == "tool_execution_finished"]
        assert (told, result.status) == ("done", status)
        assert all(len(message.SerializeToString()) < 100_000 for message in await client.messages(session_id))


def tools_of(file: Path) -> dict[str, Any]:
    agent = {"instructions": "Work.", "tools": ["*"]}
    return {"orchestrator": {"agents": {"worker": agent}}, "tool_executor": {"functions": [f"{file}:*"]}}


async def test_a_tool_that_blocks_everybody_beyond_the_lease_is_named_in_the_log_and_run_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = {"turns": [{"calls": [{"name": "blocks_the_loop", "arguments": {}}]}, {"text": ["done"]}]}
    sections = {**tools_of(MISBEHAVING), "session_store": {"lease_ms": 500}}
    async with scripted(tmp_path, script, **sections) as client:
        told, _, events = await outcome(client, "go")
        assert told == "done" and kinds(events).count("tool_execution_started") == 1
    assert "an async tool blocked this process" in capfd.readouterr().err


PIECES = {"slow": 40, "endless": 4000, "or this": 4000}
RULES = [{"when": {"equals": order}, "turns": [{"text": ["tick "] * count}]} for order, count in PIECES.items()]
SLOW = {"rules": RULES, "delay_ms": 10}


@pytest.mark.feature("S3")
async def test_a_run_waits_while_another_process_holds_the_files_lock_and_then_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(storage_adapter, "open_sqlite", functools.partial(open_sqlite, busy_seconds=0.02))
    async with scripted(tmp_path, SLOW, tool_executor={"database": "memory:"}) as client:
        run = await client.run("slow")
        async for _ in run.text():
            break
        other = sqlite3.connect(tmp_path / "behest.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="another process holds its lock"):
            await client.run("meanwhile")
        await asyncio.sleep(0.6)  # longer than the answer takes
        other.execute("ROLLBACK")
        other.close()
        async with asyncio.timeout(10):
            assert await run.answer() == "tick " * 40
        check_history(await client.replay(run.id))
    assert capfd.readouterr().err.count("keeping leases failed") <= 1


@pytest.mark.feature("S3")
async def test_nothing_is_acknowledged_into_a_file_that_was_deleted(tmp_path: Path) -> None:
    async with scripted(tmp_path, SLOW, tool_executor={"database": "memory:"}) as client:
        kept = await client.run("hello")
        assert await kept.answer()
        away = tmp_path / "elsewhere.db"
        (tmp_path / "behest.db").rename(away)
        for call in (client.run("lost?"), client.get_run(kept.id)):
            with pytest.raises(StorageUnavailable, match="deleted or replaced while in use"):
                await call
        away.rename(tmp_path / "behest.db")
        assert (await outcome(client, "and on", session_id=kept.session_id))[0]
        with pytest.raises(RunNotFound):
            await client.get_run("lost")


@pytest.mark.feature("R7")
async def test_a_storm_of_cancels_ends_each_run_once(tmp_path: Path) -> None:
    async with scripted(tmp_path, SLOW) as client:
        runs = [await client.run("endless") for _ in range(40)]
        answers = [asyncio.create_task(run.answer()) for run in runs]
        await asyncio.gather(*(run.cancel("storm") for run in runs for _ in range(10)))
        ended = await asyncio.gather(*answers, return_exceptions=True)
        assert {type(end) for end in ended} == {RunCancelled}
        for run in runs:
            check_history(await client.replay(run.id))
            assert (await outcome(client, "and on", session_id=run.session_id))[0] == "and on"


@pytest.mark.feature("S4")
async def test_many_runs_and_many_followers_at_once_see_every_event(tmp_path: Path) -> None:
    async with scripted(tmp_path, SLOW) as client:
        assert Counter([told for told, _, _ in await asyncio.gather(*(outcome(client, "hi") for _ in range(200)))]) == {"hi": 200}
        run = await client.run("slow")
        logs = await asyncio.gather(*(sequences(client, run.id) for _ in range(50)))
        assert all(log == list(range(1, len(log) + 1)) for log in logs) and len({len(log) for log in logs}) == 1


async def sequences(client: Behest, run_id: str) -> list[int]:
    return [event.sequence async for event in client.watch(run_id)]


@pytest.mark.feature("R6")
async def test_two_orders_at_once_for_one_session_are_one_run_and_one_typed_refusal(tmp_path: Path) -> None:
    async with scripted(tmp_path, SLOW) as client:
        _, session_id, _ = await outcome(client, "hi")
        both = await asyncio.gather(*(client.run(text, session_id=session_id) for text in ("endless", "or this")), return_exceptions=True)
        [accepted] = [end for end in both if isinstance(end, RunHandle)]
        [refused] = [end for end in both if isinstance(end, SessionBusy)]
        assert accepted.id in refused.message and "queue" in refused.message
        await accepted.cancel()
