"""The store's pure parts: pages, batches, subscriptions, conversions."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from behest.event.v1 import event_pb2
from behest.session.v1 import journal_service_pb2 as pb
from chassis.faults import PageTokenInvalid
from kit.store import event, events
from session_store.api import convert, convert_log
from session_store.domain.batch import Announcement, Batch, last_position, number_of, position_of
from session_store.domain.page import Cursor, cursor_token, page_token, read_cursor, read_page_token
from session_store.domain.session import RunId, SessionId, Tenant
from session_store.domain.usage import ModelUsage, Usage, total
from session_store.operations.broadcast import AHEAD, BUFFER, BUFFER_BYTES, Broadcaster, RunScope, SessionScope, Subscription, TenantScope
from session_store.operations.follow import Delivery
from session_store.operations.ports import Hint, News

TENANT, SESSION, RUN = Tenant("t"), SessionId("s"), RunId("r")


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=128), st.text(max_size=50))
def test_a_cursor_survives_its_token_and_belongs_to_its_query(created_at: float, id_: str, query: str) -> None:
    token = cursor_token(query, Cursor(created_at, id_))
    if len(token) <= 1024:
        assert read_cursor(query, token) == Cursor(created_at, id_)
        with pytest.raises(PageTokenInvalid):
            read_cursor(query + "x", token)
        with pytest.raises(PageTokenInvalid):
            read_page_token(query, token, int)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_of_tokens(token: str) -> None:
    try:
        read_page_token("q", token, int)
    except PageTokenInvalid:
        pass
    else:
        assert page_token("q", read_page_token("q", token, int)) == token


@given(st.integers(0, 1 << 50), st.integers(0, 4095))
def test_a_position_tells_its_batch(number: int, index: int) -> None:
    position = position_of(number, index)
    assert number_of(position) == number
    assert position <= last_position(number) < position_of(number + 1, 0)


@given(st.floats(0, 4e9))
def test_a_time_survives_the_wire_to_the_microsecond(moment: float) -> None:
    assert math.isclose(convert.seconds(convert.timestamp(moment)), moment, abs_tol=1e-6)


usages = st.builds(Usage, *[st.integers(0, 1 << 40)] * 6, st.booleans(), st.integers(0, 1000))


@pytest.mark.feature("S8")
@given(st.lists(st.builds(ModelUsage, st.text(max_size=5), st.text(max_size=5), usages), max_size=8))
def test_usage_survives_the_wire_and_adds_up(rows: list[ModelUsage]) -> None:
    response = convert.usage_response(rows)
    assert [convert.model_usage(row) for row in response.rows] == rows
    assert response.total.input_tokens == sum(row.usage.input_tokens for row in rows) == total(rows).input_tokens
    assert response.total.cost_known == all(row.usage.cost_known for row in rows)


def batch(number: int, first: int, count: int) -> Batch:
    data = convert_log._data(pb.FollowResponse(events=events("r", first, count)))
    return Batch(number, RUN, SESSION, first, first + count - 1, data)


def with_position(made: event_pb2.Event, batches: list[Batch]) -> event_pb2.Event:
    (home,) = [batch for batch in batches if batch.first <= made.sequence <= batch.last]
    made.position = position_of(home.number, made.sequence - home.first)
    return made


@pytest.mark.feature("S4")
@settings(max_examples=60)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_a_delivery_is_cut_at_any_place_by_sequence_or_position(counts: list[int], data: st.DataObject) -> None:
    batches, first = [], 1
    for number, count in enumerate(counts, 10):
        batches.append(batch(number, first, count))
        first += count
    whole = convert_log.follow_response(TENANT, Delivery(tuple(batches), 0), by_sequence=True).events
    assert list(whole) == [with_position(each, batches) for each in events("r", 1, first - 1, tenant="t")]
    cut = data.draw(st.integers(0, counts[0] - 1))
    by_sequence = convert_log.follow_response(TENANT, Delivery(tuple(batches), cut), by_sequence=True).events
    assert list(by_sequence) == list(whole[cut:])
    by_position = convert_log.follow_response(TENANT, Delivery(tuple(batches), whole[cut].position), by_sequence=False).events
    assert list(by_position) == list(whole[cut + 1 :])


def announce(number: int, first: int = 1, size: int = 1, ends: bool = False) -> Announcement:
    return Announcement(TENANT, Batch(number, RUN, SESSION, first, first, b"x" * size), ends)


async def test_a_batch_reaches_the_followers_of_its_run_session_and_tenant_only() -> None:
    broadcaster = Broadcaster()
    scopes = [RunScope(TENANT, RUN), SessionScope(TENANT, SESSION), TenantScope(TENANT)]
    foreign = [RunScope(Tenant("u"), RUN), SessionScope(Tenant("u"), SESSION), TenantScope(Tenant("u")), RunScope(TENANT, RunId("q"))]
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(broadcaster.subscribe(scope)) for scope in scopes]
        theirs = [stack.enter_context(broadcaster.subscribe(scope)) for scope in foreign]
        broadcaster.publish(announce(1))
        assert [len(await each.take()) for each in ours] == [1, 1, 1]
        assert not any(each._waiting or each.lagging for each in theirs)
    assert broadcaster.scopes == 0


@pytest.mark.feature("S5")
@pytest.mark.feature("O9")
@pytest.mark.parametrize("size", [1, BUFFER_BYTES // 4])
async def test_what_a_follower_has_not_taken_is_bounded(size: int) -> None:
    subscription = Subscription()
    for number in range(BUFFER * 2):
        subscription.offer(Batch(number, RUN, SESSION, number, number, b"x" * size))
        assert len(subscription._waiting) <= BUFFER and subscription._bytes <= BUFFER_BYTES + size
    assert subscription.lagging and await subscription.take() == []
    subscription.catch_up()
    subscription.offer(Batch(9, RUN, SESSION, 9, 9, b"x"))
    assert len(await subscription.take()) == 1


async def test_a_number_left_out_makes_everybody_read() -> None:
    broadcaster = Broadcaster()
    broadcaster.start_after(4)
    with broadcaster.subscribe(TenantScope(Tenant("other"))) as subscription:
        broadcaster.publish(announce(5))
        assert not subscription.lagging
        broadcaster.publish(announce(7))
        assert subscription.lagging
        subscription.catch_up()
        assert not broadcaster.heard_of(7) and not subscription.lagging
        assert broadcaster.heard_of(8) and subscription.lagging


async def test_a_closed_broadcaster_wakes_its_followers_and_later_ones() -> None:
    broadcaster = Broadcaster()
    with broadcaster.subscribe(TenantScope(TENANT)) as subscription:
        taking = asyncio.ensure_future(subscription.take())
        await asyncio.sleep(0)
        broadcaster.close()
        assert await taking == [] and subscription.closed
    with broadcaster.subscribe(TenantScope(TENANT)) as late:
        assert late.closed


def test_an_event_is_stored_with_fields_this_version_does_not_know_and_without_ids_that_its_batch_tells() -> None:
    foreign = b"\xa2\x3f\x03new"  # field 1012
    made = pb.AppendRequest(run_id="r", driver_id="d", epoch=1, expected_sequence=1)
    made.events.add().MergeFromString(event("r", 2, session_id="s", tenant="t").SerializeToString() + foreign)
    before = made.SerializeToString()
    entries = convert_log.append(TENANT, made).entries
    bare = event("", 2, session_id="", tenant="").SerializeToString() + foreign
    assert entries.data == b"\x0a" + bytes([len(bare)]) + bare
    assert made.SerializeToString() == before  # the sender's message is the sender's


@pytest.mark.feature("O9")
async def test_what_waits_for_a_batch_that_is_never_heard_of_is_bounded() -> None:
    broadcaster = Broadcaster(hears=True)
    with broadcaster.subscribe(SessionScope(TENANT, SESSION)) as subscription:
        for number in range(2, AHEAD + 2):
            broadcaster.publish(announce(number))
        assert not subscription.lagging
        broadcaster.publish(announce(AHEAD + 2))
        assert subscription.lagging
        subscription.catch_up()
        assert not broadcaster.heard_of(AHEAD + 2)


async def test_a_session_gets_batches_in_the_order_of_their_numbers_and_a_run_gets_them_as_they_come() -> None:
    broadcaster = Broadcaster(hears=True)
    elsewhere = Hint(News.APPENDED, TENANT, SessionId("elsewhere"), RunId("q"), 1)
    with broadcaster.subscribe(RunScope(TENANT, RUN)) as of_run, broadcaster.subscribe(SessionScope(TENANT, SESSION)) as of_session:
        broadcaster.publish(announce(2))
        assert len(await of_run.take()) == 1 and not of_session._waiting
        assert broadcaster.hear(elsewhere) and not broadcaster.hear(elsewhere)
        assert [batch.number for batch in await of_session.take()] == [2] and not of_session.lagging
