"""The small parts that carry messages: pipe, credit, outbox, deadlines, traces."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from behest.mux.v1.mux_service_pb2 import ExchangeRequest, ExchangeResponse
from chassis.faults import RunEnded
from chassis.rpc.deadlines import KEEP, TICK, Deadlines, Limit, deadlines
from chassis.rpc.frames import BATCH_BYTES, OUTBOX_FRAMES, Credit, Grants, Outbox
from chassis.rpc.pipe import WINDOW, Pipe
from chassis.rpc.trace import continued, new_traceparent, trace_id


async def settled() -> None:
    """Every callback that is due has run."""
    for _ in range(5):
        await asyncio.sleep(0)


# Pipe


async def test_a_pipe_hands_items_on_in_order_and_then_ends() -> None:
    pipe: Pipe[int] = Pipe()
    for item in range(3):
        pipe.put(item)
    pipe.end()
    assert [item async for item in pipe] == [0, 1, 2]


async def test_a_pipe_hands_on_what_came_before_its_fault_unless_told_to_drop_it() -> None:
    kept, dropped = Pipe[int](), Pipe[int]()
    for pipe, drop in ((kept, False), (dropped, True)):
        pipe.put(1)
        pipe.end(RunEnded("over"), drop=drop)
    assert await anext(kept) == 1
    for pipe in (kept, dropped):
        with pytest.raises(RunEnded):
            await anext(pipe)


async def test_only_the_first_end_of_a_pipe_counts_and_nothing_enters_after_it() -> None:
    pipe: Pipe[int] = Pipe()
    pipe.end()
    pipe.end(RunEnded("late"))
    pipe.put(1)
    assert [item async for item in pipe] == []


async def test_a_writer_waits_while_a_pipe_is_full() -> None:
    pipe: Pipe[int] = Pipe(window=2)

    async def write() -> None:
        for item in range(5):
            await pipe.send(item)
        pipe.end()

    writer = asyncio.create_task(write())
    await settled()
    assert len(pipe) == 2
    assert [item async for item in pipe] == list(range(5))
    await writer


async def test_the_end_of_a_pipe_frees_its_writer() -> None:
    pipe: Pipe[int] = Pipe(window=1)
    pipe.put(0)
    writer = asyncio.create_task(pipe.send(1))
    await settled()
    pipe.end()
    await writer


# Credit


async def test_credit_lets_one_window_through_and_then_what_is_granted() -> None:
    credit, taken = Credit(), 0

    async def spend() -> None:
        nonlocal taken
        while True:
            await credit.take()
            taken += 1

    spender = asyncio.create_task(spend())
    await settled()
    assert taken == WINDOW
    credit.grant(3)
    await settled()
    assert taken == WINDOW + 3
    spender.cancel()


async def test_a_reader_grants_half_a_window_at_a_time() -> None:
    outbox = Outbox(ExchangeRequest)
    grants = Grants(outbox, 7)
    for _ in range(WINDOW):
        grants.taken()
    batch = await outbox.next()
    assert batch is not None
    assert [(frame.call, frame.credit) for frame in batch.frames] == [(7, WINDOW // 2)] * 2


# Outbox


@given(st.lists(st.lists(st.integers(0, BATCH_BYTES // 2 + 10), max_size=6), max_size=8))
def test_an_outbox_keeps_every_frame_in_order_in_batches_of_bounded_size(bursts: list[list[int]]) -> None:
    """Frames are added in bursts; after each the writer wakes once."""

    async def play() -> None:
        outbox, written, number = Outbox(ExchangeRequest), [], 0

        async def write_one() -> None:
            batch = await outbox.next()
            if batch is not None:
                sizes = [frame.status_code for frame in batch.frames]
                assert sum(sizes) <= BATCH_BYTES or len(sizes) == 1
                written.extend(frame.call for frame in batch.frames)

        for burst in bursts:
            for size in burst:
                outbox.add(number, size, status_code=size)  # the size stands in for a payload of it
                number += 1
            if burst:
                await write_one()
        outbox.close()
        while len(written) < number:
            await write_one()
        assert written == list(range(number))
        assert await outbox.next() is None

    asyncio.run(play())


async def test_all_frames_that_are_ready_when_the_writer_wakes_go_together() -> None:
    outbox = Outbox(ExchangeRequest)
    waiting = asyncio.create_task(outbox.next())
    await settled()
    for call in range(20):
        outbox.add(call)
    batch = await waiting
    assert batch is not None
    assert len(batch.frames) == 20


async def test_an_outbox_nobody_empties_makes_its_fillers_wait() -> None:
    outbox = Outbox(ExchangeRequest)
    for call in range(OUTBOX_FRAMES + 1):
        outbox.add(call)
    waiting = asyncio.create_task(outbox.room())
    await settled()
    assert not waiting.done()
    await outbox.next()
    await waiting


async def test_draining_is_announced_without_a_frame() -> None:
    outbox = Outbox(ExchangeResponse)
    outbox.announce_draining()
    batch = await outbox.next()
    assert isinstance(batch, ExchangeResponse)
    assert batch.draining
    assert list(batch.frames) == []


# Deadlines


async def test_a_limit_cancels_its_task_and_owns_up_to_it() -> None:
    limit = Limit(time.monotonic() + 0.02)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    assert limit.caused()
    limit.lift()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_limit_is_not_to_blame_for_another_cancellation() -> None:
    blamed: list[bool] = []

    async def work() -> None:
        limit = Limit(time.monotonic() + 60)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            blamed.append(limit.caused())
            raise
        finally:
            limit.lift()

    task = asyncio.create_task(work())
    await settled()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert blamed == [False]


async def test_a_task_that_was_cancelled_by_its_limit_and_by_another_stays_cancelled() -> None:
    async def work() -> bool:
        limit = Limit(time.monotonic() + 60)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return limit.caused()
        finally:
            limit.lift()
        return False

    task = asyncio.create_task(work())
    await settled()
    task.cancel()
    task.cancel()
    assert not await task


async def test_a_lifted_limit_does_nothing() -> None:
    limit = Limit(time.monotonic() + 0.02)
    limit.lift()
    await asyncio.sleep(0.05)  # longer than the limit: nothing happens
    assert not limit.caused()


async def test_deadlines_do_not_pile_up() -> None:
    kept = Deadlines()

    def expire() -> None:
        raise AssertionError("taken back before")

    for number in range(1000):
        deadline = time.monotonic() + KEEP * 2 + number
        kept.remove(kept.add(deadline, expire), expire)
    assert kept.waiting == 0
    near = time.monotonic() + 1
    for _ in range(1000):
        kept.remove(kept.add(near, expire), expire)
    assert kept.waiting == 1


async def test_a_deadline_is_noticed_at_most_a_tick_and_a_bit_late() -> None:
    fired: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    deadline = time.monotonic() + 0.05
    deadlines().add(deadline, lambda: fired.set_result(time.monotonic()))
    late = await fired - deadline
    assert -TICK < late < TICK + 0.25


def test_a_closed_loop_takes_its_deadlines_along() -> None:
    seen: list[weakref.ref[Deadlines]] = []

    async def look() -> None:
        seen.append(weakref.ref(deadlines()))

    asyncio.run(look())
    gc.collect()
    assert seen[0]() is None


# Traces

WELL_FORMED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_well_formed_trace_is_continued() -> None:
    assert continued(WELL_FORMED) == WELL_FORMED
    assert trace_id(WELL_FORMED) == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("trace", ["", "x", WELL_FORMED.upper(), WELL_FORMED + "-x", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_malformed_trace_is_replaced(trace: str) -> None:
    fresh = continued(trace)
    assert fresh != trace
    assert continued(fresh) == fresh


def test_new_traces_differ() -> None:
    assert len({trace_id(new_traceparent()) for _ in range(1000)}) == 1000
