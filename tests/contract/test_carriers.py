"""The three carriers carry a call alike. Every claim here is tried on each."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from behest.session.v1.journal_service_pb2 import DriveRequest, DriveResponse, FollowRequest, FollowResponse, GetRunRequest, GetRunResponse
from chassis.faults import (
    CallCancelled,
    DeadlineExceeded,
    Fault,
    Internal,
    MethodNotFound,
    RequestInvalid,
    RunNotFound,
    SequenceConflict,
    Violation,
    reasons,
)
from chassis.rpc import Call, call_scope, current_call
from chassis.rpc.trace import trace_id
from kit.rpc import CARRIERS, Probe, open_probe


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> str:
    return request.param


def run_of(text: str) -> GetRunResponse:
    response = GetRunResponse()
    response.run.id = text
    return response


def events(*sequences: int) -> FollowResponse:
    response = FollowResponse()
    for sequence in sequences:
        response.events.add(sequence=sequence)
    return response


async def requests(*names: str) -> AsyncIterator[DriveRequest]:
    for name in names:
        yield DriveRequest(driver_id=name)


async def echo_id(request: GetRunRequest) -> GetRunResponse:
    return run_of(request.run_id)


async def test_a_unary_call_gets_its_response(carrier: str) -> None:
    async with open_probe(carrier, Probe(get_run=echo_id)) as stub:
        response = await stub.GetRun(GetRunRequest(run_id="r1"))
    assert response.run.id == "r1"


async def test_a_response_stream_arrives_whole_and_in_order(carrier: str) -> None:
    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        for sequence in range(request.after, 200):
            yield events(sequence)

    async with open_probe(carrier, Probe(follow=follow)) as stub:
        got = [response.events[0].sequence async for response in stub.Follow(FollowRequest(after=3))]
    assert got == list(range(3, 200))


async def test_a_request_stream_arrives_whole_and_in_order(carrier: str) -> None:
    async def collect(stream: AsyncIterator[DriveRequest]) -> DriveResponse:
        return DriveResponse(wake_run_ids=[request.driver_id async for request in stream])

    names = [str(number) for number in range(200)]
    async with open_probe(carrier, Probe(collect=collect)) as stub:
        response = await stub.Collect(requests(*names))
    assert list(response.wake_run_ids) == names


async def test_streams_both_ways_take_turns(carrier: str) -> None:
    async def drive(stream: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        async for request in stream:
            yield DriveResponse(wake_run_ids=[request.driver_id])

    answered: asyncio.Queue[str] = asyncio.Queue()

    async def ping_pong() -> AsyncIterator[DriveRequest]:
        yield DriveRequest(driver_id="0")
        for number in range(1, 20):
            assert await answered.get() == str(number - 1)
            yield DriveRequest(driver_id=str(number))

    async with open_probe(carrier, Probe(drive=drive)) as stub:
        async for response in stub.Drive(ping_pong()):
            answered.put_nowait(response.wake_run_ids[0])
    assert answered.get_nowait() == "19"


async def test_empty_messages_are_messages(carrier: str) -> None:
    async def drive(stream: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        async for _ in stream:
            yield DriveResponse()

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        return GetRunResponse()

    async with open_probe(carrier, Probe(drive=drive, get_run=get_run)) as stub:
        assert await stub.GetRun(GetRunRequest()) == GetRunResponse()
        assert [response async for response in stub.Drive(requests("", "", ""))] == [DriveResponse()] * 3


async def test_a_request_stream_may_be_empty(carrier: str) -> None:
    async def collect(stream: AsyncIterator[DriveRequest]) -> DriveResponse:
        return DriveResponse(lease_ms=len([request async for request in stream]))

    async with open_probe(carrier, Probe(collect=collect)) as stub:
        assert (await stub.Collect(requests())).lease_ms == 0


async def test_a_handler_may_answer_without_reading_its_requests(carrier: str) -> None:
    async def collect(stream: AsyncIterator[DriveRequest]) -> DriveResponse:
        return DriveResponse(lease_ms=7)

    async def for_ever() -> AsyncIterator[DriveRequest]:
        while True:
            yield DriveRequest()

    async with open_probe(carrier, Probe(collect=collect)) as stub:
        assert (await stub.Collect(for_ever())).lease_ms == 7


@pytest.mark.parametrize("fault", [None, RunNotFound("gone")])
async def test_a_handler_that_ends_early_is_heard_while_requests_still_flow(carrier: str, fault: Fault | None) -> None:
    async def drive(stream: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        for _ in range(5):
            await anext(aiter(stream))
            yield DriveResponse()
        if fault is not None:
            raise fault

    async def for_ever() -> AsyncIterator[DriveRequest]:
        while True:
            yield DriveRequest(driver_id="x" * 1000)

    async with open_probe(carrier, Probe(drive=drive)) as stub:
        for _ in range(10):
            got = []
            with contextlib.nullcontext() if fault is None else pytest.raises(RunNotFound):
                async for response in stub.Drive(for_ever()):
                    got.append(response)
            assert len(got) == 5


def the_conflict() -> SequenceConflict:
    return SequenceConflict(
        "run r1 is at 7, not 5; read on — and append again",
        metadata={"sequence": "7", "run_id": "r1"},
        retry_after=1.25,
        violations=(Violation("expected_sequence", "7, not 5"), Violation("events[0]", "taken")),
    )


def told(fault: Fault) -> tuple[Any, ...]:
    return type(fault), fault.message, fault.metadata, fault.retry_after, fault.violations, fault.service, fault.kind, fault.reason


@pytest.mark.feature("G2")
async def test_a_fault_arrives_as_it_was_raised(carrier: str) -> None:
    async def get_run(request: GetRunRequest) -> GetRunResponse:
        raise the_conflict()

    async with open_probe(carrier, Probe(get_run=get_run)) as stub:
        with pytest.raises(SequenceConflict) as caught:
            await stub.GetRun(GetRunRequest())
    expected = the_conflict()
    expected.service = "probe"
    assert told(caught.value) == told(expected)


@pytest.mark.feature("G2")
async def test_every_reason_arrives_as_itself(carrier: str) -> None:
    async def get_run(request: GetRunRequest) -> GetRunResponse:
        raise reasons()[request.run_id]("so it is")

    async with open_probe(carrier, Probe(get_run=get_run)) as stub:
        for reason, kind in reasons().items():
            with pytest.raises(kind) as caught:
                await stub.GetRun(GetRunRequest(run_id=reason))
            assert caught.value.reason == reason


async def test_a_fault_of_another_service_keeps_its_origin(carrier: str) -> None:
    async def get_run(request: GetRunRequest) -> GetRunResponse:
        raise RunNotFound("no run r1", service="session-store")

    async with open_probe(carrier, Probe(get_run=get_run)) as stub:
        with pytest.raises(RunNotFound) as caught:
            await stub.GetRun(GetRunRequest())
    assert caught.value.service == "session-store"


async def test_what_was_sent_before_a_fault_arrives_before_it(carrier: str) -> None:
    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        for sequence in range(3):
            yield events(sequence)
        raise the_conflict()

    got = []
    async with open_probe(carrier, Probe(follow=follow)) as stub:
        with pytest.raises(SequenceConflict):
            async for response in stub.Follow(FollowRequest()):
                got.append(response.events[0].sequence)
    assert got == [0, 1, 2]


async def test_faults_of_a_task_group_arrive_as_the_fault(carrier: str) -> None:
    async def fail() -> None:
        raise the_conflict()

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
        return GetRunResponse()

    async with open_probe(carrier, Probe(get_run=get_run)) as stub:
        with pytest.raises(SequenceConflict):
            await stub.GetRun(GetRunRequest())


@pytest.mark.feature("G2")
async def test_an_exception_of_a_handler_stays_inside(carrier: str) -> None:
    async def get_run(request: GetRunRequest) -> GetRunResponse:
        raise ValueError("password=hunter2")

    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        yield events(1)
        raise ValueError("password=hunter2")

    async with open_probe(carrier, Probe(get_run=get_run, follow=follow)) as stub:
        with pytest.raises(Internal) as of_unary:
            await stub.GetRun(GetRunRequest())
        with pytest.raises(Internal) as of_stream:
            _ = [response async for response in stub.Follow(FollowRequest())]
    for caught in (of_unary, of_stream):
        assert "hunter2" not in f"{caught.value!r}{caught.value.metadata}"
        assert caught.value.metadata["error_id"] in caught.value.message


class Witness:
    """Sees whether a handler was entered and cancelled."""

    def __init__(self) -> None:
        self.entered, self.cancelled = asyncio.Event(), asyncio.Event()

    async def forever(self) -> None:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def get_run(self, request: GetRunRequest) -> GetRunResponse:
        await self.forever()
        return GetRunResponse()

    async def follow(self, request: FollowRequest) -> AsyncIterator[FollowResponse]:
        yield events(1)
        await self.forever()

    async def drive(self, stream: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        yield DriveResponse()
        await self.forever()

    async def collect(self, stream: AsyncIterator[DriveRequest]) -> DriveResponse:
        await self.forever()
        return DriveResponse()

    def probe(self) -> Probe:
        return Probe(self.get_run, self.follow, self.drive, self.collect)


@pytest.mark.feature("G5")
async def test_a_deadline_ends_a_unary_call_and_its_handler(carrier: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:
        with pytest.raises(DeadlineExceeded):
            await stub.GetRun(GetRunRequest(), timeout=0.1)
        await asyncio.wait_for(witness.cancelled.wait(), 5)


@pytest.mark.feature("G5")
async def test_a_deadline_ends_a_stream_and_its_handler(carrier: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:
        stream = stub.Follow(FollowRequest(), timeout=0.3)
        assert (await anext(aiter(stream))).events[0].sequence == 1
        with pytest.raises(DeadlineExceeded):
            await anext(aiter(stream))
        await asyncio.wait_for(witness.cancelled.wait(), 5)


@pytest.mark.feature("G5")
async def test_a_handler_knows_what_remains_and_hands_it_on(carrier: str) -> None:
    async def inner(request: GetRunRequest) -> GetRunResponse:
        return run_of(str(current_call().remaining()))

    async with open_probe(carrier, Probe(get_run=inner)) as neighbour:

        async def outer(request: GetRunRequest) -> GetRunResponse:
            return await neighbour.GetRun(request, timeout=60)

        async with open_probe(carrier, Probe(get_run=outer)) as stub:
            response = await stub.GetRun(GetRunRequest(), timeout=5)
    assert 3 < float(response.run.id) < 5.1  # gRPC rounds timeouts up


@pytest.mark.feature("G5")
async def test_a_deadline_ends_a_call_through_two_services_as_itself(carrier: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as neighbour:

        async def outer(request: GetRunRequest) -> GetRunResponse:
            return await neighbour.GetRun(request)

        async with open_probe(carrier, Probe(get_run=outer)) as stub:
            with pytest.raises(DeadlineExceeded):
                await stub.GetRun(GetRunRequest(), timeout=0.2)
            await asyncio.wait_for(witness.cancelled.wait(), 5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_expired_deadline_ends_a_call_before_it_begins(carrier: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:
        with call_scope(Call(deadline=1.0)), pytest.raises(DeadlineExceeded):
            await stub.GetRun(GetRunRequest())
    assert not witness.entered.is_set()


@pytest.mark.parametrize("arity", ["unary", "collect"])
async def test_cancelling_the_waiting_task_cancels_the_handler(carrier: str, arity: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:

        async def wait() -> object:
            return await (stub.GetRun(GetRunRequest()) if arity == "unary" else stub.Collect(requests("a")))

        task = asyncio.create_task(wait())
        await asyncio.wait_for(witness.entered.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(witness.cancelled.wait(), 5)


@pytest.mark.parametrize("arity", ["follow", "drive"])
async def test_cancelling_a_stream_cancels_the_handler_and_says_so(carrier: str, arity: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:
        stream: Any = stub.Follow(FollowRequest()) if arity == "follow" else stub.Drive(requests("a"))
        await anext(aiter(stream))
        await asyncio.wait_for(witness.entered.wait(), 5)
        assert stream.cancel()
        assert not stream.cancel()
        await asyncio.wait_for(witness.cancelled.wait(), 5)
        with pytest.raises(CallCancelled):
            await anext(aiter(stream))


async def test_cancelling_a_stream_wakes_its_reader(carrier: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:
        stream: Any = stub.Follow(FollowRequest())
        await anext(aiter(stream))
        reader = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.wait_for(witness.entered.wait(), 5)
        stream.cancel()
        with pytest.raises(CallCancelled):
            await asyncio.wait_for(reader, 5)


async def test_a_reader_that_is_cancelled_cancels_the_handler(carrier: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:

        async def read() -> None:
            async for _ in stub.Follow(FollowRequest()):
                pass

        task = asyncio.create_task(read())
        await asyncio.wait_for(witness.entered.wait(), 5)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(witness.cancelled.wait(), 5)


async def test_a_reader_that_breaks_off_cancels_the_handler(carrier: str) -> None:
    witness = Witness()
    async with open_probe(carrier, witness.probe()) as stub:

        async def relay() -> AsyncIterator[FollowResponse]:
            async for response in stub.Follow(FollowRequest()):
                yield response

        relayed = relay()
        await anext(relayed)
        await asyncio.wait_for(witness.entered.wait(), 5)
        await relayed.aclose()
        gc.collect()
        await asyncio.wait_for(witness.cancelled.wait(), 5)


async def test_a_failing_request_stream_fails_the_call_and_cancels_the_handler(carrier: str) -> None:
    witness = Witness()

    async def broken() -> AsyncIterator[DriveRequest]:
        yield DriveRequest()
        await witness.entered.wait()
        raise LookupError("no more drivers")

    async with open_probe(carrier, witness.probe()) as stub:
        with pytest.raises(LookupError):
            await stub.Collect(broken())
        await asyncio.wait_for(witness.cancelled.wait(), 5)
        with pytest.raises(LookupError):
            _ = [response async for response in stub.Drive(broken())]


async def test_an_unread_request_stream_is_closed(carrier: str) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[DriveRequest]:
        try:
            while True:
                yield DriveRequest()
        finally:
            closed.set()

    async def collect(stream: AsyncIterator[DriveRequest]) -> DriveResponse:
        await anext(aiter(stream))
        raise the_conflict()

    async with open_probe(carrier, Probe(collect=collect)) as stub:
        with pytest.raises(SequenceConflict):
            await stub.Collect(endless())
        await asyncio.wait_for(closed.wait(), 5)


async def seen_call(request: GetRunRequest) -> GetRunResponse:
    call = current_call()
    response = run_of(call.tenant)
    response.run.metadata.update({**call.metadata, "trace": call.traceparent, "method": call.method})
    return response


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_tenant_trace_and_metadata_arrive(carrier: str) -> None:
    async with open_probe(carrier, Probe(get_run=seen_call)) as stub:
        with call_scope(Call(tenant="acme", traceparent=TRACE)):
            response = await stub.GetRun(GetRunRequest(), metadata=(("X-Colour", "blue"),))
    assert response.run.id == "acme"
    assert trace_id(response.run.metadata.pop("trace")) == trace_id(TRACE)
    assert dict(response.run.metadata) == {"x-colour": "blue", "method": "/behest.session.v1.JournalService/GetRun"}


async def test_tenant_and_trace_ride_along_to_the_next_service(carrier: str) -> None:
    async with open_probe(carrier, Probe(get_run=seen_call)) as neighbour:

        async def outer(request: GetRunRequest) -> GetRunResponse:
            return await neighbour.GetRun(request)

        async with open_probe(carrier, Probe(get_run=outer)) as stub:
            response = await stub.GetRun(
                GetRunRequest(), metadata=(("behest-tenant", "acme"), ("traceparent", TRACE), ("x-colour", "blue"))
            )
    assert response.run.id == "acme"
    assert trace_id(response.run.metadata["trace"]) == trace_id(TRACE)
    assert "x-colour" not in response.run.metadata


async def test_a_call_without_trace_starts_one(carrier: str) -> None:
    async with open_probe(carrier, Probe(get_run=seen_call)) as stub:
        first = await stub.GetRun(GetRunRequest())
        second = await stub.GetRun(GetRunRequest())
    traces = {trace_id(response.run.metadata["trace"]) for response in (first, second)}
    assert len(traces) == 2
    assert all(len(trace) == 32 for trace in traces)


@pytest.mark.parametrize("tenant", ["a b", "x" * 129, "a/b", "", "*"])
async def test_a_malformed_tenant_is_refused(carrier: str, tenant: str) -> None:
    async with open_probe(carrier, Probe(get_run=seen_call)) as stub:
        with pytest.raises(RequestInvalid) as caught:
            await stub.GetRun(GetRunRequest(), metadata=(("behest-tenant", tenant),))
    assert [violation.field for violation in caught.value.violations] == ["metadata[behest-tenant]"]


async def test_a_stream_leaves_its_readers_context_alone(carrier: str) -> None:
    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        for sequence in range(3):
            yield events(sequence)

    mine = Call(tenant="acme")
    async with open_probe(carrier, Probe(follow=follow)) as stub:
        with call_scope(mine):
            async for _ in stub.Follow(FollowRequest(), metadata=(("behest-tenant", "other"),)):
                assert current_call() is mine


async def test_requests_are_made_in_the_callers_context(carrier: str) -> None:
    async def drive(stream: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        async for request in stream:
            yield DriveResponse(wake_run_ids=[request.driver_id, current_call().tenant])

    async def mine() -> AsyncIterator[DriveRequest]:
        yield DriveRequest(driver_id=current_call().tenant)

    async with open_probe(carrier, Probe(drive=drive)) as stub:
        with call_scope(Call(tenant="acme")):
            got = [list(r.wake_run_ids) async for r in stub.Drive(mine(), metadata=(("behest-tenant", "other"),))]
    assert got == [["acme", "other"]]


PAGE = "x" * 65536


@pytest.mark.feature("S5")
async def test_a_slow_reader_holds_back_its_own_call_and_no_other(carrier: str) -> None:
    sent = 0

    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        nonlocal sent
        for sequence in range(2000):
            response = events(sequence)
            response.events[0].run_id = PAGE
            sent += 1
            yield response

    async with open_probe(carrier, Probe(follow=follow, get_run=echo_id)) as stub:
        stream = aiter(stub.Follow(FollowRequest()))
        await anext(stream)
        for number in range(50):
            await stub.GetRun(GetRunRequest(run_id=str(number)))
        assert sent < 300
        rest = [response.events[0].sequence async for response in stream]
    assert rest == list(range(1, 2000))


async def test_a_slow_handler_holds_back_its_requests(carrier: str) -> None:
    sent, go_on = 0, asyncio.Event()

    async def drive(stream: AsyncIterator[DriveRequest]) -> AsyncIterator[DriveResponse]:
        await go_on.wait()
        yield DriveResponse(lease_ms=len([request async for request in stream]))

    async def plenty() -> AsyncIterator[DriveRequest]:
        nonlocal sent
        for _ in range(2000):
            sent += 1
            yield DriveRequest(driver_id=PAGE)

    async with open_probe(carrier, Probe(drive=drive, get_run=echo_id)) as stub:
        stream = aiter(stub.Drive(plenty()))
        for number in range(50):
            await stub.GetRun(GetRunRequest(run_id=str(number)))
        assert sent < 300
        go_on.set()
        assert (await anext(stream)).lease_ms == 2000


async def test_big_messages_pass(carrier: str) -> None:
    async with open_probe(carrier, Probe(get_run=echo_id)) as stub:
        response = await stub.GetRun(GetRunRequest(run_id="x" * (8 << 20)))
    assert len(response.run.id) == 8 << 20


async def test_a_thousand_calls_at_once_are_told_apart(carrier: str) -> None:
    gate, waiting = asyncio.Event(), 0

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        nonlocal waiting
        waiting += 1
        if waiting == 1000:
            gate.set()
        await gate.wait()
        return run_of(request.run_id)

    async with open_probe(carrier, Probe(get_run=get_run)) as stub:

        async def ask(number: int) -> str:
            return (await stub.GetRun(GetRunRequest(run_id=str(number)))).run.id

        answers = await asyncio.gather(*map(ask, range(1000)))
    assert answers == [str(number) for number in range(1000)]


async def test_an_unknown_method_is_named(carrier: str) -> None:
    async with open_probe(carrier, Probe(get_run=echo_id)) as stub:
        with pytest.raises(MethodNotFound):
            await stub.OpenRunTypo(GetRunRequest())


async def test_a_method_that_is_not_implemented_is_a_fault(carrier: str) -> None:
    from behest.session.v1.journal_service_pb2 import ListRunsRequest

    async with open_probe(carrier, Probe(get_run=echo_id)) as stub:
        with pytest.raises(Internal):
            await stub.ListRuns(ListRunsRequest())


async def test_a_long_fault_is_cut_and_still_arrives(carrier: str) -> None:
    async def get_run(request: GetRunRequest) -> GetRunResponse:
        long = "ä" * 100_000
        raise RunNotFound(long, metadata={f"key{n}": long for n in range(50)}, violations=(Violation(long, long),) * 50)

    async with open_probe(carrier, Probe(get_run=get_run)) as stub:
        with pytest.raises(RunNotFound):
            await stub.GetRun(GetRunRequest())
