"""Several replicas behind one target: calls spread, go on elsewhere when one dies or freezes, and come back when it does."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from behest.session.v1.journal_service_pb2 import FollowRequest, GetRunRequest
from chassis.faults import ServiceUnavailable
from chassis.rpc import open_channel
from chassis.rpc.addresses import Seat, Target, digest, read_target
from chassis.rpc.stubs import StubChannel
from kit.replica import Replicas, open_replicas
from kit.rpc import GET_RUN, ProbeStub

IDEMPOTENT = frozenset({GET_RUN})


@pytest.fixture(params=["grpc", "mux"])
def carrier(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    async with open_replicas(3) as opened:
        yield opened


def by_run(request: object) -> str:
    return getattr(request, "run_id", "")


async def ask(stub: ProbeStub, run_id: str = "") -> int:
    return int((await stub.GetRun(GetRunRequest(run_id=run_id), timeout=20)).run.id)


async def answering(stub: ProbeStub, wanted: set[int]) -> None:
    """Returns when calls reach these replicas and no others; every call on the way must be answered."""
    async with asyncio.timeout(30):
        while {await ask(stub, f"r{number}") for number in range(30)} != wanted:
            await asyncio.sleep(0.02)


@pytest.mark.feature("K3")
async def test_calls_spread_over_all_replicas(replicas: Replicas, carrier: str) -> None:
    async with open_channel(replicas.target, carrier, IDEMPOTENT) as channel:
        await answering(ProbeStub(channel), set(replicas.ports))


@pytest.mark.feature("K3")
async def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch, replicas: Replicas) -> None:
    async def addresses(self: Target) -> tuple[str, ...]:
        return tuple(f"ipv4:127.0.0.1:{port}" for port in replicas.processes)

    monkeypatch.setattr(Target, "addresses", addresses)
    monkeypatch.setattr("chassis.rpc.links.LOOKUP_SECONDS", 0.05)
    await replicas.end(replicas.ports[0])
    async with open_channel("dns:///store:50054", "mux", IDEMPOTENT) as channel:
        await answering(ProbeStub(channel), set(replicas.ports[1:]))
        await replicas.start(replicas.ports[0])
        await answering(ProbeStub(channel), set(replicas.ports))


@pytest.mark.feature("R12")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_calls_go_on_while_replicas_die_and_come_back(replicas: Replicas, carrier: str, number: signal.Signals) -> None:
    first, *rest = replicas.ports
    async with open_channel(replicas.target, carrier, IDEMPOTENT) as channel:
        stub = ProbeStub(channel)
        await answering(stub, set(replicas.ports))
        await replicas.end(first, number)
        await answering(stub, set(rest))
        await replicas.start(first)
        await answering(stub, set(replicas.ports))


async def streams_to_all(channel: StubChannel, replicas: Replicas) -> dict[int, AsyncIterator[object]]:
    """An open stream to each replica."""
    stub, found = ProbeStub(channel), {}
    async with asyncio.timeout(30):
        while len(found) < len(replicas.ports):
            stream = aiter(stub.Follow(FollowRequest(run_id=str(random.random()))))
            port = int((await anext(stream)).events[0].run_id)
            found[port] = stream
    return found


async def still_waiting(reads: list[asyncio.Future[object]]) -> None:
    """None has ended; gives them up."""
    ended = [each for each in reads if each.done()]
    for each in reads:
        each.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    assert not ended


@pytest.mark.feature("R12")
async def test_a_frozen_replica_is_noticed_and_its_calls_go_elsewhere(replicas: Replicas, carrier: str) -> None:
    """Its sockets stay open, so nothing but the silence tells. It is used again once it goes on."""
    async with open_channel(replicas.target, carrier, IDEMPOTENT) as channel:
        streams = await streams_to_all(channel, replicas)
        frozen, *rest = replicas.ports
        replicas.freeze(frozen)
        with pytest.raises(ServiceUnavailable):
            await asyncio.wait_for(anext(streams[frozen]), 10)
        await answering(ProbeStub(channel), set(rest))
        waiting = [asyncio.ensure_future(anext(streams[port])) for port in rest]
        replicas.thaw(frozen)
        async with asyncio.timeout(30):
            while await ask(ProbeStub(channel)) != frozen:
                await asyncio.sleep(0.02)
        await still_waiting(waiting)


async def test_a_quiet_connection_is_not_taken_for_a_dead_one(replicas: Replicas, carrier: str) -> None:
    """Pings each second for several seconds, with streams and without: neither side finds them too many."""
    async with open_channel(replicas.target, carrier) as channel, open_channel(replicas.target, carrier) as idle:
        streams = await streams_to_all(channel, replicas)
        await streams_to_all(idle, replicas)
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams.values()]
        await asyncio.wait(waiting, timeout=8, return_when=asyncio.FIRST_COMPLETED)
        await ProbeStub(idle).GetRun(GetRunRequest())
        await still_waiting(waiting)


async def test_a_busy_replica_is_not_taken_for_a_dead_one(carrier: str) -> None:
    """Its loop stands still for longer than a peer has to answer a ping."""
    async with open_replicas(1) as replicas, open_channel(replicas.target, carrier) as channel:
        streams = await streams_to_all(channel, replicas)
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams.values()]
        await ask(ProbeStub(channel), "busy")
        await still_waiting(waiting)


async def test_calls_of_one_key_go_to_one_replica_from_every_channel(replicas: Replicas) -> None:
    async with (
        open_channel(replicas.target, "mux", IDEMPOTENT, affinity=by_run) as one,
        open_channel("ipv4:" + ",".join(reversed(replicas.target[5:].split(","))), "mux", IDEMPOTENT, affinity=by_run) as other,
    ):
        stubs = [ProbeStub(one), ProbeStub(other)]
        for stub in stubs:
            await answering(stub, set(replicas.ports))
        homes = {f"run{number}": await ask(stubs[0], f"run{number}") for number in range(60)}
        assert all(home >= len(homes) / 6 for home in Counter(homes.values()).values())
        for run, home in homes.items():
            assert await ask(stubs[1], run) == home
            assert int((await anext(aiter(stubs[1].Follow(FollowRequest(run_id=run))))).events[0].run_id) == home
        gone = replicas.ports[1]
        await replicas.end(gone)
        await answering(stubs[0], set(replicas.ports) - {gone})
        for run, home in homes.items():
            found = await ask(stubs[0], run)
            assert found == home or home == gone


@pytest.mark.parametrize("count", [2, 3, 5])
def test_keys_are_spread_evenly_over_addresses(count: int) -> None:
    seats = [Seat(f"ipv4:10.0.0.{number}:50054") for number in range(1, count + 1)]
    won = Counter(max(seats, key=lambda seat: seat.bid(digest(f"0198c9a4-{number:08x}"))) for number in range(2000))
    assert all(0.8 < won[seat] * count / 2000 < 1.2 for seat in seats)


@pytest.mark.parametrize(
    ("target", "fixed", "host"),
    [
        ("127.0.0.1:50054", (), "127.0.0.1"),
        ("session-store:50054", (), "session-store"),
        ("dns:///session-store:50054", (), "session-store"),
        ("dns:session-store:50054", (), "session-store"),
        ("[::1]:50054", (), "::1"),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", ("ipv4:10.0.0.1:1", "ipv4:10.0.0.2:2"), ""),
        ("ipv6:[::1]:1,[::2]:2", ("ipv6:[::1]:1", "ipv6:[::2]:2"), ""),
        ("unix:/run/store", ("unix:/run/store",), ""),
        ("unix:///run/store", ("unix:///run/store",), ""),
        ("dns://8.8.8.8/session-store:50054", ("dns://8.8.8.8/session-store:50054",), ""),
        ("xds:///session-store", ("xds:///session-store",), ""),
        ("session-store", ("session-store",), ""),
    ],
)
def test_targets_are_read_as_grpc_reads_them(target: str, fixed: tuple[str, ...], host: str) -> None:
    read = read_target(target)
    assert (read.fixed, read.host) == (fixed, host)


async def test_a_name_that_does_not_exist_is_said(carrier: str) -> None:
    async with open_channel("dns:///no-such-host.invalid:50054", carrier) as channel:
        with pytest.raises(ServiceUnavailable):
            await ProbeStub(channel).GetRun(GetRunRequest(), timeout=10)
