"""What the carriers between processes do when the other side goes away, comes back, or sends what it should not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from behest.mux.v1.mux_service_pb2 import ExchangeRequest, ExchangeResponse, Frame
from behest.mux.v1.mux_service_pb2_grpc import MuxServiceStub
from behest.session.v1.journal_service_pb2 import DriveRequest, FollowRequest, FollowResponse, GetRunRequest, GetRunResponse
from chassis.faults import CallCancelled, DeadlineExceeded, Fault, Kind, MessageTooLarge, ServiceUnavailable
from chassis.rpc import open_channel, open_server
from chassis.rpc.serve import ServerOptions
from kit.ports import free_address
from kit.rpc import COLLECT, GET_RUN, QUICK_END, Probe, ProbeStub, open_probe, probe_app


@pytest.fixture(params=["grpc", "mux"])
def carrier(request: pytest.FixtureRequest) -> str:
    return request.param


async def echo_id(request: GetRunRequest) -> GetRunResponse:
    response = GetRunResponse()
    response.run.id = request.run_id
    return response


async def test_nobody_listening_is_said_at_once(carrier: str) -> None:
    address = free_address()
    async with open_channel(address, carrier) as channel:
        with pytest.raises(ServiceUnavailable, match=address):
            await ProbeStub(channel).GetRun(GetRunRequest())
        with pytest.raises(ServiceUnavailable, match=address):
            await anext(aiter(ProbeStub(channel).Follow(FollowRequest())))


@contextlib.asynccontextmanager
async def mute_server() -> AsyncIterator[str]:
    """It accepts connections and says nothing."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in held:
            writer.close()


async def test_a_deadline_ends_the_wait_for_a_connection(carrier: str) -> None:
    async with mute_server() as address, open_channel(address, carrier) as channel:
        with pytest.raises(DeadlineExceeded):
            await ProbeStub(channel).GetRun(GetRunRequest(), timeout=0.2)
        with pytest.raises(DeadlineExceeded):
            await anext(aiter(ProbeStub(channel).Follow(FollowRequest(), timeout=0.2)))


async def test_closing_a_channel_ends_the_wait_for_a_connection(carrier: str) -> None:
    async with mute_server() as address:
        async with open_channel(address, carrier) as channel:
            unary = asyncio.ensure_future(ProbeStub(channel).GetRun(GetRunRequest(), timeout=60))
            stream = asyncio.ensure_future(anext(aiter(ProbeStub(channel).Follow(FollowRequest()))))
            await asyncio.sleep(0)
        for waiting in (unary, stream):
            with pytest.raises((ServiceUnavailable, CallCancelled)):
                await asyncio.wait_for(waiting, 5)


async def test_a_server_that_goes_away_fails_its_calls_as_unavailable(carrier: str) -> None:
    entered = asyncio.Event()

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        entered.set()
        await asyncio.Event().wait()
        return GetRunResponse()

    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        yield FollowResponse()
        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as server:
        listening = await server.enter_async_context(open_server(probe_app(Probe(get_run, follow)), "127.0.0.1:0", QUICK_END))
        async with open_channel(listening.address, carrier) as channel:
            stub = ProbeStub(channel)
            stream = aiter(stub.Follow(FollowRequest()))
            await anext(stream)
            unary = asyncio.ensure_future(stub.GetRun(GetRunRequest()))
            await entered.wait()
            await server.aclose()
            with pytest.raises(ServiceUnavailable):
                await asyncio.wait_for(unary, 5)
            with pytest.raises(ServiceUnavailable):
                await asyncio.wait_for(anext(stream), 5)


@pytest.mark.feature("K4")
async def test_an_idempotent_call_outlives_a_restart(carrier: str) -> None:
    app = probe_app(Probe(echo_id))
    address = free_address()
    async with open_channel(address, carrier, frozenset({GET_RUN})) as channel:
        stub = ProbeStub(channel)
        for round_ in range(2):
            async with open_server(app, address, QUICK_END):
                assert (await stub.GetRun(GetRunRequest(run_id=str(round_)), timeout=20)).run.id == str(round_)


