"""What a user does, end to end: the same scenarios in one process and as four processes over both carriers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from behest.chat.v1 import chat_pb2
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as run_pb
from chassis.faults import InputDuplicate, InputEmpty, InputTooLong, RequestIdReused, RunEnded, RunNotFound, SessionBusy, SessionNotFound
from kit.suites import Caller, SuiteUnderTest, call, check_history, kinds, open_suite_under_test, tool_turns

SHAPES = [pytest.param((True, "mux"), id="one-process"), pytest.param((False, "mux"), id="mux"), pytest.param((False, "grpc"), id="grpc")]

SCRIPT = {
    "rules": [
        {"when": {"contains": "use tools"}, "turns": tool_turns([["a", "b"], ["c"]])},
        {"when": {"contains": "take long"}, "turns": [{"text": ["slow ", "answer"], "fault": {"kind": "stall", "after_pieces": 1}}]},
        {"when": {"contains": "break"}, "turns": [{"text": ["half ", "answer"], "fault": {"kind": "cut", "after_pieces": 1}}]},
        {"when": {"contains": "be refused"}, "turns": [{"fault": "credentials_refused"}]},
        {"when": {"contains": "fail"}, "turns": [{"calls": [{"name": "fail", "arguments": {"message": "oh"}}]}, {"text": "it failed"}]},
        {"when": {"contains": "be huge"}, "turns": [{"calls": [{"name": "huge", "arguments": {"size": 50_000_000}}]}, {"text": "it was"}]},
    ],
    "turns": [{"text": ["hello ", "there"]}],
    "otherwise": "repeat",
}


@pytest.fixture(params=SHAPES)
async def suite(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SuiteUnderTest]:
    one_process, carrier = request.param
    async with open_suite_under_test(tmp_path, SCRIPT, one_process=one_process, carrier=carrier) as suite:
        yield suite


@pytest.mark.feature("R1")
@pytest.mark.feature("R7")
@pytest.mark.feature("S4")
@pytest.mark.feature("O2")
@pytest.mark.feature("P1")
async def test_a_users_day(suite: SuiteUnderTest) -> None:
    """One suite, many scenarios: starting it is what costs."""
    async with call(suite) as caller:
        await _a_text_run_is_streamed_and_kept(caller)
        await _a_tool_loop_runs_parallel_calls_once(caller, suite)
        await _followers_see_the_same_whenever_they_join(caller)
        await _cancel_stops_a_model_in_mid_stream(caller)
        await _the_wall_time_ends_a_run(caller)
        await _a_broken_stream_ends_typed(caller)
        await _a_refusing_provider_ends_typed(caller)
        await _a_failing_tool_is_read_by_the_model(caller)
        await _a_huge_result_is_cut(caller)
        await _bad_orders_are_refused_with_what_to_do(caller)
        await _a_field_of_the_future_is_refused_and_not_dropped(suite)
        await _a_busy_session_rejects_or_queues(caller)
        await _a_run_interrupts_the_one_under_way(caller)
        await _a_run_forks_a_busy_session(caller)
        await _a_request_id_creates_one_run(caller)
        await _steering_is_heard(caller)
        await _a_session_is_followed_over_its_runs(caller)


async def _a_text_run_is_streamed_and_kept(caller: Caller) -> None:
    stream = caller.runs.StreamRun(run_pb.StreamRunRequest(create={"input": [{"text": "hi"}]}))
    responses = [response async for response in stream]
    run = responses[0].run
    events = [event for response in responses for event in response.events]
    check_history(events)
    assert "".join(event.text_delta.text for event in events) == "hello there"
    assert await caller.conversation(run.session_id) == [("user", "hi"), ("assistant", "hello there")]
    assert {(event.run_id, event.session_id, event.tenant) for event in events} == {(run.id, run.session_id, "default")}
    row = (await caller.runs.GetRun(run_pb.GetRunRequest(run_id=run.id))).run
    assert (row.state, row.sequence, row.turns) == (run_pb2.RUN_STATE_COMPLETED, len(events), 1)
    assert row.usage.output_tokens > 0


async def _a_tool_loop_runs_parallel_calls_once(caller: Caller, suite: SuiteUnderTest) -> None:
    run = await caller.create("use tools")
    events = await caller.watch(run.id)
    check_history(events)
    assert events[-1].WhichOneof("kind") == "run_completed"
    assert suite.effects == {"a": 1, "b": 1, "c": 1}
    assert await caller.conversation(run.session_id) == [
        ("user", "use tools"),
        ("assistant", ""),
        ("tool", "recorded a"),
        ("tool", "recorded b"),
        ("assistant", ""),
        ("tool", "recorded c"),
        ("assistant", "all done"),
    ]


async def _followers_see_the_same_whenever_they_join(caller: Caller) -> None:
    run = await caller.create("use tools")
    early = asyncio.create_task(caller.watch(run.id))
    whole = await caller.watch(run.id)
    late = await caller.watch(run.id)
    middle = await caller.watch(run.id, after=5)
    assert await early == whole == late
    assert middle == whole[5:]


async def _cancel_stops_a_model_in_mid_stream(caller: Caller) -> None:
    run = await caller.create("take long")
    await caller.until(run.id, "text_delta")
    await caller.runs.CancelRun(run_pb.CancelRunRequest(run_id=run.id, reason="enough"))
    events = await caller.watch(run.id)
    check_history(events)
    assert events[-1].run_cancelled.reason == "enough"
    assert await caller.conversation(run.session_id) == [("user", "take long"), ("assistant", "slow ")]
    again = await caller.runs.CancelRun(run_pb.CancelRunRequest(run_id=run.id))
    assert again.run.state == run_pb2.RUN_STATE_CANCELLED
    next_run = await caller.create("hi", session_id=run.session_id)
    assert kinds(await caller.watch(next_run.id))[-1] == "run_completed"


async def _the_wall_time_ends_a_run(caller: Caller) -> None:
    run = await caller.create("take long", limits={"max_wall_ms": 300})
    events = await caller.watch(run.id)
    check_history(events)
    assert events[-1].run_failed.fault.reason == "TIME_EXHAUSTED"


async def _a_broken_stream_ends_typed(caller: Caller) -> None:
    run = await caller.create("break")
    events = await caller.watch(run.id)
    check_history(events)
    assert events[-1].run_failed.fault.reason == "STREAM_INCOMPLETE"
    assert "model_failed" in kinds(events)
    assert (await caller.conversation(run.session_id))[-1] == ("assistant", "half ")


async def _a_refusing_provider_ends_typed(caller: Caller) -> None:
    run = await caller.create("be refused")
    events = await caller.watch(run.id)
    assert events[-1].run_failed.fault.reason == "PROVIDER_CREDENTIALS_REFUSED"
    assert events[-1].run_failed.fault.message


async def _a_failing_tool_is_read_by_the_model(caller: Caller) -> None:
    run = await caller.create("fail")
    events = await caller.watch(run.id)
    check_history(events)
    assert events[-1].WhichOneof("kind") == "run_completed"
    assert "ValueError: oh" in (await caller.conversation(run.session_id))[2][1]


async def _a_huge_result_is_cut(caller: Caller) -> None:
    run = await caller.create("be huge")
    assert kinds(await caller.watch(run.id))[-1] == "run_completed"
    assert len((await caller.conversation(run.session_id))[2][1]) < 60_000


async def _bad_orders_are_refused_with_what_to_do(caller: Caller) -> None:
    with pytest.raises(InputEmpty, match="say what"):
        await caller.create("  ")
    with pytest.raises(InputTooLong, match="1048576"):
        await caller.create("x" * 1_100_000)
    with pytest.raises(SessionNotFound):
        await caller.create("hi", session_id="nowhere")
    with pytest.raises(RunNotFound):
        await caller.runs.GetRun(run_pb.GetRunRequest(run_id="nothing"))
    with pytest.raises(RunNotFound):
        async for _ in caller.runs.WatchRun(run_pb.WatchRunRequest(run_id="nothing")):
            pass


async def _a_field_of_the_future_is_refused_and_not_dropped(suite: SuiteUnderTest) -> None:
    request = run_pb.CreateRunRequest(input=[{"text": "hi"}]).SerializeToString()
    nested = run_pb.StreamRunRequest(create=run_pb.CreateRunRequest.FromString(request + b"\xba\x3e\x01x")).SerializeToString()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{suite.base}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="does not know"):
            await channel.unary_unary("/behest.run.v1.RunService/CreateRun")(request + b"\xba\x3e\x01x")
        with pytest.raises(grpc.aio.AioRpcError, match="nested"):
            await channel.unary_stream("/behest.run.v1.RunService/StreamRun")(nested).read()


async def _a_busy_session_rejects_or_queues(caller: Caller) -> None:
    first = await caller.create("take long")
    with pytest.raises(SessionBusy, match=first.id):
        await caller.create("hi", session_id=first.session_id)
    second = await caller.create("hi", session_id=first.session_id, on_busy=run_pb2.BUSY_POLICY_QUEUE)
    assert second.state == run_pb2.RUN_STATE_QUEUED
    third = await caller.create("hi again", session_id=first.session_id, on_busy=run_pb2.BUSY_POLICY_QUEUE)
    await caller.runs.CancelRun(run_pb.CancelRunRequest(run_id=third.id))
    assert kinds(await caller.watch(third.id))[-1] == "run_cancelled"
    await caller.until(first.id, "text_delta")
    await caller.runs.CancelRun(run_pb.CancelRunRequest(run_id=first.id))
    assert kinds(await caller.watch(second.id))[-1] == "run_completed"
    texts = [text for _, text in await caller.conversation(first.session_id)]
    assert texts == ["take long", "slow ", "hi", "hello there"]


async def _a_run_interrupts_the_one_under_way(caller: Caller) -> None:
    first = await caller.create("take long")
    await caller.until(first.id, "text_delta")
    second = await caller.create("hi", session_id=first.session_id, on_busy=run_pb2.BUSY_POLICY_INTERRUPT)
    assert kinds(await caller.watch(second.id))[-1] == "run_completed"
    ended = (await caller.watch(first.id))[-1]
    assert ended.run_cancelled.reason == f"interrupted by run {second.id}"
    texts = [text for _, text in await caller.conversation(first.session_id)]
    assert texts == ["take long", "slow ", "hi", "hello there"]


async def _a_run_forks_a_busy_session(caller: Caller) -> None:
    before = await caller.create("hi")
    await caller.watch(before.id)
    first = await caller.create("take long", session_id=before.session_id)
    await caller.until(first.id, "text_delta")
    forked = await caller.create("hi again", session_id=first.session_id, on_busy=run_pb2.BUSY_POLICY_FORK)
    events = await caller.watch(forked.id)
    assert {event.session_id for event in events} == {forked.session_id} != {first.session_id}
    texts = [text for _, text in await caller.conversation(forked.session_id)]
    assert texts == ["hi", "hello there", "hi again", "hello there"]
    await caller.runs.CancelRun(run_pb.CancelRunRequest(run_id=first.id))
    await caller.watch(first.id)


async def _a_request_id_creates_one_run(caller: Caller) -> None:
    first, second = await asyncio.gather(*(caller.create("hi", request_id="once") for _ in range(2)))
    assert first.id == second.id
    with pytest.raises(RequestIdReused):
        await caller.create("something else", request_id="once")
    await caller.watch(first.id)
    with pytest.raises(InputDuplicate):
        await caller.create("hi", session_id=first.session_id)


async def _steering_is_heard(caller: Caller) -> None:
    run = await caller.create("take long")
    await caller.until(run.id, "text_delta")
    part = chat_pb2.Part(text="say hi instead")
    await caller.runs.SendInput(run_pb.SendInputRequest(run_id=run.id, input=[part], interrupt=True))
    assert kinds(await caller.watch(run.id))[-1] == "run_completed"
    texts = [text for _, text in await caller.conversation(run.session_id)]
    assert texts == ["take long", "slow ", "say hi instead", "hello there"]
    with pytest.raises(RunEnded):
        await caller.runs.SendInput(run_pb.SendInputRequest(run_id=run.id, input=[part]))


async def _a_session_is_followed_over_its_runs(caller: Caller) -> None:
    first = await caller.create("hi")
    await caller.watch(first.id)
    second = await caller.create("hi there", session_id=first.session_id)
    await caller.watch(second.id)
    request = run_pb.WatchSessionRequest(session_id=first.session_id, replay_only=True)
    events = [event async for response in caller.runs.WatchSession(request) for event in response.events]
    assert [event.run_id for event in events if event.WhichOneof("kind") == "run_completed"] == [first.id, second.id]
    positions = [event.position for event in events]
    assert positions == sorted(set(positions))
