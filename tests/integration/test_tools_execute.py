"""Calls through the tool executor's contract: validation, order, limits, failures, the ledger, progress."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from behest.tool.v1 import tool_pb2
from behest.tool.v1 import tool_service_pb2 as pb
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis.faults import ExecutionKeyReused, ExecutionNotFound, RequestInvalid, ShuttingDown, ToolsExhausted
from chassis.rpc import open_channel, open_server
from kit import sample_tools
from kit.executor import ExecutorClient, batch_request, call, database_for, open_executor, tenant, until

S = tool_pb2.ExecutionStatus


@pytest.fixture(autouse=True)
def clean() -> Any:
    sample_tools.reset()
    yield
    for gate in sample_tools.GATES.values():
        gate.set()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def executor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ExecutorClient]:
    async with (
        database_for(request.param, tmp_path) as database,
        open_executor(database=database, threads=4, drain_ms=0, durability="normal") as client,
    ):
        yield client


def open_gate(*gates: str) -> None:
    for gate in gates:
        sample_tools.GATES[gate].set()


def error_of(result: tool_pb2.ToolResult) -> dict[str, Any]:
    assert result.is_error
    read: dict[str, Any] = json.loads(result.content)
    return read


# --- results


@pytest.mark.feature("T14")
async def test_a_direct_call_returns_the_tools_result(executor: ExecutorClient) -> None:
    result = await executor.run("unmarked", '{"text": "é"}', "r1")
    assert (result.status, result.content, result.is_error) == (S.EXECUTION_STATUS_SUCCEEDED, '"\\u00c9"', False)
    assert result.call_id == "r1" and result.tool == "unmarked" and result.attempt == 1 and result.full_bytes == len(result.content)


async def test_arguments_reach_the_function_as_its_own_types(executor: ExecutorClient) -> None:
    arguments = {"color": "blue", "point": {"x": 3}, "address": {"street": "s", "number": 1}, "person": {"name": "n"}, "tags": ["a"]}
    result = await executor.run("typed-things", json.dumps(arguments))
    assert json.loads(result.content) == {
        **arguments, "point": {"x": 3, "y": 0}, "person": {"name": "n", "age": 0}, "maybe": None, "counts": None, "mode": "fast"
    }  # fmt: skip


@pytest.mark.feature("T4")
async def test_invalid_arguments_become_a_result_with_path_and_reason(executor: ExecutorClient) -> None:
    arguments = {"color": "green", "point": {"x": "one"}, "address": {"street": "s", "number": 1}, "person": {"name": "n"}}
    result = await executor.run("typed-things", json.dumps(arguments))
    assert result.status == S.EXECUTION_STATUS_ARGUMENTS_INVALID
    read = error_of(result)
    assert read["error"] == "arguments_invalid"
    assert {problem["path"] for problem in read["problems"]} == {"color", "point.x"}
    assert all(problem["reason"] for problem in read["problems"])


@pytest.mark.feature("T4")
@pytest.mark.parametrize("arguments", [b"{", b"[1]", b"\xff\xfe", b'{"value": NaN}', b'{"value":' * 5000, b'{"value": "\\ud800"}'])
async def test_arguments_that_are_nonsense_become_a_result(executor: ExecutorClient, arguments: bytes) -> None:
    result = await executor.run("unmarked", arguments)
    assert result.status == S.EXECUTION_STATUS_ARGUMENTS_INVALID and error_of(result)["problems"]


@pytest.mark.feature("T6")
@pytest.mark.parametrize("how", ["politely", "exception", "exit", "interrupt", "quotes", "unreadable", "cancel"])
async def test_whatever_a_tool_raises_is_a_failed_result_in_valid_json(executor: ExecutorClient, how: str) -> None:
    result = await executor.run("fail", json.dumps({"how": how}))
    assert result.status == S.EXECUTION_STATUS_FAILED
    read = error_of(result)
    assert read["error"] == "failed" and read["message"] and "Traceback" not in read["message"] and len(result.content) < 10_000
    assert (await executor.run("echo", '{"value": "still here"}')).content == "still here"


@pytest.mark.feature("T6")
@pytest.mark.parametrize("how", ["politely", "exception", "exit"])
async def test_a_failing_thread_is_a_failed_result(executor: ExecutorClient, how: str) -> None:
    assert (await executor.run("fail_in_thread", json.dumps({"how": how}))).status == S.EXECUTION_STATUS_FAILED


@pytest.mark.feature("T6")
@pytest.mark.parametrize("kind", ["object", "bytes", "generator", "circular"])
async def test_a_result_without_json_is_a_failure_that_says_so(executor: ExecutorClient, kind: str) -> None:
    result = await executor.run("odd", json.dumps({"kind": kind}))
    assert result.status == S.EXECUTION_STATUS_FAILED and "must return text or JSON values" in error_of(result)["message"]


@pytest.mark.parametrize(("kind", "content"), [("text bytes", "né"), ("nan", '["NaN",1.0]'), ("none", "null"), ("surrogate", "a?b")])
async def test_odd_results_are_written_down(executor: ExecutorClient, kind: str, content: str) -> None:
    assert (await executor.run("odd", json.dumps({"kind": kind}))).content == content


@pytest.mark.feature("T8")
async def test_a_long_output_is_cut_and_says_how_long_it_was(executor: ExecutorClient) -> None:
    result = await executor.run("large", '{"lines": 5000, "width": 1000}')
    assert result.truncated and not result.is_error and len(result.content.encode()) <= 50 * 1024 < result.full_bytes
    assert result.content.startswith("0:é") and result.content.endswith("é") and "bytes left out here" in result.content
    by_lines = await executor.run("large", '{"lines": 2001, "width": 0}')
    assert by_lines.truncated and by_lines.content.count("\n") + 1 <= 2000
    whole = await executor.run("large", '{"lines": 2000, "width": 0}')
    assert not whole.truncated and whole.full_bytes == len(whole.content.encode())


@pytest.mark.feature("T1")
async def test_a_result_is_held_to_its_schema(executor: ExecutorClient) -> None:
    schema = b'{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    tool = tool_pb2.Tool(function="kit.sample_tools:echo", result_schema=schema)
    await executor.stub.RegisterTool(pb.RegisterToolRequest(tool=tool))
    assert not (await executor.run("echo", '{"value": {"n": 1}}')).is_error
    wrong = await executor.run("echo", '{"value": {"n": "1"}}')
    assert wrong.status == S.EXECUTION_STATUS_FAILED and error_of(wrong)["error"] == "result_invalid"
    assert "at n:" in error_of(wrong)["message"]


async def test_an_unknown_tool_names_the_nearest(executor: ExecutorClient) -> None:
    result = await executor.run("ecco")
    assert result.status == S.EXECUTION_STATUS_TOOL_NOT_FOUND and "Did you mean echo" in error_of(result)["message"]


# --- batches


@pytest.mark.feature("T5")
async def test_safe_calls_run_together_up_to_the_limit(executor: ExecutorClient) -> None:
    names = [str(n) for n in range(9)]
    running = asyncio.create_task(executor.batch(*(call(n, "wait_reading", json.dumps({"gate": n})) for n in names)))
    await until(lambda: len(sample_tools.STARTED) == 4)
    open_gate(*names)
    results = await running
    assert max(sample_tools.MOST_AT_ONCE) == 4
    assert {i: r.content for i, r in results.items()} == {n: f"{n} passed" for n in names}


@pytest.mark.feature("T5")
async def test_other_calls_run_alone_and_in_order(executor: ExecutorClient) -> None:
    calls = [call(n, tool, json.dumps({"gate": n})) for n, tool in zip("abcde", ["wait_reading", "wait_writing"] * 3, strict=False)]
    open_gate(*"abcde")
    results = await executor.batch(*calls)
    assert [*sample_tools.STARTED] == list("abcde") and max(sample_tools.MOST_AT_ONCE) == 1
    assert list(results) == list("abcde")


@pytest.mark.feature("T5")
async def test_a_result_arrives_while_others_still_run(executor: ExecutorClient) -> None:
    calls = [call(n, "wait_reading", json.dumps({"gate": n})) for n in ("fast", "slow")]
    open_gate("fast")
    stream = executor.stub.ExecuteBatch(batch_request(*calls))
    first = await anext(aiter(stream))
    assert [result.call_id for result in first.results] == ["fast"]
    open_gate("slow")
    assert [r.call_id async for response in stream for r in response.results] == ["slow"]


async def test_a_batch_may_call_only_what_it_was_allowed(executor: ExecutorClient) -> None:
    results = await executor.batch(call("1", "echo"), call("2", "unmarked"), allowed_tools=["echo"])
    assert results["1"].status == S.EXECUTION_STATUS_SUCCEEDED
    assert results["2"].status == S.EXECUTION_STATUS_TOOL_NOT_FOUND
    assert (await executor.batch(call("3", "echo"), allowed_tools=[]))["3"].status == S.EXECUTION_STATUS_TOOL_NOT_FOUND


async def test_an_empty_batch_ends_at_once(executor: ExecutorClient) -> None:
    assert await executor.batch() == {}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (batch_request(run_id=""), "run_id"),
        (batch_request(run_id="a/b"), "run_id"),
        (batch_request(call("1", "echo"), call("1", "echo")), "calls[1].id"),
        (batch_request(call("", "echo")), "calls[0].id"),
        (batch_request(call("1", "")), "calls[0].name"),
        (batch_request(*(call(str(n), "echo") for n in range(129))), "calls"),
    ],
)
async def test_a_malformed_batch_names_the_field(executor: ExecutorClient, request_: pb.ExecuteBatchRequest, field: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        async for _ in executor.stub.ExecuteBatch(request_):
            pass
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("request_id", ["x" * 129, "run/1"])
async def test_a_request_id_may_not_be_long_or_look_like_a_runs_key(executor: ExecutorClient, request_id: str) -> None:
    with pytest.raises(RequestInvalid, match="request_id"):
        await executor.run("echo", request_id=request_id)


# --- time


@pytest.mark.feature("T5")
async def test_a_tool_that_takes_too_long_is_stopped_and_says_its_effect_is_unknown(executor: ExecutorClient) -> None:
    result = await executor.run("slow")
    assert result.status == S.EXECUTION_STATUS_TIMED_OUT and result.effect_unknown
    assert error_of(result)["error"] == "timed_out" and result.duration_ms >= 50


async def test_a_caller_may_shorten_the_time_and_not_lengthen_it(executor: ExecutorClient) -> None:
    assert (await executor.run("wait_reading", '{"gate": "g"}', timeout_ms=20)).status == S.EXECUTION_STATUS_TIMED_OUT
    assert (await executor.run("slow", timeout_ms=60_000)).status == S.EXECUTION_STATUS_TIMED_OUT


async def test_a_tool_that_does_not_stop_when_told_is_left_behind(executor: ExecutorClient) -> None:
    result = await executor.run("stubborn")
    assert result.status == S.EXECUTION_STATUS_TIMED_OUT and result.duration_ms < 5000
    open_gate("stubborn")


async def test_a_tool_sees_its_call_and_its_deadline(executor: ExecutorClient) -> None:
    results = await executor.batch(call("c1", "about"), run_id="r9")
    told = json.loads(results["c1"].content)
    assert 25 < told.pop("remaining") <= 30
    assert told == {"call_id": "c1", "key": "r9/c1", "tenant": "default", "run_id": "r9", "session_id": "session-1", "attempt": 1}


# --- threads


async def test_functions_that_block_get_a_thread_and_do_not_stop_others(executor: ExecutorClient) -> None:
    waiting = asyncio.create_task(executor.run("blocking", '{"gate": "b"}'))
    assert (await executor.run("in_thread")).content.startswith("tool-")
    assert (await executor.run("echo", '{"value": 1}')).content == "1"
    open_gate("b")
    assert (await waiting).content == "b passed"


async def test_hung_threads_are_counted_and_full_threads_are_a_fault_and_not_a_claim(executor: ExecutorClient) -> None:
    for number in range(4):
        result = await executor.run("hang", json.dumps({"gate": f"h{number}"}))
        assert result.status == S.EXECUTION_STATUS_TIMED_OUT
    with pytest.raises(ToolsExhausted, match="all of them hang") as caught:
        await executor.run("in_thread", request_id="no-thread")
    assert caught.value.metadata["stuck"] == "4" and caught.value.retry_after
    with pytest.raises(ToolsExhausted, match="restart the executor"):
        await executor.app.ready()
    with pytest.raises(ExecutionNotFound):
        await executor.execution("no-thread")
    open_gate(*(f"h{number}" for number in range(4)))
    async with asyncio.timeout(5):
        while True:
            try:
                assert (await executor.run("in_thread", request_id="no-thread")).content.startswith("tool-")
                break
            except ToolsExhausted:
                await asyncio.sleep(0.01)
    await executor.app.ready()


async def test_no_more_executions_are_taken_than_the_limit() -> None:
    async with open_executor(max_executions=2) as executor:
        waiting = [asyncio.create_task(executor.run("wait_reading", json.dumps({"gate": g}))) for g in "ab"]
        await until(lambda: len(sample_tools.STARTED) == 2)
        with pytest.raises(ToolsExhausted, match="max_executions"):
            await executor.run("echo")
        open_gate("a", "b")
        await asyncio.gather(*waiting)
        await executor.run("echo")


# --- the ledger


@pytest.mark.feature("T7")
@pytest.mark.parametrize("tool", ["wait_reading", "wait_writing", "wait_idempotent"])
async def test_the_same_key_again_returns_the_receipt(executor: ExecutorClient, tool: str) -> None:
    open_gate("g")
    first = await executor.run(tool, '{"gate": "g"}', "same")
    again = await executor.run(tool, '{"gate": "g"}', "same")
    assert (first.replayed, again.replayed) == (False, True)
    again.replayed = False
    assert again == first and sample_tools.STARTED == ["g"]


@pytest.mark.feature("T7")
@pytest.mark.parametrize("tool", ["wait_reading", "wait_writing"])
async def test_concurrent_duplicates_execute_once(executor: ExecutorClient, tool: str) -> None:
    running = [asyncio.create_task(executor.run(tool, '{"gate": "g"}', "same")) for _ in range(10)]
    await until(lambda: sample_tools.STARTED)
    open_gate("g")
    results = await asyncio.gather(*running)
    assert sample_tools.STARTED == ["g"] and len({r.SerializeToString() for r in results}) == 1


@pytest.mark.feature("T7")
async def test_the_same_key_with_other_arguments_is_refused_running_or_finished(executor: ExecutorClient) -> None:
    running = asyncio.create_task(executor.run("wait_writing", '{"gate": "g"}', "same"))
    await until(lambda: sample_tools.STARTED)
    with pytest.raises(ExecutionKeyReused, match="same"):
        await executor.run("wait_writing", '{"gate": "h"}', "same")
    open_gate("g")
    await running
    with pytest.raises(ExecutionKeyReused):
        await executor.run("echo", "{}", "same")
    with pytest.raises(ExecutionKeyReused):
        await executor.run("echo", "[]", "same")


@pytest.mark.feature("T7")
async def test_a_refused_call_is_remembered_as_refused(executor: ExecutorClient) -> None:
    first = await executor.run("typed-things", "{}", "bad")
    again = await executor.run("typed-things", "{}", "bad")
    assert again.replayed and again.content == first.content
    assert (await executor.execution("bad")).result.status == S.EXECUTION_STATUS_ARGUMENTS_INVALID


@pytest.mark.feature("T9")
async def test_everything_about_a_call_is_recorded(executor: ExecutorClient) -> None:
    before = time.time()
    await executor.batch(call("1", "unmarked", '{"text": "x"}'), approved_by={"1": "ann@example.com"})
    record = await executor.execution("run-1/1")
    assert record.key == "run-1/1" and record.run_id == "run-1" and record.session_id == "session-1"
    assert record.call == call("1", "unmarked", '{"text": "x"}') and record.approved_by == "ann@example.com" and record.tool_version
    assert record.result.status == S.EXECUTION_STATUS_SUCCEEDED and record.result.content == '"X"' and record.result.attempt == 1
    started, ended = record.started_at.ToNanoseconds() / 1e9, record.ended_at.ToNanoseconds() / 1e9
    assert before - 0.001 <= started <= ended <= time.time() + 0.001
    assert 0 < record.result.duration_ms / 1000 <= ended - started + 0.01


@pytest.mark.feature("T9")
async def test_a_call_under_way_is_recorded_as_running(executor: ExecutorClient) -> None:
    for number, tool in enumerate(("wait_reading", "wait_writing")):
        running = asyncio.create_task(executor.run(tool, json.dumps({"gate": tool}), f"r{number}"))
        await until(lambda tool=tool: tool in sample_tools.STARTED)
        record = await executor.execution(f"r{number}")
        assert record.result.status == S.EXECUTION_STATUS_RUNNING and not record.HasField("ended_at") and not record.result.is_error
        open_gate(tool)
        await running


@pytest.mark.feature("T9")
async def test_tenants_neither_see_nor_share_executions(executor: ExecutorClient) -> None:
    with tenant("one"):
        await executor.run("echo", '{"value": 1}', "key")
    with tenant("two"):
        with pytest.raises(ExecutionNotFound, match="key"):
            await executor.execution("key")
        assert not (await executor.run("echo", '{"value": 2}', "key")).replayed


# --- callers that go away, and cancelling


@pytest.mark.feature("T7")
async def test_a_broken_stream_lets_what_began_finish_and_begins_nothing_more(executor: ExecutorClient) -> None:
    calls = [call(n, "wait_writing", json.dumps({"gate": n})) for n in ("a", "b")]
    stream = executor.stub.ExecuteBatch(batch_request(*calls))
    reading = asyncio.create_task(anext(aiter(stream)))
    await until(lambda: sample_tools.STARTED == ["a"])
    stream.cancel()
    await asyncio.wait([reading])
    open_gate("a", "b")
    await until(lambda: not sample_tools.RUNNING)
    results = await executor.batch(*calls)
    assert sample_tools.STARTED == ["a", "b"], "a was not run again, and b was begun only now"
    assert [results[n].content for n in "ab"] == ["a passed", "b passed"]


@pytest.mark.feature("T7")
async def test_a_caller_that_comes_back_joins_what_still_runs(executor: ExecutorClient) -> None:
    one = call("a", "wait_writing", '{"gate": "a"}')
    stream = executor.stub.ExecuteBatch(batch_request(one))
    reading = asyncio.create_task(anext(aiter(stream)))
    await until(lambda: sample_tools.STARTED)
    stream.cancel()
    await asyncio.wait([reading])
    joined = asyncio.create_task(executor.batch(one))
    await asyncio.sleep(0)
    open_gate("a")
    assert (await joined)["a"].content == "a passed" and sample_tools.STARTED == ["a"]


@pytest.mark.feature("T5")
@pytest.mark.parametrize(("tool", "effect_unknown"), [("wait_writing", True), ("wait_idempotent", False)])
async def test_cancelling_stops_what_runs_and_keeps_the_rest_from_beginning(
    executor: ExecutorClient, tool: str, effect_unknown: bool
) -> None:
    calls = [call(n, tool, json.dumps({"gate": n})) for n in ("a", "b", "c")]
    running = asyncio.create_task(executor.batch(*calls))
    other = asyncio.create_task(executor.batch(call("a", "wait_reading", '{"gate": "z"}'), run_id="other"))
    await until(lambda: set(sample_tools.STARTED) == {"a", "z"})
    stopped = await executor.stub.CancelExecutions(pb.CancelExecutionsRequest(run_id="run-1"))
    assert list(stopped.call_ids) == ["a", "b", "c"]
    results = await running
    assert {r.status for r in results.values()} == {S.EXECUTION_STATUS_CANCELLED}
    assert (results["a"].effect_unknown, results["b"].effect_unknown) == (effect_unknown, False)
    assert "nothing was run" in results["b"].content and "c" not in sample_tools.STARTED
    assert (await executor.batch(*calls))["b"].replayed
    open_gate("z")
    assert (await other)["a"].content == "z passed"


async def test_some_calls_of_a_run_can_be_cancelled_and_others_not(executor: ExecutorClient) -> None:
    running = asyncio.create_task(executor.batch(*(call(n, "wait_reading", json.dumps({"gate": n})) for n in "ab")))
    await until(lambda: len(sample_tools.STARTED) == 2)
    request = pb.CancelExecutionsRequest(run_id="run-1", call_ids=["b", "nothing"])
    assert list((await executor.stub.CancelExecutions(request)).call_ids) == ["b"]
    with tenant("other"):
        assert not (await executor.stub.CancelExecutions(pb.CancelExecutionsRequest(run_id="run-1"))).call_ids
    open_gate("a")
    results = await running
    assert results["a"].status == S.EXECUTION_STATUS_SUCCEEDED and results["b"].status == S.EXECUTION_STATUS_CANCELLED


async def test_a_call_that_waits_for_a_thread_can_be_cancelled(executor: ExecutorClient) -> None:
    blocked = [asyncio.create_task(executor.run("blocking", '{"gate": "x"}', f"b{n}")) for n in range(4)]
    waiting = asyncio.create_task(executor.run("append_line", '{"path": "/nowhere/x", "line": ""}', "waits"))
    await asyncio.sleep(0.05)
    stopped = await executor.stub.CancelExecutions(pb.CancelExecutionsRequest(run_id="waits"))
    assert list(stopped.call_ids) == ["waits"]
    result = await waiting
    assert result.status == S.EXECUTION_STATUS_CANCELLED and not result.effect_unknown
    open_gate("x")
    await asyncio.gather(*blocked)


async def test_a_thread_that_is_cancelled_is_told_and_not_waited_for(executor: ExecutorClient) -> None:
    running = asyncio.create_task(executor.run("blocking", '{"gate": "x"}', "blocked"))
    await until(lambda: "x" in sample_tools.GATES)
    await executor.stub.CancelExecutions(pb.CancelExecutionsRequest(run_id="blocked"))
    assert (await running).status == S.EXECUTION_STATUS_CANCELLED
    open_gate("x")


async def test_draining_takes_no_more_and_waits_for_what_runs() -> None:
    async with open_executor(drain_ms=5000) as executor:
        running = asyncio.create_task(executor.run("wait_writing", '{"gate": "g"}'))
        await until(lambda: sample_tools.STARTED)
        draining = asyncio.create_task(executor.app.drain())
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await executor.run("echo")
        assert not draining.done()
        open_gate("g")
        await draining
        assert (await running).content == "g passed"


# --- progress


@pytest.mark.feature("T10")
async def test_progress_comes_before_the_result(executor: ExecutorClient) -> None:
    progress, result = await executor.run_loudly("speak", '{"times": 4, "text": "of four"}', "p")
    assert [(p.call_id, p.message, p.fraction) for p in progress] == [("p", f"{n} of four", n / 4) for n in range(4)]
    assert result.content == "said"


@pytest.mark.feature("T10")
async def test_progress_is_bounded_in_length_and_number(executor: ExecutorClient) -> None:
    progress, _ = await executor.run_loudly("speak", json.dumps({"times": 2, "text": "é" * 10_000}))
    assert all(4090 < len(p.message.encode()) <= 4096 for p in progress)
    progress, result = await executor.run_loudly("speak_in_thread")
    assert result.content == "said" and progress[-1].message == "line 99999"


# --- over a wire


@pytest.mark.feature("T14")
@pytest.mark.parametrize("carrier", ["grpc", "mux"])
async def test_the_same_holds_over_a_wire(executor: ExecutorClient, carrier: Any) -> None:
    async with open_server(executor.app, "127.0.0.1:0") as listening, open_channel(listening.address, carrier) as channel:
        remote = ExecutorClient(executor.app, ToolServiceStub(channel))
        calls = [call(n, "wait_writing", json.dumps({"gate": n})) for n in ("a", "b")]
        stream = remote.stub.ExecuteBatch(batch_request(*calls))
        reading = asyncio.create_task(anext(aiter(stream)))
        await until(lambda: sample_tools.STARTED == ["a"])
        stream.cancel()
        await asyncio.wait([reading])
        open_gate("a", "b")
        results = await remote.batch(*calls)
        assert sample_tools.STARTED == ["a", "b"] and [results[n].content for n in "ab"] == ["a passed", "b passed"]
        with pytest.raises(ExecutionKeyReused):
            await remote.batch(call("a", "echo"))
        assert (await remote.run("fail", '{"how": "quotes"}')).is_error
