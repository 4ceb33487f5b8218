"""The Python client over real gRPC, against a run service that breaks its streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from behest.event.v1 import event_pb2 as event_pb
from behest.fault.v1 import fault_pb2 as fault_pb
from chassis.faults import Internal, ModelNotFound, RunCancelled, RunNotFound
from chassis.rpc import App, LocalChannel
from chassis.rpc.serve import open_server
from kit.fake_run_service import Break, FakeRunService, log_of, numbered, served
from suite.addresses import Service
from suite.client import Behest
from suite.following import Backoff

LOG = log_of(["Hel", "lo ", "world"])


@pytest.fixture
async def service() -> FakeRunService:
    return FakeRunService({"r-1": LOG})


@pytest.fixture
async def client(service: FakeRunService) -> AsyncIterator[Behest]:
    async with open_server(App("orchestrator", served(service)), "127.0.0.1:0") as listening, Behest(listening.address) as client:
        yield client


@pytest.mark.feature("X3")
async def test_an_order_gets_a_request_id_so_that_it_can_be_sent_again(service: FakeRunService, client: Behest) -> None:
    run = await client.run("hello", agent="assistant")
    assert (run.id, run.session_id) == ("r-1", "s-1")
    assert service.orders[0].request_id and service.orders[0].agent == "assistant"


@pytest.mark.feature("X3")
async def test_the_text_streams_to_its_end_across_broken_connections(service: FakeRunService, client: Behest) -> None:
    service.breaks = [Break(2), Break(2, clean=True), Break(1, repeats=1)]
    run = await client.run("hello")
    assert "".join([piece async for piece in run.text()]) == "Hello world"
    assert service.connections == [0, 2, 4, 4]


async def test_the_answer_is_that_of_the_last_turn(service: FakeRunService, client: Behest) -> None:
    turn = [event_pb.Event(model_started=event_pb.ModelStarted(turn=2)), event_pb.Event(text_delta=event_pb.TextDelta(turn=2, text="42"))]
    service.logs = {"r-1": numbered([*LOG[:-1], *turn, LOG[-1]])}
    assert await (await client.run("hello")).answer() == "42"


async def test_a_failed_run_raises_its_own_fault(service: FakeRunService, client: Behest) -> None:
    failed = event_pb.RunFailed(fault=fault_pb.Fault(reason="MODEL_NOT_FOUND", message="no model 'x'"))
    service.logs = {"r-1": numbered([event_pb.Event(run_created={}), event_pb.Event(run_failed=failed)])}
    with pytest.raises(ModelNotFound, match="no model 'x'"):
        await (await client.run("hello")).answer()


async def test_a_reason_from_the_future_is_raised_as_internal_with_its_name(service: FakeRunService, client: Behest) -> None:
    failed = event_pb.RunFailed(fault=fault_pb.Fault(reason="MOON_IN_THE_WAY", message="wait"))
    service.logs = {"r-1": numbered([event_pb.Event(run_created={}), event_pb.Event(run_failed=failed)])}
    with pytest.raises(Internal, match="MOON_IN_THE_WAY: wait"):
        await (await client.run("hello")).answer()


async def test_a_cancelled_run_raises_run_cancelled_with_the_reason(service: FakeRunService, client: Behest) -> None:
    service.logs = {"r-1": numbered([event_pb.Event(run_created={}), event_pb.Event(run_cancelled=event_pb.RunCancelled(reason="enough"))])}
    with pytest.raises(RunCancelled, match="enough"):
        await (await client.run("hello")).answer()


async def test_an_unknown_run_is_not_retried(service: FakeRunService, client: Behest) -> None:
    with pytest.raises(RunNotFound):
        [event async for event in client.watch("r-9")]
    assert service.connections == []


async def test_lists_are_paged_to_the_limit(service: FakeRunService, client: Behest) -> None:
    service.logs = {f"r-{number}": LOG for number in range(5)}
    assert [run.id for run in await client.list_runs()] == ["r-0", "r-1", "r-2", "r-3", "r-4"]
    assert [run.id for run in await client.list_runs(limit=3)] == ["r-0", "r-1", "r-2"]


async def test_leaving_the_loop_early_ends_the_call(service: FakeRunService, client: Behest) -> None:
    async for _ in client.watch("r-1"):
        break
    async with asyncio.timeout(5):
        assert [event.sequence async for event in client.watch("r-1", after=6)] == [7, 8]


BREAKS = st.builds(Break, after_events=st.integers(1, 9), clean=st.booleans(), repeats=st.integers(0, 3), skips=st.booleans())


@pytest.mark.feature("X3")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(BREAKS, max_size=6), after=st.integers(0, 7))
async def test_any_cut_points_give_the_same_events(breaks: list[Break], after: int) -> None:
    service = FakeRunService({"r-1": LOG}, breaks)
    channel = LocalChannel(served(service))

    def dial(_: Service):
        return channel

    async with Behest(dial=dial) as client:
        events = client.watch("r-1", after=after, backoff=Backoff(first=1e-4))
        assert [event.sequence async for event in events] == [event.sequence for event in LOG if event.sequence > after]