async def test_a_call_that_is_not_idempotent_is_never_sent_twice(carrier: str) -> None:
    seen = 0

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        nonlocal seen
        seen += 1
        raise ServiceUnavailable("not now")

    async with open_probe(carrier, Probe(get_run)) as stub:
        with pytest.raises(ServiceUnavailable):
            await stub.GetRun(GetRunRequest())
    assert seen == 1


async def test_an_idempotent_call_is_sent_again_while_its_deadline_allows(carrier: str) -> None:
    seen = 0

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        nonlocal seen
        seen += 1
        if seen < 4:
            raise ServiceUnavailable("not now", retry_after=0.01)
        return GetRunResponse()

    async with (
        open_server(probe_app(Probe(get_run)), "127.0.0.1:0", QUICK_END) as server,
        open_channel(server.address, carrier, frozenset({GET_RUN})) as channel,
    ):
        await ProbeStub(channel).GetRun(GetRunRequest())
        assert seen == 4
        seen = -1000
        with pytest.raises((ServiceUnavailable, DeadlineExceeded)):
            await ProbeStub(channel).GetRun(GetRunRequest(), timeout=0.05)


@pytest.mark.parametrize("direction", ["request", "response"])
async def test_a_message_over_the_limit_fails_alone(carrier: str, direction: str) -> None:
    async def get_run(request: GetRunRequest) -> GetRunResponse:
        return await echo_id(GetRunRequest(run_id="x" * int(request.run_id)))

    small = ServerOptions(max_message=1 << 20, grace=0.2)
    async with (
        open_server(probe_app(Probe(get_run if direction == "response" else echo_id)), "127.0.0.1:0", small) as server,
        open_channel(server.address, carrier, max_message=1 << 20) as channel,
    ):
        stub = ProbeStub(channel)
        follower = asyncio.ensure_future(stub.GetRun(GetRunRequest(run_id="9")))
        with pytest.raises(MessageTooLarge):
            await stub.GetRun(GetRunRequest(run_id=str(2 << 20) if direction == "response" else "x" * (2 << 20)))
        await follower


async def test_closing_the_channel_cancels_its_calls(carrier: str) -> None:
    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        yield FollowResponse()
        await asyncio.Event().wait()

    async with open_server(probe_app(Probe(follow=follow)), "127.0.0.1:0", QUICK_END) as server:
        async with open_channel(server.address, carrier) as channel:
            stream = aiter(ProbeStub(channel).Follow(FollowRequest()))
            await anext(stream)
        with pytest.raises(CallCancelled):
            await anext(stream)
        with pytest.raises(ServiceUnavailable):
            await ProbeStub(channel).GetRun(GetRunRequest())


@pytest.mark.feature("O6")
async def test_a_server_that_stops_finishes_the_calls_it_has(carrier: str) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def get_run(request: GetRunRequest) -> GetRunResponse:
        entered.set()
        await go_on.wait()
        return await echo_id(request)

    async def drain() -> None:
        asyncio.get_running_loop().call_later(0.1, go_on.set)

    app = probe_app(Probe(get_run), drain=drain)
    async with contextlib.AsyncExitStack() as server:
        listening = await server.enter_async_context(open_server(app, "127.0.0.1:0", ServerOptions(grace=20)))
        async with open_channel(listening.address, carrier) as channel:
            asked = asyncio.ensure_future(ProbeStub(channel).GetRun(GetRunRequest(run_id="late")))
            await entered.wait()
            async with asyncio.timeout(10):
                await server.aclose()
            assert (await asked).run.id == "late"


class Raw:
    """A mux stream spoken by hand."""

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange
        self._frames: list[Frame] = []

    async def send(self, *frames: Frame) -> None:
        await self._exchange.write(ExchangeRequest(frames=frames))

    async def next(self) -> Frame:
        while not self._frames:
            response: ExchangeResponse = await self._exchange.read()
            self._frames.extend(response.frames)
        return self._frames.pop(0)


@contextlib.asynccontextmanager
async def raw(probe: Probe) -> AsyncIterator[Raw]:
    async with open_server(probe_app(probe), "127.0.0.1:0", QUICK_END) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield Raw(MuxServiceStub(channel).Exchange())  # type: ignore[call-arg]


