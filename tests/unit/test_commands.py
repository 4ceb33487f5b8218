"""Commands as records: what is read of them, what is tried again, and what is put aside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from behest.run.v1 import run_service_pb2 as pb
from chassis.faults import (
    CommandExpired,
    Fault,
    InputEmpty,
    Internal,
    MessageTooLarge,
    MethodNotFound,
    RequestIdReused,
    RequestInvalid,
    RunsExhausted,
    ServiceUnavailable,
    SessionBusy,
    StorageUnavailable,
)
from chassis.kafka.cloud_events import own_headers, shared_headers
from chassis.kafka.envelope import Envelope, read_envelope
from chassis.rpc.plain import MAX_MESSAGE
from kit.commands import headers, start
from kit.loop import StoppedClock
from orchestrator.api.commands import KINDS, read_command
from orchestrator.operations.commands import MOST_AGE, MOST_DEFECTS, CommandDesk, Letter
from orchestrator.operations.ports import Patience

NOW = 1000.0
NAMES = ["ce_id", "ce_type", "ce_source", "ce_specversion", "ce_tenant", "ce_x", "traceparent", "content-type", "x"]
ANY_HEADERS = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=8), st.none() | st.binary(max_size=12)), max_size=10)


def letter(time: float = NOW, value: bytes | None = b"") -> Letter:
    return Letter("commands", 0, 7, time, b"k", value, ())


@dataclass
class ScriptedOrders:
    """Raises what it is told, one after the other, and then succeeds."""

    faults: list[Fault] = field(default_factory=list)
    attempts: int = 0
    at_once: int = 0
    most_at_once: int = 0

    async def carry_out(self, letter: Letter) -> None:
        self.attempts += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.faults:
            raise self.faults.pop(0)


@dataclass
class KeptLetters:
    reasons: list[str] = field(default_factory=list)

    async def put(self, letter: Letter, fault: Fault) -> None:
        self.reasons.append(fault.reason)


async def settled(orders: ScriptedOrders, *letters: Letter, room: int = 4) -> tuple[list[str], StoppedClock]:
    kept, clock = KeptLetters(), StoppedClock(NOW)
    desk = CommandDesk(orders, kept, clock, Patience(), room)
    await asyncio.gather(*map(desk.settle, letters))
    return kept.reasons, clock


@pytest.mark.feature("E5")
@pytest.mark.parametrize("fault", [ServiceUnavailable, StorageUnavailable, RunsExhausted])
async def test_a_fault_that_passes_is_waited_out_however_long_and_never_puts_a_command_aside(fault: type[Fault]) -> None:
    orders = ScriptedOrders([fault("away") for _ in range(200)])
    reasons, clock = await settled(orders, letter())
    assert (reasons, orders.attempts) == ([], 201)
    assert clock.time - NOW > 190 * 2, "it asks ever more rarely"


@pytest.mark.feature("E5")
@pytest.mark.parametrize("fault", [RequestInvalid, InputEmpty, RequestIdReused, SessionBusy])
async def test_a_fault_that_stays_puts_the_command_aside_at_the_first_attempt(fault: type[Fault]) -> None:
    orders = ScriptedOrders([fault("no")])
    reasons, _ = await settled(orders, letter())
    assert (reasons, orders.attempts) == ([fault.reason], 1)


@pytest.mark.feature("E5")
async def test_a_command_that_ends_in_an_internal_error_each_time_is_put_aside_after_a_few_attempts_and_not_before() -> None:
    orders = ScriptedOrders([Internal("?") for _ in range(MOST_DEFECTS)])
    assert (await settled(orders, letter()))[0] == ["INTERNAL"]
    orders = ScriptedOrders([Internal("?") for _ in range(MOST_DEFECTS - 1)])
    assert (await settled(orders, letter()))[0] == []


@pytest.mark.feature("E5")
async def test_a_command_too_old_to_be_told_from_its_repetition_is_put_aside_without_an_attempt_even_if_it_aged_while_it_waited() -> None:
    orders = ScriptedOrders()
    assert (await settled(orders, letter(NOW - MOST_AGE - 1)))[0] == [CommandExpired.reason]
    assert orders.attempts == 0
    assert (await settled(orders, letter(NOW - MOST_AGE + 1)))[0] == []
    waiting = ScriptedOrders([StorageUnavailable("away") for _ in range(10)])
    assert (await settled(waiting, letter(NOW - MOST_AGE + 5)))[0] == [CommandExpired.reason]


async def test_no_more_commands_are_carried_out_at_once_than_there_is_room() -> None:
    orders = ScriptedOrders()
    await settled(orders, *(letter() for _ in range(50)), room=3)
    assert (orders.attempts, orders.most_at_once) == (50, 3)


async def test_commands_that_wait_leave_their_room_to_others() -> None:
    passed, blocked = asyncio.Event(), asyncio.Event()

    class OneBlocked(ScriptedOrders):
        async def carry_out(self, letter: Letter) -> None:
            if letter.value == b"blocked" and not passed.is_set():
                blocked.set()
                raise StorageUnavailable("away")
            passed.set()

    desk = CommandDesk(OneBlocked(), KeptLetters(), StoppedClock(NOW), Patience(), 1)
    first = asyncio.create_task(desk.settle(letter(value=b"blocked")))
    await blocked.wait()
    async with asyncio.timeout(5):
        await desk.settle(letter(value=b"other"))
        await first


@pytest.mark.feature("E5")
@given(ANY_HEADERS, st.none() | st.binary(max_size=64), st.sampled_from([*KINDS, "other"]))
def test_any_headers_and_bytes_are_read_or_refused_with_a_reason(found: list[tuple[str, bytes]], value: bytes | None, type_: str) -> None:
    for given_headers in (found, [*headers("start", "id"), *found]):
        try:
            envelope = read_envelope(given_headers)
            read_command(envelope, value)
        except (RequestInvalid, MethodNotFound) as fault:
            assert fault.message
    try:
        _, request = read_command(Envelope("id", "/test", type_, "", ""), value)
    except (RequestInvalid, MethodNotFound):
        return
    assert request.request_id == "id"


@pytest.mark.feature("E5")
@given(st.builds(start, st.text(min_size=1, max_size=20), session_id=st.text(max_size=9), request_id=st.sampled_from(["", "id"])))
def test_a_command_comes_out_as_it_went_in_with_its_id_as_request_id(order: pb.CreateRunRequest) -> None:
    kind, request = read_command(read_envelope(headers("start", "id")), order.SerializeToString())
    order.request_id = "id"
    assert (kind.method, request) == ("/behest.run.v1.RunService/CreateRun", order)


def test_an_envelope_of_ours_is_read_as_it_was_written() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    written = [
        *shared_headers("/orders", "behest.run.v1.CreateRunRequest", "s", "acme"),
        *own_headers("1", b"t", "2026-01-01T00:00:00Z", trace),
    ]
    assert read_envelope(written) == Envelope("1", "/orders", "t", "acme", trace)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ([], "the header ce_specversion is missing"),
        ([*headers("start", "1"), ("ce_id", b"2")], "the header ce_id is given twice"),
        ([*headers("start", "1"), ("ce_tenant", b"\xff")], "the header ce_tenant is no UTF-8"),
        ([*headers("start", "1"), ("ce_tenant", None)], "the header ce_tenant is null"),
        ([("ce_specversion", b"0.3"), *headers("start", "1")[2:]], "is '0.3'; 1.0 is what can be read"),
        ([("content-type", b"application/cloudevents+json"), *headers("start", "1")[1:]], "application/protobuf in binary mode"),
    ],
)
def test_a_wrong_envelope_is_refused_with_the_header_and_what_to_do(broken: list[tuple[str, bytes]], text: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        read_envelope(broken)
    assert text in refused.value.message


def test_a_command_larger_than_a_call_may_be_is_refused() -> None:
    with pytest.raises(MessageTooLarge):
        read_command(read_envelope(headers("start", "1")), bytes(MAX_MESSAGE + 1))


@pytest.mark.parametrize("id_", ["two words", "é", "x" * 129])
def test_an_id_that_can_be_no_request_id_is_refused(id_: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        read_command(read_envelope(headers("start", id_)), b"")
    assert "ce_id" in refused.value.message
