"""Opening runs, writing and listing them behaves alike on every backend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.fault.v1 import fault_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as pb
from behest.session.v1 import session_service_pb2 as session_pb
from chassis import faults
from kit.store import (
    Driver,
    Store,
    appending,
    as_tenant,
    assistant,
    cancelling,
    ending,
    event,
    events,
    open_driver,
    open_store,
    opening,
    queueing,
    read_log,
    read_messages,
    stored,
    user,
)


async def get(store: Store, run_id: str) -> run_pb2.Run:
    return (await store.journal.GetRun(pb.GetRunRequest(run_id=run_id))).run


async def active(store: Store) -> str:
    return (await store.sessions.GetSession(session_pb.GetSessionRequest(session_id="s"))).session.active_run_id


@pytest.mark.feature("R1")
async def test_an_opened_run_exists_with_its_session_first_event_and_message(store: Store, driver: Driver) -> None:
    request = opening("r1", driver_id="d1")
    request.run.limits.max_iterations = 7
    opened = await store.journal.OpenRun(request)
    assert (opened.epoch, opened.existed, opened.run.state) == (1, False, run_pb2.RUN_STATE_RUNNING)
    run = await get(store, "r1")
    assert run == opened.run
    assert (run.session_id, run.agent, run.agent_version, run.title, dict(run.metadata)) == ("s", "a", "v1", "do r1", {"k": "v"})
    assert (run.limits, run.sequence, run.started_at) == (agent_pb2.Limits(max_iterations=7), 1, run.created_at)
    assert not run.HasField("ended_at") and not run.HasField("fault")
    assert [each.WhichOneof("kind") for each in await read_log(store, "r1")] == ["run_created"]
    (message,) = await read_messages(store)
    assert (message.id, message.run_id, message.message) == ("r1-input", "r1", user("do r1"))
    assert await active(store) == "r1"


async def test_a_run_without_a_driver_is_queued_but_holds_its_session(store: Store) -> None:
    opened = await store.journal.OpenRun(opening("r1", driver_id="unknown"))
    assert (opened.epoch, opened.run.state) == (0, run_pb2.RUN_STATE_QUEUED)
    assert not opened.run.HasField("started_at")
    assert await active(store) == "r1"


@pytest.mark.feature("R1")
async def test_a_repeated_order_opens_one_run_even_at_once(store: Store, driver: Driver) -> None:
    requests = [opening(f"r{n}", driver_id="d1", request_id="q", payload_digest="p") for n in range(10)]
    opened = await asyncio.gather(*map(store.journal.OpenRun, requests))
    assert len({each.run.id for each in opened}) == 1
    assert sorted(each.existed for each in opened) == [False] + [True] * 9
    assert {each.epoch for each in opened} == {1}
    assert len(await read_messages(store)) == 1


@pytest.mark.feature("R1")
async def test_a_repeated_order_with_another_payload_is_refused(store: Store) -> None:
    await store.journal.OpenRun(opening("r1", request_id="q", payload_digest="p"))
    with pytest.raises(faults.RequestIdReused):
        await store.journal.OpenRun(opening("r2", request_id="q", payload_digest="other"))
    with as_tenant("other"):
        request = opening("r2", tenant="other", request_id="q", payload_digest="other")
        assert not (await store.journal.OpenRun(request)).existed


async def test_a_repeated_order_by_another_caller_does_not_hand_the_run_to_it(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", request_id="q", driver_id="d1"))
    assert (await store.journal.OpenRun(opening("r1", request_id="q", driver_id="d2"))).epoch == 0


async def test_a_session_that_must_exist_is_not_created(store: Store) -> None:
    with pytest.raises(faults.SessionNotFound):
        await store.journal.OpenRun(opening("r1", create_session=False))
    with pytest.raises(faults.RunNotFound):
        await get(store, "r1")


async def test_a_run_id_that_exists_is_refused(store: Store) -> None:
    await store.journal.OpenRun(opening("r1"))
    with pytest.raises(faults.RequestInvalid, match=r"run\.id"):
        await store.journal.OpenRun(opening("r1", session_id="t"))


@pytest.mark.feature("R6")
async def test_a_busy_session_rejects_a_second_run_and_names_the_first(store: Store) -> None:
    opened = await asyncio.gather(*(store.journal.OpenRun(opening(f"r{n}")) for n in range(6)), return_exceptions=True)
    refused = [each for each in opened if isinstance(each, faults.SessionBusy)]
    (accepted,) = [each for each in opened if isinstance(each, pb.OpenRunResponse)]
    assert len(refused) == 5
    assert all(fault.metadata == {"session_id": "s", "run_id": accepted.run.id} for fault in refused)
    assert len(await read_messages(store)) == 1


@pytest.mark.feature("R6")
async def test_queued_runs_take_the_session_in_order_of_creation(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    for run in ("r2", "r3"):
        opened = await store.journal.OpenRun(queueing(run, driver_id="d1"))
        assert (opened.epoch, opened.run.state) == (0, run_pb2.RUN_STATE_QUEUED)
        store.clock.advance(0.01)
    driver.say(room=5)
    for run, after in (("r1", "r2"), ("r2", "r3")):
        await store.journal.Append(ending(run, "d1", 1))
        assigned = await driver.assignment()
        assert (assigned.run_id, assigned.epoch, assigned.sequence, assigned.tenant) == (after, 1, 1, "default")
        assert await active(store) == after
        assert (await get(store, after)).state == run_pb2.RUN_STATE_RUNNING
    await store.journal.Append(ending("r3", "d1", 1))
    assert await active(store) == ""


@pytest.mark.feature("R6")
@pytest.mark.feature("R8")
async def test_a_queued_runs_message_joins_the_session_when_its_turn_comes(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.OpenRun(queueing("r2"))
    assert [message.id for message in await read_messages(store)] == ["r1-input"]
    await store.journal.Append(appending("r1", "d1", 1, messages=[stored("call", assistant("calls a tool"))]))
    last = ending("r1", "d1", 2)
    last.messages.append(stored("result", assistant("the result")))
    await store.journal.Append(last)
    assert [(message.position, message.id) for message in await read_messages(store)] == [
        (1, "r1-input"),
        (2, "call"),
        (3, "result"),
        (4, "r2-input"),
    ]


@pytest.mark.feature("R6")
@pytest.mark.feature("O9")
async def test_the_queue_of_a_session_is_bounded(store: Store) -> None:
    await store.journal.OpenRun(opening("r0"))
    for number in range(100):
        await store.journal.OpenRun(queueing(f"q{number}"))
    with pytest.raises(faults.RunsExhausted) as caught:
        await store.journal.OpenRun(queueing("q100"))
    assert caught.value.metadata["limit"] == "100" and caught.value.retry_after


@pytest.mark.feature("R2")
async def test_the_same_input_within_a_minute_is_refused(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1", input_digest="i"))
    for request in (opening("r2", input_digest="i"), queueing("r2", input_digest="i")):
        with pytest.raises(faults.InputDuplicate) as caught:
            await store.journal.OpenRun(request)
        assert caught.value.metadata["run_id"] == "r1"
    await store.journal.Append(ending("r1", "d1", 1))
    store.clock.advance(59)
    with pytest.raises(faults.InputDuplicate):
        await store.journal.OpenRun(opening("r2", input_digest="i"))
    await store.journal.OpenRun(opening("r3", session_id="t", input_digest="i"))
    store.clock.advance(2)
    await store.journal.OpenRun(opening("r2", input_digest="i"))


@pytest.mark.feature("R2")
@pytest.mark.parametrize("kind", ["run_failed", "run_cancelled"])
async def test_the_same_input_is_welcome_after_a_failure(store: Store, driver: Driver, kind: str) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1", input_digest="i"))
    await store.journal.Append(ending("r1", "d1", 1, kind=kind))
    await store.journal.OpenRun(opening("r2", input_digest="i"))


@pytest.mark.feature("S3")
async def test_an_append_writes_events_messages_and_the_row_at_once(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    values = run_pb2.Run(usage=chat_pb2.Usage(input_tokens=5), turns=1)
    request = appending("r1", "d1", 1, 3, messages=[stored("m1", assistant("a"))], patch=pb.RunPatch(values=values))
    assert (await store.journal.Append(request)).sequence == 4
    run = await get(store, "r1")
    assert (run.sequence, run.turns, run.usage.input_tokens, run.agent) == (4, 1, 5, "a")
    assert [(each.sequence, each.text_delta.text) for each in (await read_log(store, "r1"))[1:]] == [(n, f"r1/{n}") for n in (2, 3, 4)]
    assert [message.id for message in await read_messages(store)] == ["r1-input", "m1"]


async def test_a_patch_replaces_what_it_sets_and_leaves_the_rest(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    first = run_pb2.Run(usage=chat_pb2.Usage(input_tokens=5, cost_known=True), turns=3)
    await store.journal.Append(appending("r1", "d1", 1, patch=pb.RunPatch(values=first)))
    await store.journal.Append(appending("r1", "d1", 2, patch=pb.RunPatch(values=run_pb2.Run(usage=chat_pb2.Usage(output_tokens=2)))))
    run = await get(store, "r1")
    assert (run.usage, run.turns) == (chat_pb2.Usage(output_tokens=2), 3)


@pytest.mark.feature("S3")
async def test_the_same_append_again_is_acknowledged_and_changes_nothing(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    request = appending("r1", "d1", 1, 2, messages=[stored("m1", assistant("a"))])
    first = await store.journal.Append(request)
    assert await store.journal.Append(request) == first
    await store.journal.Append(appending("r1", "d1", 3))
    assert (await store.journal.Append(request)).sequence == 4
    assert [each.sequence for each in await read_log(store, "r1")] == [1, 2, 3, 4]
    assert len(await read_messages(store)) == 2


async def test_a_terminal_append_again_is_acknowledged(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    request = ending("r1", "d1", 1)
    assert await store.journal.Append(request) == await store.journal.Append(request)


@pytest.mark.feature("S3")
async def test_other_events_at_a_written_sequence_are_a_conflict(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.Append(appending("r1", "d1", 1, 2))
    for request in (appending("r1", "d1", 1, 1), appending("r1", "d1", 2, 2), appending("r1", "d1", 7)):
        with pytest.raises(faults.SequenceConflict) as caught:
            await store.journal.Append(request)
        assert caught.value.metadata == {"run_id": "r1", "sequence": "3"}


@pytest.mark.feature("S3")
async def test_of_concurrent_appends_at_one_place_one_wins(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    requests = [appending("r1", "d1", 1, messages=[stored(f"m{n}", assistant(str(n)))]) for n in range(8)]
    for number, request in enumerate(requests):
        request.events[0].text_delta.text = str(number)
    done = await asyncio.gather(*map(store.journal.Append, requests), return_exceptions=True)
    assert sum(isinstance(each, pb.AppendResponse) for each in done) == 1
    assert sum(isinstance(each, faults.SequenceConflict) for each in done) == 7
    assert len(await read_messages(store)) == 2


@pytest.mark.feature("S6")
@pytest.mark.parametrize(
    "lease", [{"driver_id": "d2"}, {"driver_id": "d1", "epoch": 2}, {"driver_id": "d1", "epoch": 0}, {"driver_id": ""}]
)
async def test_a_write_without_the_lease_is_refused(store: Store, driver: Driver, lease: dict[str, object]) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    with pytest.raises(faults.LeaseLost):
        await store.journal.Append(appending("r1", after=1, **lease))  # type: ignore[arg-type]
    assert (await get(store, "r1")).sequence == 1


async def test_an_unassigned_run_cannot_be_written_even_without_a_name(store: Store) -> None:
    await store.journal.OpenRun(opening("r1"))
    with pytest.raises(faults.LeaseLost):
        await store.journal.Append(appending("r1", "", 1))


@pytest.mark.feature("R4")
@pytest.mark.parametrize(("kind", "state"), [("run_completed", 3), ("run_failed", 4), ("run_cancelled", 5)])
async def test_a_terminal_event_ends_the_run_once(store: Store, driver: Driver, kind: str, state: int) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    store.clock.advance(2)
    request = ending("r1", "d1", 1, kind=kind)
    request.patch.values.fault.CopyFrom(fault_pb2.Fault(reason="X", message="m", metadata={"a": "b"}))
    request.patch.values.output_message_id = "m"
    await store.journal.Append(request)
    run = await get(store, "r1")
    assert (run.state, run.output_message_id, run.fault.metadata["a"]) == (state, "m", "b")
    assert run.ended_at.seconds - run.created_at.seconds == 2
    for more in (appending("r1", "d1", 2), ending("r1", "d1", 2), ending("r1", "d1", 2, kind="run_failed")):
        with pytest.raises(faults.RunEnded):
            await store.journal.Append(more)
    with pytest.raises(faults.RunEnded):
        await store.journal.RecordCommand(cancelling("r1"))
    assert [each.WhichOneof("kind") for each in await read_log(store, "r1")] == ["run_created", kind]


def _wrong_appends() -> dict[str, pb.AppendRequest]:
    def changed(**values: object) -> pb.AppendRequest:
        request = appending("r1", "d1", 1, 2)
        for name, value in values.items():
            setattr(request.events[1], name, value)
        return request

    twice = ending("r1", "d1", 1)
    twice.events.append(event("r1", 3, kind="run_failed"))
    after_end = ending("r1", "d1", 1)
    after_end.events.append(event("r1", 3))
    no_state, other_state, no_event = ending("r1", "d1", 1), ending("r1", "d1", 1), appending("r1", "d1", 1)
    no_state.ClearField("patch")
    other_state.patch.state = run_pb2.RUN_STATE_FAILED
    no_event.patch.state = run_pb2.RUN_STATE_COMPLETED
    no_kind = appending("r1", "d1", 1)
    no_kind.events[0].ClearField("text_delta")
    back = appending("r1", "d1", 1)
    back.patch.state = run_pb2.RUN_STATE_QUEUED
    empty = pb.AppendRequest(run_id="r1", driver_id="d1", epoch=1, expected_sequence=1)
    nameless = appending("r1", "d1", 1, messages=[stored("", assistant("a"))])
    again = appending("r1", "d1", 1)
    again.events[0].run_created.SetInParent()
    return {
        "a gap": changed(sequence=4),
        "another run": changed(run_id="r2"),
        "another tenant": changed(tenant="other"),
        "a position": changed(position=9),
        "two ends": twice,
        "an event after the end": after_end,
        "an end without a state": no_state,
        "an end of another state": other_state,
        "a state without an end": no_event,
        "no kind": no_kind,
        "queued again": back,
        "nothing": empty,
        "a message without an id": nameless,
        "a second beginning": again,
        "too many": appending("r1", "d1", 1, 4097),
    }


@pytest.mark.feature("R4")
@pytest.mark.feature("S3")
@pytest.mark.parametrize("name", sorted(_wrong_appends()))
async def test_a_log_takes_nothing_that_would_break_it(store: Store, driver: Driver, name: str) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    with pytest.raises(faults.RequestInvalid) as caught:
        await store.journal.Append(_wrong_appends()[name])
    assert caught.value.violations
    assert (await get(store, "r1")).sequence == 1


async def test_a_log_begins_with_run_created_and_does_not_end_at_once(store: Store) -> None:
    wrong = opening("r1")
    wrong.events[0].text_delta.text = "x"
    ended = opening("r1")
    ended.events.append(event("r1", 2, kind="run_failed"))
    elsewhere = opening("r1")
    elsewhere.events[0].session_id = "t"
    for request in (wrong, ended, elsewhere, pb.OpenRunRequest(run=opening("r1").run)):
        with pytest.raises(faults.RequestInvalid):
            await store.journal.OpenRun(request)


async def test_events_are_kept_byte_for_byte_with_fields_this_version_does_not_know(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    foreign = event("r1", 2).SerializeToString() + b"\xa2\x3f\x03new"  # field 1012
    request = pb.AppendRequest(run_id="r1", driver_id="d1", epoch=1, expected_sequence=1, events=[event_pb2.Event.FromString(foreign)])
    await store.journal.Append(request)
    (read,) = await read_log(store, "r1", 1)
    read.ClearField("position")
    assert read.SerializeToString() == foreign


@pytest.mark.feature("R14")
async def test_a_command_is_written_at_the_end_of_the_log_and_wakes_the_driver(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.Append(appending("r1", "d1", 1, 2))
    recorded = await store.journal.RecordCommand(cancelling("r1"))
    assert (recorded.sequence, recorded.run.sequence, recorded.run.id) == (4, 4, "r1")
    command = (await read_log(store, "r1"))[-1]
    assert (command.sequence, command.run_id, command.session_id, command.tenant) == (4, "r1", "s", "default")
    assert command.cancel_requested.reason == "enough" and command.time.seconds == 1_700_000_000
    assert list((await driver.hear()).wake_run_ids) == ["r1"]
    with pytest.raises(faults.SequenceConflict):
        await store.journal.Append(appending("r1", "d1", 3))
    await store.journal.Append(appending("r1", "d1", 4))


@pytest.mark.feature("R14")
async def test_an_input_waits_in_the_log_and_does_not_join_the_session_by_itself(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    said = event_pb2.Event()
    said.input_received.input.CopyFrom(user("also this"))
    said.input_received.message_id = "m2"
    await store.journal.RecordCommand(pb.RecordCommandRequest(run_id="r1", event=said))
    assert (await read_log(store, "r1"))[-1].input_received.input == user("also this")
    assert len(await read_messages(store)) == 1
    request = pb.RecordCommandRequest(run_id="r1", event=said, messages=[stored("m2", user("also this"))])
    with pytest.raises(faults.RequestInvalid, match="messages"):
        await store.journal.RecordCommand(request)


@pytest.mark.feature("G6")
async def test_a_repeated_command_is_recorded_once(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    done = await asyncio.gather(*(store.journal.RecordCommand(cancelling("r1", "q")) for _ in range(5)))
    assert {each.sequence for each in done} == {2}
    await store.journal.Append(ending("r1", "d1", 2, kind="run_cancelled"))
    assert (await store.journal.RecordCommand(cancelling("r1", "q"))).sequence == 2
    other = cancelling("r1", "q")
    other.payload_digest = "other"
    with pytest.raises(faults.RequestIdReused):
        await store.journal.RecordCommand(other)


@pytest.mark.parametrize("kind", ["text_delta", "run_completed", "run_created"])
async def test_only_commands_are_recorded_without_a_lease(store: Store, kind: str) -> None:
    await store.journal.OpenRun(opening("r1"))
    with pytest.raises(faults.RequestInvalid, match="event"):
        await store.journal.RecordCommand(pb.RecordCommandRequest(run_id="r1", event=event("r1", 2, kind=kind)))


@pytest.mark.feature("R7")
async def test_a_cancelled_queued_run_is_handed_out_at_once_and_ends_without_the_session(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1"))
    await store.journal.OpenRun(queueing("r2"))
    await store.journal.OpenRun(queueing("r3"))
    driver.say(room=3)
    await store.journal.RecordCommand(cancelling("r2"))
    assigned = await driver.assignment()
    assert (assigned.run_id, assigned.sequence) == ("r2", 2)
    assert (await get(store, "r2")).state == run_pb2.RUN_STATE_QUEUED and await active(store) == "r1"
    with pytest.raises(faults.SessionBusy):
        await store.journal.Append(appending("r2", "d1", 2, messages=[stored("m", assistant("a"))]))
    await store.journal.Append(ending("r2", "d1", 2, kind="run_cancelled"))
    assert await active(store) == "r1"
    await store.journal.Append(ending("r1", "d1", 1))
    assert (await driver.assignment()).run_id == "r3"
    assert [message.id for message in await read_messages(store)] == ["r1-input", "r3-input"]


async def test_runs_are_listed_newest_first_by_session_and_state(store: Store, driver: Driver) -> None:
    for number in range(6):
        await store.journal.OpenRun(opening(f"r{number}", session_id=f"s{number % 2}", driver_id="d1"))
        await store.journal.Append(ending(f"r{number}", "d1", 1, session_id=f"s{number % 2}"))
        store.clock.advance(0.1)
    await store.journal.OpenRun(opening("r6", session_id="s0"))

    async def listed(**values: object) -> list[str]:
        seen: list[str] = []
        token = ""
        while True:
            page = await store.journal.ListRuns(pb.ListRunsRequest(page_size=2, page_token=token, **values))  # type: ignore[arg-type]
            seen += [run.id for run in page.runs]
            token = page.next_page_token
            if not token:
                return seen

    assert await listed() == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert await listed(session_id="s0") == ["r6", "r4", "r2", "r0"]
    assert await listed(states=[run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_FAILED]) == ["r6"]
    assert await listed(session_id="s1", states=[run_pb2.RUN_STATE_QUEUED]) == []
    with pytest.raises(faults.SessionNotFound):
        await listed(session_id="nowhere")
    token = (await store.journal.ListRuns(pb.ListRunsRequest(page_size=2))).next_page_token
    with pytest.raises(faults.PageTokenInvalid):
        await store.journal.ListRuns(pb.ListRunsRequest(page_size=2, page_token=token, session_id="s0"))


@pytest.mark.feature("S12")
async def test_tenants_do_not_see_each_others_runs(store: Store, driver: Driver) -> None:
    await store.journal.OpenRun(opening("r1", driver_id="d1", request_id="q"))
    with as_tenant("other"):
        for call in (
            store.journal.GetRun(pb.GetRunRequest(run_id="r1")),
            store.journal.Append(appending("r1", "d1", 1, tenant="other")),
            store.journal.RecordCommand(cancelling("r1")),
            store.sessions.GetUsage(session_pb.GetUsageRequest(run_id="r1")),
            read_log(store, "r1"),
        ):
            with pytest.raises(faults.RunNotFound):
                await call
        assert not (await store.journal.ListRuns(pb.ListRunsRequest())).runs
        assert not (await store.sessions.GetUsage(session_pb.GetUsageRequest())).rows
        with pytest.raises(faults.SessionNotFound):
            await store.journal.OpenRun(opening("r1", tenant="other", create_session=False))
        opened = await store.journal.OpenRun(opening("r1", tenant="other", request_id="q"))
        assert not opened.existed
        with pytest.raises(faults.RequestInvalid):
            await store.journal.OpenRun(opening("r2", tenant="default"))
    assert (await get(store, "r1")).sequence == 1


@pytest.mark.feature("S3")
@pytest.mark.feature("R12")
async def test_all_that_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    async with open_store("sqlite", tmp_path) as store, open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1", request_id="q", input_digest="i"))
        await store.journal.OpenRun(queueing("r2"))
        await store.journal.Append(appending("r1", "d1", 1, 3, messages=[stored("m1", assistant("a"))]))
        before = (await read_log(store, "r1"), await read_messages(store), await get(store, "r1"))
    async with open_store("sqlite", tmp_path) as store:
        assert (await read_log(store, "r1"), await read_messages(store), await get(store, "r1")) == before
        assert (await store.journal.OpenRun(opening("r9", request_id="q"))).run.id == "r1"
        await store.journal.Append(appending("r1", "d1", 4))
        assert [each.text_delta.text for each in (await read_log(store, "r1", 1))] == [each.text_delta.text for each in events("r1", 2, 4)]
