"""A session leaves one store as a file and comes into another as it was: whole or not at all, on and between all backends."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from behest.session.v1 import export_pb2
from behest.session.v1 import journal_service_pb2 as journal_pb
from behest.session.v1 import session_service_pb2 as pb
from chassis import faults
from chassis.world import World
from kit.store import (
    BACKENDS,
    CountingIds,
    Store,
    appending,
    as_tenant,
    assistant,
    ending,
    open_driver,
    open_store,
    opening,
    read_log,
    ticks,
    user,
)
from kit.store_history import TOOL_TURN, Holding, Turn, holding, statistics, write_run
from session_store.api.convert_export import FORMAT, MAGIC, Writer, _read_varint, _varint
from session_store.domain.session import Session, SessionId, Tenant
from session_store.domain.transfer import copied_id
from session_store.operations.exporting import Exporting
from session_store.operations.importing import Importing

PAIRS = list(itertools.product(sorted(BACKENDS), repeat=2))


async def fill(store: Store, session_id: str = "s") -> None:
    """Runs that ended in every way, turns with tools, messages of runs and of nobody, labels, a title."""
    labels = {"b": "2", "a": "1", "ä": "ö"}
    await store.sessions.CreateSession(pb.CreateSessionRequest(session_id=session_id, title="T", metadata=labels))
    await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id=session_id, messages=[user("before"), assistant("hi")]))
    async with open_driver(store):
        await write_run(store, "r1", session_id, TOOL_TURN, Turn(model="n"))
        store.clock.advance(1.25)
        await write_run(store, "r2", session_id, Turn(), end="run_failed")
        await write_run(store, "r3", session_id, end="run_cancelled")
    session = (await store.sessions.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    session.title = "U"
    await store.sessions.UpdateSession(pb.UpdateSessionRequest(session=session))


async def exported(store: Store, session_id: str = "s") -> bytes:
    call = store.sessions.ExportSession(pb.ExportSessionRequest(session_id=session_id))
    return b"".join([response.data async for response in call])


async def imported(store: Store, data: bytes, session_id: str = "", size: int = 1000) -> pb.ImportSessionResponse:
    return await store.sessions.ImportSession(pieces(data, session_id, size))  # type: ignore[no-any-return]


async def pieces(data: bytes, session_id: str = "", size: int = 1000) -> AsyncIterator[pb.ImportSessionRequest]:
    for start in range(0, len(data), size):
        yield pb.ImportSessionRequest(session_id="" if start else session_id, data=data[start : start + size])


def records(data: bytes) -> list[export_pb2.ExportRecord]:
    found, rest = [], bytearray(data)
    while rest:
        length, start = _read_varint(rest)
        found.append(export_pb2.ExportRecord.FromString(bytes(rest[start : start + length])))
        del rest[: start + length]
    return found


def framed(made: Iterable[export_pb2.ExportRecord]) -> bytes:
    """A file of records, with the checksum that belongs to them."""
    data = b""
    for record in made:
        if record.WhichOneof("kind") == "end":
            record.end.sha256 = hashlib.sha256(data).digest()
        body = record.SerializeToString()
        data += _varint(len(body)) + body
    return data


def content(data: bytes) -> list[bytes]:
    """The file without what differs between two exports of the same: when it was made, when the session was last changed."""
    found = records(data)
    found[0].header.ClearField("exported_at")
    found[0].header.session.ClearField("updated_at")
    return [record.SerializeToString(deterministic=True) for record in found[:-1]]


async def nothing_is_left(store: Store, session_id: str = "s") -> None:
    with pytest.raises(faults.SessionNotFound):
        await store.sessions.GetSession(pb.GetSessionRequest(session_id=session_id))
    assert (await statistics(store)).runs == 0
    assert await store.storage.write(lambda tables: tables.sessions.sweep(1e12, 100, None)) == 0


@pytest.mark.feature("S13")
@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_a_session_is_the_same_in_another_store_and_exports_to_the_same_file(source: str, target: str, tmp_path: Path) -> None:
    async with open_store(source, tmp_path / "a") as one, open_store(target, tmp_path / "b") as two:
        await fill(one)
        before, data = await holding(one), await exported(one)
        for other in ("x", "y"):  # the other store's keys and numbers are other ones
            await two.sessions.CreateSession(pb.CreateSessionRequest(session_id=other))
        answer = await imported(two, data)
        assert await holding(two) == before
        assert content(await exported(two)) == content(data)
        assert (answer.counts.messages, answer.counts.runs) == (len(before.messages), len(before.runs)) == (11, 3)
        assert answer.counts.events == sum(len(log) for log in before.logs.values())


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()


@pytest.mark.feature("S13")
async def test_a_session_of_many_pages_comes_whole_in_pieces_of_any_size(store: Store) -> None:
    await store.sessions.CreateSession(pb.CreateSessionRequest(session_id="s"))
    for page in range(4):
        messages = [assistant(f"{page}-{number}" + "x" * 2000) for number in range(25)]
        await store.sessions.AppendMessages(pb.AppendMessagesRequest(session_id="s", messages=messages))
    async with open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        for after in range(1, 600, 2):
            await store.journal.Append(appending("r1", "d1", after, 2))
        await store.journal.Append(ending("r1", "d1", 601))
    before, data = await holding(store), await exported(store)
    assert len(data) > 2 * 64 * 1024
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    for size in (7_001, 1 << 20):
        await imported(store, data, size=size)
        assert await holding(store) == before
        await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))


@pytest.mark.feature("S13")
async def test_an_imported_session_goes_on_as_any_other(store: Store) -> None:
    await fill(store)
    data = await exported(store)
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    await imported(store, data)
    before = await holding(store)
    async with open_driver(store, room=9) as driver:
        await ticks(store)
        assert not driver.assigned
        await write_run(store, "r4", "s", TOOL_TURN)
    after = await holding(store)
    assert after.messages[: len(before.messages)] == before.messages and len(after.messages) == len(before.messages) + 5
    assert after.logs["r1"] == before.logs["r1"]
    call = store.journal.Follow(journal_pb.FollowRequest(session_id="s", replay_only=True))
    feed = [(each.run_id, each.sequence) async for response in call for each in response.events]
    assert feed == [(run, event.sequence) for run in ("r1", "r2", "r3", "r4") for event in after.logs[run]]


@pytest.mark.feature("S13")
@pytest.mark.feature("S8")
async def test_an_import_counts_in_its_session_and_not_in_its_tenants_sums_and_is_no_news(store: Store) -> None:
    await fill(store)
    sums, usage, data = await statistics(store), await store.sessions.GetUsage(pb.GetUsageRequest()), await exported(store)
    last = await store.storage.read(lambda tables: tables.batches.last_number())
    await imported(store, data, "copy")
    assert await statistics(store) == sums
    assert await store.sessions.GetUsage(pb.GetUsageRequest()) == usage
    assert (await statistics(store, session_id="copy")).runs == 3
    feed = store.journal.Follow(journal_pb.FollowRequest(tenant=True, replay_only=True))
    assert {each.session_id async for response in feed for each in response.events} == {"s"}
    assert await store.storage.read(lambda tables: tables.outbox.due(255, last, last + 1000, 1000, 1 << 30)) == []
    for session in ("copy", "s"):
        await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id=session))
        assert await statistics(store) == sums
        assert await store.sessions.GetUsage(pb.GetUsageRequest()) == usage


@pytest.mark.feature("S13")
async def test_a_copy_has_new_run_ids_and_leaves_the_original_alone(store: Store) -> None:
    await fill(store)
    before, data = await holding(store), await exported(store)
    await imported(store, data, "copy")
    copy = await holding(store, "copy")
    assert await holding(store) == before
    assert not {run.id for run in copy.runs} & {"r1", "r2", "r3"}
    assert all(uuid.UUID(run.id).version == 7 for run in copy.runs)
    assert strip(copy) == strip(before)
    with pytest.raises(faults.SessionExists):
        await imported(store, data, "copy")


def strip(held: Holding) -> list[object]:
    """What a session holds, without its name and its runs'."""
    runs = sorted(held.runs, key=lambda run: (run.created_at.ToNanoseconds(), run.state))
    order = [run.id for run in runs]
    logs = [[without(each, "run_id", "session_id") for each in held.logs[run]] for run in order]
    messages = [(order.index(each.run_id) if each.run_id else None, without(each, "run_id")) for each in held.messages]
    return [without(held.session, "id"), messages, [without(run, "id", "session_id") for run in runs], logs, held.usage, held.statistics]


