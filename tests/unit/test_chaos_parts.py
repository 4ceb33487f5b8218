"""The parts of the crash harness that can be tested by themselves: links, schedules, and what is read off the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2, run_service_pb2
from chaos import programs
from chaos.dialogue import STATEMENT, TRANSACTION, Dialogue
from chaos.faults import BLACKOUT, EVERYTHING, LOSE_ANSWER, LOSE_COMMIT, OWNERS, STRAND, Targets, schedule, waypoints_for
from chaos.proxy import Link, Snare
from chaos.wire import submessages
from chassis.waypoints import POINTS, arm, disarm
from provider_gateway.adapters.scripted.script import Script

TARGETS = Targets(("session_store-0", "orchestrator-1"), ("client>orchestrator-1",), ("postgres",))


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A port that says everything again."""

    async def say_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(say_again, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with echo() as port, Link("a>b", port).opened() as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        try:
            yield link, reader, writer
        finally:
            writer.transport.abort()


async def test_a_link_carries_what_it_is_given() -> None:
    async with linked() as (_, reader, writer):
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"


@pytest.mark.parametrize(("up", "down"), [(True, True), (True, False), (False, True)])
async def test_what_a_link_holds_arrives_when_it_is_healed(up: bool, down: bool) -> None:
    async with linked() as (link, reader, writer):
        link.hold(up=up, down=down)
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading := asyncio.ensure_future(reader.readexactly(3))), 0.05)
        link.heal()
        assert await reading == b"two"


async def test_a_cut_breaks_what_there_is_and_welcomes_what_comes() -> None:
    async with linked() as (link, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        link.cut()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        again, asked = await asyncio.open_connection("127.0.0.1", link.port)
        asked.write(b"three")
        assert await again.readexactly(5) == b"three"
        asked.transport.abort()


@pytest.mark.parametrize("up", [True, False])
async def test_what_a_link_holds_when_it_is_cut_never_arrives(up: bool) -> None:
    async with linked() as (link, reader, writer):
        link.hold(up=up, down=not up)
        writer.write(b"lost")
        await asyncio.sleep(0.02)  # it is under way
        link.cut()
        link.heal()
        assert await asyncio.gather(reader.read(), return_exceptions=True) in ([b""], [reader.exception()])


async def test_a_link_that_refuses_ends_every_connection() -> None:
    async with linked() as (link, _, _):
        link.refuses = True
        reader, _ = await asyncio.open_connection("127.0.0.1", link.port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


BEGINNING = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + (12).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + b"u\0x\0"
PREPARED = message(b"P", b"s1\0WITH batch AS (INSERT INTO batches VALUES ($1))\0\0\0") + message(b"P", b"s2\0SELECT 1\0\0\0")
BOUND, OTHER = message(b"B", b"\0s1\0more"), message(b"B", b"\0s2\0more")
BEGIN, COMMIT = message(b"Q", b"BEGIN\0"), message(b"Q", b"COMMIT\0")
READING = message(b"Q", b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY\0")


@pytest.mark.parametrize(
    ("said", "commits"),
    [
        (BOUND, STATEMENT),
        (OTHER, ""),
        (BEGIN + BOUND + OTHER, ""),
        (BEGIN + BOUND + OTHER + COMMIT, TRANSACTION),
        (BEGIN + OTHER + COMMIT, ""),
        (READING + OTHER + COMMIT, ""),
        (BEGIN + BOUND + message(b"Q", b"ROLLBACK\0") + BOUND, STATEMENT),
        (BEGIN + BOUND + COMMIT + BEGIN + OTHER + COMMIT, TRANSACTION),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_commit_is_told_from_everything_else_however_it_is_cut(said: bytes, commits: str, size: int) -> None:
    dialogue, whole = Dialogue(), BEGINNING + PREPARED + said
    asked = [dialogue.commits(whole[place : place + size]) for place in range(0, len(whole), size)]
    assert next(filter(None, asked), "") == commits


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_snare_loses_a_commit_or_its_answer(arrives: bool) -> None:
    heard = bytearray()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            heard.extend(data)
            writer.write(b"done")
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    async with server, Link("session_store-0>postgres", server.sockets[0].getsockname()[1]).opened() as link:
        snare = Snare(TRANSACTION, arrives)
        link.snares += [Snare(STATEMENT, arrives), snare]
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(BEGINNING + PREPARED + BEGIN + BOUND)
        assert await reader.readexactly(4) == b"done"
        writer.write(COMMIT)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(4)
        assert snare.sprung and snare not in link.snares
        assert (COMMIT in heard) is arrives
        writer.transport.abort()


def test_every_aimed_fault_comes_within_half_a_minute() -> None:
    wide = Targets(
        ("session_store-0", "session_store-1", "orchestrator-0"),
        ("session_store-0>postgres", "session_store-1>postgres", "all>kafka-0"),
        ("postgres", "kafka-0"),
    )
    for seed in range(20):
        drawn = {(fault.kind, fault.target) for fault in schedule(Random(seed), wide, 30)}
        ways = {(how + kind, link) for how in (LOSE_COMMIT, LOSE_ANSWER) for kind in (STATEMENT, TRANSACTION) for link in wide.links[:2]}
        assert drawn >= ways | {(STRAND, EVERYTHING), (BLACKOUT, EVERYTHING)}


def test_a_seed_gives_the_same_faults_and_another_seed_others() -> None:
    first, again, other = (schedule(Random(seed), TARGETS, 60) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert len(first) > 20
    assert {fault.target for fault in first} == {*TARGETS.services, *TARGETS.links, *TARGETS.servers, EVERYTHING}


@pytest.mark.parametrize("section", ["session_store", "tool_executor", "orchestrator"])
def test_every_point_of_a_service_has_its_turn(section: str) -> None:
    order = waypoints_for(Random(7), section)
    mine = {name for name in POINTS if section in OWNERS[name.partition(".")[0]]}
    drawn = {order().partition(":")[0] for _ in range(10 * len(mine))}
    assert drawn - {""} == mine


def test_what_is_drawn_can_be_armed() -> None:
    order = waypoints_for(Random(7), "orchestrator")
    for drawn in filter(None, (order() for _ in range(100))):
        arm(drawn, {"BEHEST_CRASH_HARNESS": "1"})
    disarm()


def test_a_seed_gives_the_same_programs_which_the_scripted_model_takes() -> None:
    assert programs.script(Random("7")) == programs.script(Random("7"))
    assert len(Script.model_validate(programs.script(Random("7"))).rules) == programs.PROGRAMS


def test_events_are_read_off_the_wire_as_they_are() -> None:
    events = [event_pb2.Event(sequence=number, run_started=event_pb2.RunStarted(driver_id="d" * 300)) for number in range(3)]
    response = run_service_pb2.StreamRunResponse(run=run_pb2.Run(id="r"), events=events)
    assert list(submessages(response.SerializeToString(), 2)) == [event.SerializeToString() for event in events]
    assert list(submessages(response.SerializeToString(), 1)) == [run_pb2.Run(id="r").SerializeToString()]
