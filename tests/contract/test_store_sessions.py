"""Sessions and messages behave alike on every backend."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from behest.chat.v1 import chat_pb2
from behest.session.v1 import session_pb2
from behest.session.v1 import session_service_pb2 as pb
from chassis import faults
from kit.store import Store, appending, as_tenant, assistant, ending, open_driver, opening, read_messages, ticks, user


async def create(store: Store, **values: object) -> session_pb2.Session:
    return (await store.sessions.CreateSession(pb.CreateSessionRequest(**values))).session  # type: ignore[arg-type]


@pytest.mark.feature("S1")
async def test_a_created_session_is_returned_whole_by_get(store: Store) -> None:
    made = await create(store, session_id="s", title="T", metadata={"a": "1", "ä": "ö"})
    got = (await store.sessions.GetSession(pb.GetSessionRequest(session_id="s"))).session
    assert got == made
    assert (got.title, dict(got.metadata), got.version, got.message_count, got.active_run_id) == ("T", {"a": "1", "ä": "ö"}, 1, 0, "")
    assert got.created_at.seconds == 1_700_000_000 and got.updated_at == got.created_at


async def test_a_session_without_an_id_gets_one(store: Store) -> None:
    assert (await create(store)).id == "id-00000001"


async def test_an_id_that_exists_is_refused(store: Store) -> None:
    await create(store, session_id="s")
    with pytest.raises(faults.SessionExists) as caught:
        await create(store, session_id="s")
    assert caught.value.metadata["session_id"] == "s"


@pytest.mark.feature("G6")
async def test_a_repeated_create_returns_the_same_session_even_at_once(store: Store) -> None:
    made = await asyncio.gather(*(create(store, request_id="r", title="T") for _ in range(8)))
    assert len({session.id for session in made}) == 1
    assert len((await store.sessions.ListSessions(pb.ListSessionsRequest())).sessions) == 1


async def test_a_request_id_with_another_payload_is_refused(store: Store) -> None:
    await create(store, request_id="r", title="T")
    with pytest.raises(faults.RequestIdReused):
        await create(store, request_id="r", title="U")


@pytest.mark.feature("O9")
async def test_a_request_id_is_forgotten_after_a_day(store: Store) -> None:
    first = await create(store, request_id="r")
    store.clock.advance(24 * 3600 + 1)
    while await store.storage.read(lambda tables: tables.requests.find("default", "create_session", "r")):  # type: ignore[arg-type]
        await ticks(store)
    assert (await create(store, request_id="r")).id != first.id


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("session_id", {"session_id": "no spaces"}),
        ("session_id", {"session_id": "x" * 129}),
        ("title", {"title": "x" * 501}),
        ("metadata", {"metadata": {str(n): "" for n in range(65)}}),
        ("metadata['k']", {"metadata": {"k": "v" * 1025}}),
        ("metadata['']", {"metadata": {"": "v"}}),
        ("request_id", {"request_id": "x" * 129}),
    ],
)
async def test_a_wrong_field_is_named(store: Store, field: str, values: dict[str, object]) -> None:
    with pytest.raises(faults.RequestInvalid) as caught:
        await create(store, **values)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.feature("S1")
async def test_sessions_are_listed_newest_first_in_pages_without_gap_or_repetition(store: Store) -> None:
    for number in range(7):
        await create(store, session_id=f"s{number}")
        if number % 2:
            store.clock.advance(1)
    seen, token = [], ""
    while True:
        page = await store.sessions.ListSessions(pb.ListSessionsRequest(page_size=3, page_token=token))
        seen += [session.id for session in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"s{number}" for number in reversed(range(7))]


async def test_a_session_made_between_two_pages_does_not_shift_them(store: Store) -> None:
    for number in range(4):
        await create(store, session_id=f"s{number}")
        store.clock.advance(1)
    first = await store.sessions.ListSessions(pb.ListSessionsRequest(page_size=2))
    await create(store, session_id="later")
    second = await store.sessions.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=first.next_page_token))
    assert [session.id for session in second.sessions] == ["s1", "s0"]


@pytest.mark.feature("G6")
@pytest.mark.parametrize("token", ["nonsense", "W10", "WzEsMl0", "ÿ", "x" * 5000, "e30", "bnVsbA"])
async def test_a_token_that_the_store_did_not_give_is_refused(store: Store, token: str) -> None:
    with pytest.raises(faults.PageTokenInvalid):
        await store.sessions.ListSessions(pb.ListSessionsRequest(page_token=token))


async def test_a_token_of_another_query_or_tenant_is_refused(store: Store) -> None:
    for number in range(3):
        await create(store, session_id=f"s{number}")
    token = (await store.sessions.ListSessions(pb.ListSessionsRequest(page_size=1))).next_page_token
    with pytest.raises(faults.PageTokenInvalid, match="another query"):
        await store.sessions.ListSessions(pb.ListSessionsRequest(page_size=1, page_token=token, metadata={"a": "1"}))
    with as_tenant("other"), pytest.raises(faults.PageTokenInvalid, match="another query"):
        await store.sessions.ListSessions(pb.ListSessionsRequest(page_size=1, page_token=token))


@pytest.mark.parametrize("size", [-1, 1001])
async def test_a_page_size_out_of_bounds_is_refused(store: Store, size: int) -> None:
    with pytest.raises(faults.RequestInvalid, match="page_size"):
        await store.sessions.ListSessions(pb.ListSessionsRequest(page_size=size))


@pytest.mark.feature("S1")
async def test_sessions_are_filtered_by_time_and_by_a_subset_of_labels(store: Store) -> None:
    start = int(store.clock.now())
    for number in range(4):
        await create(store, session_id=f"s{number}", metadata={"parity": str(number % 2), 'quoted"key': "it's"})
        store.clock.advance(10)

    async def listed(**values: object) -> list[str]:
        response = await store.sessions.ListSessions(pb.ListSessionsRequest(**values))  # type: ignore[arg-type]
        return [session.id for session in response.sessions]

    assert await listed(created_after=Timestamp(seconds=start + 10)) == ["s3", "s2", "s1"]
    assert await listed(created_before=Timestamp(seconds=start + 10)) == ["s0"]
    assert await listed(metadata={"parity": "1"}) == ["s3", "s1"]
    assert await listed(metadata={"parity": "1", 'quoted"key': "it's"}, created_before=Timestamp(seconds=start + 30)) == ["s1"]
    assert await listed(metadata={"parity": "2"}) == []


@pytest.mark.feature("S1")
async def test_an_update_changes_what_the_mask_names_and_nothing_else(store: Store) -> None:
    await create(store, session_id="s", title="T", metadata={"a": "1"})
    store.clock.advance(5)
    wish = session_pb2.Session(id="s", title="U", metadata={"b": "2"})
    changed = (await store.sessions.UpdateSession(pb.UpdateSessionRequest(session=wish, update_mask=FieldMask(paths=["title"])))).session
    assert (changed.title, dict(changed.metadata), changed.version) == ("U", {"a": "1"}, 2)
    assert changed.updated_at.seconds - changed.created_at.seconds == 5
    both = (await store.sessions.UpdateSession(pb.UpdateSessionRequest(session=wish))).session
    assert (both.title, dict(both.metadata), both.version) == ("U", {"b": "2"}, 3)


async def test_an_update_of_a_stale_version_is_refused(store: Store) -> None:
    await create(store, session_id="s")
    wish = pb.UpdateSessionRequest(session=session_pb2.Session(id="s", title="U", version=1))
    await store.sessions.UpdateSession(wish)
    with pytest.raises(faults.SessionChanged) as caught:
        await store.sessions.UpdateSession(wish)
    assert caught.value.metadata["version"] == "2"


async def test_an_update_of_a_field_that_cannot_change_is_refused(store: Store) -> None:
    await create(store, session_id="s")
    with pytest.raises(faults.RequestInvalid, match="update_mask"):
        await store.sessions.UpdateSession(
            pb.UpdateSessionRequest(session=session_pb2.Session(id="s"), update_mask=FieldMask(paths=["id"]))
        )


def rich_message() -> chat_pb2.Message:
    state = chat_pb2.OpaqueState(provider="anthropic", kind="signature", data=bytes(range(256)))
    parts = [
        chat_pb2.Part(text="téxt \0 nul"),
        chat_pb2.Part(json=b'{"a":1}'),
        chat_pb2.Part(image=chat_pb2.Blob(data=b"\x00\xff", media_type="image/png", name="n")),
        chat_pb2.Part(reasoning=chat_pb2.Reasoning(text="hm", state=state)),
        chat_pb2.Part(opaque=state),
    ]
    call = chat_pb2.ToolCall(id="c", name="t", arguments=b"not json", provider_state=[state])
    return chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, parts=parts, tool_calls=[call], provider_state=[state])


@pytest.mark.feature("S1")
@pytest.mark.feature("P2")
async def test_messages_keep_every_field_and_get_gapless_positions(store: Store) -> None:
    await create(store, session_id="s")
    given = [rich_message(), user("u"), assistant("a")]
    appended = (await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=given))).messages
    assert [message.position for message in appended] == [1, 2, 3]
    assert [message.message for message in await read_messages(store)] == given
    assert list(await read_messages(store)) == list(appended)
    assert (await store.sessions.GetSession(pb.GetSessionRequest(session_id="s"))).session.message_count == 3


@pytest.mark.feature("S1")
@pytest.mark.parametrize("newest_first", [False, True])
async def test_messages_page_both_ways_in_a_stable_order(store: Store, newest_first: bool) -> None:
    await create(store, session_id="s")
    await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user(str(n)) for n in range(7)]))
    seen, token = [], ""
    while True:
        request = pb.ListMessagesRequest(session_id="s", page_size=3, page_token=token, newest_first=newest_first)
        page = await store.sessions.ListMessages(request)
        seen += [message.position for message in page.messages]
        token = page.next_page_token
        if not token:
            break
        await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user("later")])) if newest_first else None
    assert seen == (list(range(7, 0, -1)) if newest_first else list(range(1, 8)))


@pytest.mark.feature("G6")
async def test_a_repeated_append_of_messages_adds_them_once(store: Store) -> None:
    await create(store, session_id="s")
    request = pb.AppendMessagesRequest(session_id="s", messages=[user("a"), user("b")], request_id="r")
    first, *others = await asyncio.gather(*(store.sessions.AppendMessages(request) for _ in range(5)))
    assert all(other == first for other in others)
    assert len(await read_messages(store)) == 2


async def test_concurrent_appends_keep_positions_gapless(store: Store) -> None:
    await create(store, session_id="s")
    requests = [pb.AppendMessagesRequest(session_id="s", messages=[user(f"{n}a"), user(f"{n}b")]) for n in range(20)]
    await asyncio.gather(*map(store.sessions.AppendMessages, requests))
    assert [message.position for message in await read_messages(store)] == list(range(1, 41))


async def test_messages_are_not_appended_beside_a_run(store: Store) -> None:
    await store.journal.OpenRun(opening("r1"))
    with pytest.raises(faults.SessionBusy) as caught:
        await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user("a")]))
    assert caught.value.metadata == {"session_id": "s", "run_id": "r1"}


async def test_a_message_that_nobody_speaks_is_refused(store: Store) -> None:
    await create(store, session_id="s")
    with pytest.raises(faults.RequestInvalid, match=r"messages\[1\].role"):
        await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user("a"), chat_pb2.Message()]))
    with pytest.raises(faults.RequestInvalid, match="messages"):
        await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s"))


async def test_an_unknown_session_is_named(store: Store) -> None:
    calls = (
        store.sessions.GetSession(pb.GetSessionRequest(session_id="x")),
        store.sessions.UpdateSession(pb.UpdateSessionRequest(session=session_pb2.Session(id="x"))),
        store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="x")),
        store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="x", messages=[user("a")])),
        store.sessions.ListMessages(pb.ListMessagesRequest(session_id="x")),
        store.sessions.GetUsage(pb.GetUsageRequest(session_id="x")),
    )
    for call in calls:
        with pytest.raises(faults.SessionNotFound) as caught:
            await call
        assert caught.value.metadata == {"session_id": "x"}


@pytest.mark.feature("S7")
async def test_a_deleted_session_is_gone_with_all_that_hung_on_it(store: Store) -> None:
    async with open_driver(store):
        await create(store, session_id="s", request_id="c")
        await store.journal.OpenRun(opening("r1", driver_id="d1", request_id="o"))
        await store.journal.Append(ending("r1", "d1", 1))
        await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
        with pytest.raises(faults.SessionNotFound):
            await store.sessions.GetSession(pb.GetSessionRequest(session_id="s"))
        await create(store, session_id="s", request_id="c")
        assert await read_messages(store) == []
        await store.journal.OpenRun(opening("r1", driver_id="d1", request_id="o"))
        assert [message.position for message in await read_messages(store)] == [1]


@pytest.mark.feature("S7")
async def test_a_session_with_a_run_under_way_is_not_deleted(store: Store) -> None:
    await store.journal.OpenRun(opening("r1"))
    with pytest.raises(faults.SessionBusy):
        await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    assert len(await read_messages(store)) == 1


def usage_row(model: str, tokens: int, *, known: bool = True) -> session_pb2.UsageRow:
    usage = chat_pb2.Usage(
        input_tokens=tokens, output_tokens=2 * tokens, cache_read_tokens=3, cache_write_tokens=4, reasoning_tokens=5, cost_nano_usd=6,
        cost_known=known, calls=1,
    )  # fmt: skip
    return session_pb2.UsageRow(provider="p", model=model, usage=usage)


async def used(store: Store, **scope: str) -> dict[str, tuple[int, int]]:
    response = await store.sessions.GetUsage(pb.GetUsageRequest(**scope))
    sums = {row.model: (row.usage.input_tokens, row.usage.calls) for row in response.rows}
    return {**sums, "total": (response.total.input_tokens, response.total.calls)}


@pytest.mark.feature("S8")
async def test_usage_sums_are_true_by_run_session_tenant_and_model(store: Store) -> None:
    async with open_driver(store):
        for run, session in (("r1", "s"), ("r2", "t")):
            await store.journal.OpenRun(opening(run, session, driver_id="d1"))
            await store.journal.Append(appending(run, "d1", 1, session_id=session, usage=[usage_row("m", 10), usage_row("n", 1)]))
            await store.journal.Append(appending(run, "d1", 2, session_id=session, usage=[usage_row("m", 5)]))
        assert await used(store, run_id="r1") == {"m": (15, 2), "n": (1, 1), "total": (16, 3)}
        assert await used(store, session_id="t") == {"m": (15, 2), "n": (1, 1), "total": (16, 3)}
        assert await used(store) == {"m": (30, 4), "n": (2, 2), "total": (32, 6)}
        with pytest.raises(faults.RunNotFound):
            await used(store, session_id="s", run_id="r2")


@pytest.mark.feature("S8")
async def test_a_tenants_usage_outlives_its_sessions_and_a_repeated_append_is_not_counted_twice(store: Store) -> None:
    async with open_driver(store):
        for run in ("r1", "r2"):
            await store.journal.OpenRun(opening(run, driver_id="d1"))
            request = appending(run, "d1", 1, usage=[usage_row("m", 10, known=run == "r1")])
            await store.journal.Append(request)
            await store.journal.Append(request)
            await store.journal.Append(ending(run, "d1", 2))
            await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    response = await store.sessions.GetUsage(pb.GetUsageRequest())
    assert (response.total.input_tokens, response.total.calls, response.total.cost_known) == (20, 2, False)


@pytest.mark.feature("S12")
async def test_tenants_do_not_see_each_others_sessions(store: Store) -> None:
    await create(store, session_id="s", title="mine", request_id="r")
    await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user("mine")]))
    with as_tenant("other"):
        for call in (
            store.sessions.GetSession(pb.GetSessionRequest(session_id="s")),
            store.sessions.ListMessages(pb.ListMessagesRequest(session_id="s")),
            store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s")),
            store.sessions.UpdateSession(pb.UpdateSessionRequest(session=session_pb2.Session(id="s", title="stolen"))),
            store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user("a")])),
        ):
            with pytest.raises(faults.SessionNotFound):
                await call
        assert not (await store.sessions.ListSessions(pb.ListSessionsRequest())).sessions
        assert (await create(store, session_id="s", title="theirs", request_id="r")).title == "theirs"
        await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    assert (await store.sessions.GetSession(pb.GetSessionRequest(session_id="s"))).session.title == "mine"
    assert len(await read_messages(store)) == 1


async def test_a_caller_who_leaves_harms_nobody(store: Store) -> None:
    await create(store, session_id="s")
    call = asyncio.ensure_future(store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user("a")])))
    await asyncio.sleep(0)
    call.cancel()
    with contextlib.suppress(BaseException):
        await call
    await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=[user("b")]))
    positions = [message.position for message in await read_messages(store)]
    assert positions == list(range(1, len(positions) + 1))