def without(message: object, *names: str) -> object:
    copy = type(message)()
    copy.CopyFrom(message)  # type: ignore[attr-defined]
    for name in names:
        copy.ClearField(name)  # type: ignore[attr-defined]
    return copy


@pytest.mark.feature("S13")
async def test_the_session_is_the_importers(store: Store) -> None:
    with as_tenant("one"):
        await store.sessions.CreateSession(pb.CreateSessionRequest(session_id="s"))
        async with open_driver(store):
            await write_run(store, "r1", "s", TOOL_TURN, tenant="one")
        data = await exported(store)
    with as_tenant("two"):
        await imported(store, data)
        assert {each.tenant for each in await read_log(store, "r1")} == {"two"}
    with as_tenant("three"), pytest.raises(faults.RunNotFound):
        await read_log(store, "r1")
    with as_tenant("two"), pytest.raises(faults.SessionExists):
        await imported(store, data)


@pytest.mark.feature("S13")
async def test_an_import_of_what_exists_is_refused_and_changes_nothing(store: Store) -> None:
    await fill(store)
    before, data = await holding(store), await exported(store)
    with pytest.raises(faults.SessionExists, match="new id"):
        await imported(store, data)
    made = records(data)
    made[0].header.session.id = "other"
    with pytest.raises(faults.SessionExists, match="run 'r1'"):
        await imported(store, framed(made))
    assert await holding(store) == before
    assert await store.storage.write(lambda tables: tables.sessions.sweep(1e12, 100, None)) == 0