def asking(number: int, **fields: Any) -> Frame:
    return Frame(
        call=number,
        **{"method": GET_RUN, "has_payload": True, "payload": GetRunRequest(run_id="r").SerializeToString(), "end": True} | fields,
    )


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (asking(1, payload=b"\xff\xff\xff"), Kind.INVALID_ARGUMENT),
        (asking(1, method="/no/such"), Kind.UNIMPLEMENTED),
        (asking(1, method="\x00"), Kind.UNIMPLEMENTED),
        (Frame(call=1, method=GET_RUN, end=True), Kind.INVALID_ARGUMENT),
        (asking(1, metadata={"behest-tenant": "/"}), Kind.INVALID_ARGUMENT),
    ],
)
async def test_a_garbage_frame_fails_its_call_and_no_other(garbage: Frame, code: Kind) -> None:
    async with raw(Probe(echo_id)) as mux:
        await mux.send(garbage, asking(2))
        answers = {frame.call: frame for frame in (await mux.next(), await mux.next())}
    assert answers[1].status_code == code.value
    assert answers[1].end
    assert (answers[2].status_code, answers[2].end) == (0, True)


async def test_frames_of_unknown_calls_are_ignored() -> None:
    async with raw(Probe(echo_id)) as mux:
        await mux.send(
            Frame(call=7, payload=b"x", has_payload=True), Frame(call=8, cancel=True), Frame(call=9, credit=5), Frame(), asking(1)
        )
        assert (await mux.next()).call == 1


async def test_sending_more_than_the_credit_fails_the_call_alone() -> None:
    async def collect(stream: AsyncIterator[DriveRequest]) -> Any:
        await asyncio.Event().wait()

    async with raw(Probe(echo_id, collect=collect)) as mux:
        flood = [Frame(call=1, has_payload=True) for _ in range(100)]
        await mux.send(Frame(call=1, method=COLLECT), *flood, asking(2))
        answers = {frame.call: frame for frame in (await mux.next(), await mux.next())}
    assert answers[1].status_code == Kind.INVALID_ARGUMENT.value
    assert answers[2].status_code == 0


async def test_a_stream_sends_no_more_than_its_credit() -> None:
    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        while True:
            yield FollowResponse()

    async with raw(Probe(echo_id, follow=follow)) as mux:
        await mux.send(Frame(call=1, method="/behest.session.v1.JournalService/Follow", has_payload=True, end=True))
        got = [await mux.next() for _ in range(32)]
        await mux.send(asking(2))
        assert (await mux.next()).call == 2
        await mux.send(Frame(call=1, credit=3))
        got += [await mux.next() for _ in range(3)]
        await mux.send(asking(3))
        assert (await mux.next()).call == 3
    assert {frame.call for frame in got} == {1}


async def test_a_call_may_be_opened_before_its_request_is_there() -> None:
    async with raw(Probe(echo_id)) as mux:
        await mux.send(Frame(call=1, method=GET_RUN))
        await mux.send(asking(1, method=""))
        answer = await mux.next()
    assert (answer.call, answer.status_code, answer.end) == (1, 0, True)


async def test_a_stopping_server_lets_its_callers_go_elsewhere() -> None:
    """A stream under way ends in peace on the old server while new calls open a stream to the next."""
    release = asyncio.Event()

    async def follow(request: FollowRequest) -> AsyncIterator[FollowResponse]:
        yield FollowResponse()
        await release.wait()
        yield FollowResponse()

    old, new = probe_app(Probe(echo_id, follow)), probe_app(Probe(echo_id))
    address = free_address()
    shared = ServerOptions(grace=20, share_port=True)
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        await first.enter_async_context(open_server(old, address, shared))
        async with open_channel(address, "mux", frozenset({GET_RUN})) as channel:
            stub = ProbeStub(channel)
            stream = aiter(stub.Follow(FollowRequest()))
            await anext(stream)
            closing = asyncio.ensure_future(first.aclose())
            await second.enter_async_context(open_server(new, address, shared))
            assert (await stub.GetRun(GetRunRequest(run_id="x"), timeout=10)).run.id == "x"
            release.set()
            assert len([response async for response in stream]) == 1
            async with asyncio.timeout(10):
                await closing


async def test_a_fault_of_a_broken_link_names_the_target(carrier: str) -> None:
    with pytest.raises(Fault):
        async with open_channel("127.0.0.1:1", carrier) as channel:
            await ProbeStub(channel).GetRun(GetRunRequest(), timeout=5)