async def test_a_session_that_comes_into_being_during_the_import_wins(store: Store) -> None:
    await fill(store)
    data = await exported(store)
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))

    async def slow() -> AsyncIterator[pb.ImportSessionRequest]:
        async for piece in pieces(data):
            yield piece
        await store.sessions.CreateSession(pb.CreateSessionRequest(session_id="s"))

    with pytest.raises(faults.SessionExists):
        await store.sessions.ImportSession(slow())
    assert (await holding(store)).runs == []


@pytest.mark.feature("S13")
async def test_a_busy_session_is_not_exported(store: Store) -> None:
    async with open_driver(store):
        writing = await write_run(store, "r1", "s", end="")
        with pytest.raises(faults.SessionBusy):
            await exported(store)
        await writing.end()
        assert len(records(await exported(store))) > 2
    with pytest.raises(faults.SessionNotFound):
        await exported(store, "t")


@pytest.mark.feature("S13")
async def test_what_happens_during_an_export_is_not_in_it(store: Store) -> None:
    await fill(store)
    before = content(await exported(store))
    call = store.sessions.ExportSession(pb.ExportSessionRequest(session_id="s"))

    call.cancel()
    found = Exporting(store.storage).export(Tenant("default"), SessionId("s"))
    parts = [await anext(found)]
    async with open_driver(store):
        await write_run(store, "late", "s", TOOL_TURN)
    parts += [part async for part in found]
    writer = Writer(0.0)
    assert content(b"".join([*map(writer.write, parts), writer.close()])) == before


@pytest.mark.feature("S13")
async def test_a_file_that_was_cut_is_refused_and_leaves_nothing(store: Store) -> None:
    await fill(store)
    data = await exported(store)
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    sums = await statistics(store)
    rng = random.Random(1)
    for end in [0, 1, len(data) - 1, *(rng.randrange(len(data)) for _ in range(12))]:
        with pytest.raises(faults.ExportDamaged, match="cut off"):
            await imported(store, data[:end])
    assert await statistics(store) == sums
    await imported(store, data)


@pytest.mark.feature("S13")
async def test_a_file_that_was_changed_anywhere_is_refused_and_leaves_nothing(store: Store) -> None:
    await fill(store)
    data = await exported(store)
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    sums = await statistics(store)
    rng = random.Random(2)
    for _ in range(30):
        changed = bytearray(data)
        place = rng.randrange(len(data))
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises((faults.ExportDamaged, faults.RequestInvalid, faults.ExportTooNew)):
            await imported(store, bytes(changed))
    assert await statistics(store) == sums
    with pytest.raises(faults.SessionNotFound):
        await holding(store)
    assert await store.storage.write(lambda tables: tables.sessions.sweep(1e12, 100, None)) == 0


def change(kind: str, number: int = 0):  # type: ignore[no-untyped-def]
    """The record of a kind among many."""

    def find(made: list[export_pb2.ExportRecord]) -> export_pb2.ExportRecord:
        return [record for record in made if record.WhichOneof("kind") == kind][number]

    return find


def set_(path: str, value: object):  # type: ignore[no-untyped-def]
    kind, *names, last = path.split(".")

    def act(made: list[export_pb2.ExportRecord]) -> None:
        target = getattr(change(kind)(made), kind)
        for name in names:
            target = getattr(target, name)
        setattr(target, last, value)

    return act


WRONG = {
    "another magic": set_("header.magic", "cake"),
    "no header": lambda made: made.pop(0),
    "two headers": lambda made: made.insert(1, made[0]),
    "no end": lambda made: made.pop(),
    "something behind the end": lambda made: made.append(made[1]),
    "a run that has not ended": set_("run.run.state", 2),
    "a run that ended otherwise": set_("run.run.state", 4),
    "a run with more events than there are": set_("run.run.sequence", 99),
    "a run without its record": lambda made: made.remove(change("run")(made)),
    "a run twice": lambda made: made.insert(1, change("run")(made)),
    "a run twice, the second later": lambda made: made.insert(-1, change("run")(made)),
    "events missing": lambda made: made.remove(change("events", 1)(made)),
    "events twice": lambda made: made.insert(3, change("events")(made)),
    "events of nobody": set_("events.run_id", "nobody"),
    "events that are none": set_("events.entries", b"\xff\xff"),
    "more events than said": set_("events.last", 7),
    "a message missing": lambda made: change("messages")(made).messages.messages.pop(),
    "a message of nobody": lambda made: setattr(change("messages")(made).messages.messages[3], "run_id", "nobody"),
    "counts that do not hold": set_("end.counts.events", 3),
    "messages said to be fewer": set_("end.counts.messages", 3),
}


@pytest.mark.feature("S13")
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_a_file_with_the_right_checksum_that_is_no_session_is_refused(backend: str, name: str, tmp_path: Path) -> None:
    async with open_store(backend, tmp_path / "a") as one, open_store(backend, tmp_path / "b") as two:
        await fill(one)
        made = records(await exported(one))
        WRONG[name](made)
        with pytest.raises(faults.ExportDamaged):
            await imported(two, framed(made), size=300)
        await nothing_is_left(two)


@pytest.mark.feature("S13")
async def test_a_newer_format_is_refused_and_unknown_fields_are_not(store: Store) -> None:
    await fill(store)
    made = records(await exported(store))
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    made[0].header.format = FORMAT + 1
    with pytest.raises(faults.ExportTooNew) as caught:
        await imported(store, framed(made))
    assert caught.value.metadata == {"found": str(FORMAT + 1), "known": str(FORMAT)}
    made[0].header.format = FORMAT
    unknown = export_pb2.ExportRecord()
    unknown.MergeFromString(bytes([0xA2, 0x06, 1, 7]))  # field 100
    made.insert(1, unknown)
    await imported(store, framed(made))
    assert made[0].header.magic == MAGIC


@pytest.mark.feature("S13")
async def test_an_import_that_is_under_way_is_seen_by_nobody_and_leaves_nothing_when_its_caller_goes(store: Store) -> None:
    await fill(store)
    data = await exported(store)
    await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id="s"))
    runs = (await statistics(store)).runs
    arrived, never = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[pb.ImportSessionRequest]:
        async for piece in pieces(data[:-10]):
            yield piece
        arrived.set()
        await never.wait()

    call = asyncio.create_task(as_coroutine(store.sessions.ImportSession(stuck())))
    await arrived.wait()
    with pytest.raises(faults.SessionNotFound):
        await holding(store)
    with pytest.raises(faults.RunNotFound):
        await read_log(store, "r1")
    assert not (await store.sessions.ListSessions(pb.ListSessionsRequest())).sessions
    assert (await statistics(store)).runs == runs
    await ticks(store, seconds=61)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await ticks(store)
    assert await store.storage.write(lambda tables: tables.sessions.sweep(1e12, 100, None)) == 0
    await imported(store, data)


async def as_coroutine(call: object) -> object:
    return await call  # type: ignore[misc]


@pytest.mark.feature("S13")
async def test_an_import_whose_process_died_is_swept_up_in_the_end(store: Store) -> None:
    from session_store.domain.session import SessionId, Tenant

    importing = Importing(store.storage, World(clock=store.clock, ids=CountingIds("x")), publishes=False)  # type: ignore[arg-type]
    await importing.begin(Session(Tenant("default"), SessionId("s"), 1.0, 2.0), SessionId(""))
    await ticks(store, 2, seconds=61)
    assert await store.storage.read(lambda tables: tables.sessions.next_tenant("")) is None
    await ticks(store, 3, seconds=1801)
    with pytest.raises(faults.SessionNotFound, match="s"):
        await importing.finish()


def test_ids_of_a_copy_are_uuids_of_version_7_one_for_each_run_and_copy() -> None:
    ids = {copied_id(seed, 1_700_000_000.0, run) for seed in "ab" for run in ("r1", "r2")}  # type: ignore[arg-type]
    assert len(ids) == 4 and {uuid.UUID(each).version for each in ids} == {7}
    assert copied_id("a", 1.0, "r1") == copied_id("a", 1.0, "r1")  # type: ignore[arg-type]
    assert {uuid.UUID(each).int >> 80 for each in ids} == {1_700_000_000_000}
