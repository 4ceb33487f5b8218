"""The session store on a PostgreSQL that has bad days: nothing acknowledged is lost, nothing is done twice, and it goes on after."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from chassis import faults
from chassis.postgres import Durability, Server, writing
from chassis.postgres.writing import Writer
from kit.postgres import fresh_database, private_server
from kit.postgres_cut import Moment, open_commit_cut
from kit.store import Store, appending, as_tenant, assistant, ending, open_driver, open_store_on, opening, read_log, read_messages, stored
from session_store.adapters.postgres.hints import read_hints, write_hints
from session_store.adapters.postgres.storage import PostgresStorage, open_postgres_storage
from session_store.domain.session import DriverId, RunId, SessionId, Tenant
from session_store.operations.ports import Heard, Hint, News, Storage, Tables


@contextlib.asynccontextmanager
async def open_on(url: str, durability: Durability = "normal") -> AsyncIterator[Store]:
    """A store on a database."""
    async with open_postgres_storage(lambda: url, durability) as storage, open_store_on(storage) as store:
        yield store


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_database("session_store") as made:
        yield made


async def sequences(store: Store, run_id: str) -> list[int]:
    return [event.sequence for event in await read_log(store, run_id)]


async def numbers(storage: Storage, after: int = 0) -> list[int]:
    """The numbers of the tenant's batches."""
    batches = await storage.read(lambda tables: tables.batches.of_tenant("default", after + 1, 10_000, 1 << 30))  # type: ignore[arg-type]
    return [batch.number for batch in batches]


def writer_of(store: Store) -> Writer:
    assert isinstance(store.storage, PostgresStorage)
    return store.storage._database._writer


@pytest.mark.feature("S3")
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_transaction_whose_answer_is_cut_off_is_neither_lost_nor_done_twice(url: str, moment: Moment) -> None:
    async with open_commit_cut(url) as cut, open_on(cut.url(url)) as store, open_driver(store):
        cut.cut(moment)
        assert not (await store.journal.OpenRun(opening("r1", driver_id="d1"))).existed
        assert cut.cuts == 1
        assert await sequences(store, "r1") == [1]
        assert len(await read_messages(store)) == 1
        assert await numbers(store.storage) == [1]


@pytest.mark.feature("S3")
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_append_whose_answer_is_cut_off_is_neither_lost_nor_done_twice(url: str, moment: Moment) -> None:
    async with open_commit_cut(url) as cut, open_on(cut.url(url)) as store, open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        await store.journal.Append(appending("r1", "d1", 1))
        cut.cut(moment, mark=b"r1/3")
        assert (await store.journal.Append(appending("r1", "d1", 2, messages=[stored("m1", assistant("yes"))]))).sequence == 3
        assert cut.cuts == 1
        assert (await store.journal.Append(appending("r1", "d1", 3))).sequence == 4
        assert await sequences(store, "r1") == [1, 2, 3, 4]
        assert [message.position for message in await read_messages(store)] == [1, 2]
        assert await numbers(store.storage) == [1, 2, 3, 4]


async def test_a_statement_of_an_old_connection_that_arrives_late_changes_nothing(url: str) -> None:
    """The new connection raises the fence, which the old one's transactions look at first."""
    async with open_on(url) as store:
        writer = writer_of(store)
        old, fence = await writer.connect(), writer._fence
        writer._connection = None
        await store.storage.check()
        assert writer._fence > fence
        assert await old.fetch(writer.frame.entering, writer.id, fence, writer._token + 1) == []
        await old.close()


async def write_for_ever(store: Store, run: str, acknowledged: dict[str, int], enough: asyncio.Event) -> None:
    session = f"s-{run}"
    while not enough.is_set():
        try:
            after = acknowledged.get(run)
            if after is None:
                await store.journal.OpenRun(opening(run, session, driver_id="d1", request_id=run))
                acknowledged[run] = 1
            else:
                acknowledged[run] = (await store.journal.Append(appending(run, "d1", after, session_id=session))).sequence
        except faults.StorageUnavailable:
            continue


async def grows(acknowledged: dict[str, int], by: int) -> None:
    start = sum(acknowledged.values())
    while sum(acknowledged.values()) < start + by:
        await asyncio.sleep(0.01)


@pytest.mark.feature("S3")
async def test_a_server_that_is_killed_and_restarted_under_load_keeps_what_was_acknowledged() -> None:
    with private_server({"fsync": "on"}) as server:
        async with open_on(await server.database("session_store"), "full") as store, open_driver(store):
            acknowledged: dict[str, int] = {}
            enough = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for number in range(8):
                    tasks.create_task(write_for_ever(store, f"r{number}", acknowledged, enough))
                for _ in range(2):
                    await grows(acknowledged, 50)
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                await grows(acknowledged, 50)
                enough.set()
            for run, last in acknowledged.items():
                assert await sequences(store, run) == list(range(1, last + 1))
            assert await numbers(store.storage) == list(range(1, sum(acknowledged.values()) + 1))


async def test_a_replica_that_stands_still_inside_a_transaction_does_not_keep_the_others_waiting(url: str) -> None:
    async with open_on(url) as store, open_driver(store):
        paused = await Server(lambda: url).connect("paused")
        await paused.execute("BEGIN")
        await paused.fetch("SELECT 1 FROM counters FOR UPDATE")
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        assert await sequences(store, "r1") == [1]
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await paused.execute("COMMIT")


async def test_a_read_only_server_is_named_and_left_when_it_takes_writes_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    name = url.rpartition("/")[2]
    async with open_on(url) as store:
        admin = await asyncpg.connect(url)
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await end_others(admin)
        assert "takes no writes" in await refusal(store)
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await admin.close()
        await store.journal.OpenRun(opening("r1"))


async def refusal(store: Store) -> str:
    """Why the server refuses, once the store has made its broken connections again."""
    while True:
        with pytest.raises(faults.StorageUnavailable) as refused:
            await store.journal.OpenRun(opening("r1"))
        if "connection broke" not in refused.value.message:
            return refused.value.message


async def end_others(admin: asyncpg.Connection[asyncpg.Record]) -> None:
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_a_server_without_free_connections_is_named_and_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    name = url.rpartition("/")[2]
    async with open_on(url) as store:
        admin = await asyncpg.connect(url)
        await admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        await end_others(admin)
        assert "max_connections" in await refusal(store)
        await admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
        await admin.close()
        await store.journal.OpenRun(opening("r1"))


@pytest.mark.feature("S3")
async def test_two_replicas_that_write_the_same_run_in_turn_see_each_others_writes(url: str) -> None:
    """What each remembers of the run is old every time."""
    async with open_on(url) as one, open_on(url) as two, open_driver(one):
        await one.journal.OpenRun(opening("r1", driver_id="d1"))
        for after in range(1, 9):
            store = one if after % 2 else two
            request = appending("r1", "d1", after, messages=[stored(f"m{after}", assistant("x"))])
            assert (await store.journal.Append(request)).sequence == after + 1
            with pytest.raises(faults.SequenceConflict):
                await store.journal.Append(appending("r1", "d1", after + 5))
        assert await sequences(one, "r1") == list(range(1, 10))
        assert [message.position for message in await read_messages(two)] == list(range(1, 10))


@pytest.mark.feature("R12")
async def test_a_replica_that_remembers_an_old_lease_refuses_the_old_driver(url: str) -> None:
    async with open_on(url) as one, open_on(url) as two, open_driver(one):
        await one.journal.OpenRun(opening("r1", driver_id="d1"))
        await one.journal.Append(appending("r1", "d1", 1))
        await two.storage.write(lambda tables: tables.runs.take("d1", None))  # type: ignore[arg-type]
        with pytest.raises(faults.LeaseLost):
            await one.journal.Append(appending("r1", "d1", 2))
        assert await sequences(two, "r1") == [1, 2]


@pytest.mark.feature("S4")
async def test_whoever_reads_by_number_while_three_replicas_write_never_misses_a_batch(url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_on(url)) for _ in range(3)]
        await stack.enter_async_context(open_driver(stores[0]))
        done = asyncio.Event()

        async def write(store: Store, run: str) -> None:
            await store.journal.OpenRun(opening(run, f"s-{run}", driver_id="d1"))
            for after in range(1, 25):
                await store.journal.Append(appending(run, "d1", after, session_id=f"s-{run}"))
            await store.journal.Append(ending(run, "d1", 25, session_id=f"s-{run}"))

        async def read() -> list[int]:
            seen: list[int] = []
            while True:
                last = done.is_set()
                seen += await numbers(stores[0].storage, seen[-1] if seen else 0)
                if last:
                    return seen

        reading = asyncio.create_task(read())
        await asyncio.gather(*(write(store, f"r{index}-{run}") for index, store in enumerate(stores) for run in range(4)))
        done.set()
        assert await reading == list(range(1, 12 * 26 + 1))


@pytest.mark.feature("S9")
async def test_row_level_security_shows_a_tenant_its_own_rows_and_nobody_in_particular_none(url: str) -> None:
    async with open_on(url) as store:
        for tenant in ("a", "b"):
            request = opening(f"run-{tenant}", f"session-{tenant}", tenant=tenant, request_id="q")
            with as_tenant(tenant):
                await store.journal.OpenRun(request)
        connection = await asyncpg.connect(url)
        guarded = await connection.fetch("SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity AND relkind = 'r'")
        kept = await connection.fetch(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant' AND table_schema = current_schema()"
        )
        assert {row[0] for row in kept} <= {row[0] for row in guarded}
        filled = set()
        for (table,) in guarded:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
            await connection.execute("SELECT set_config('behest.tenant', 'a', false)")
            tenants = {row[0] for row in await connection.fetch(f"SELECT DISTINCT tenant FROM {table}")}
            assert tenants <= {"a"}
            filled |= {table} if tenants else set()
            await connection.execute("SELECT set_config('behest.tenant', '', false)")
        assert {"sessions", "runs", "batches", "messages", "requests"} <= filled
        await connection.close()


async def test_a_conflict_of_transactions_is_tried_again_and_nobody_hears_of_it(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("""
        CREATE SEQUENCE tries;
        CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('tries') < 3 THEN RAISE EXCEPTION 'in the way' USING ERRCODE = '40001'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER conflict BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION conflict();
    """)
    async with open_on(url) as store:
        await store.journal.OpenRun(opening("r1"))
        assert await sequences(store, "r1") == [1]
    assert await connection.fetchval("SELECT last_value FROM tries") == 3
    await connection.close()


async def test_a_work_that_fails_after_it_wrote_leaves_nothing_and_spoils_no_other(url: str) -> None:
    async with open_on(url) as store:

        def defect(tables: Tables) -> None:
            tables.leases.remove("d")  # type: ignore[arg-type]
            tables.batches.add("default", 1, 1, 1, 1, b"x")  # type: ignore[arg-type]
            raise ZeroDivisionError

        wishes = [store.storage.write(defect), store.journal.OpenRun(opening("r1", "s1")), store.journal.OpenRun(opening("r2", "s2"))]
        failed, *opened = await asyncio.gather(*wishes, return_exceptions=True)
        assert isinstance(failed, ZeroDivisionError)
        assert not [each for each in opened if isinstance(each, BaseException)]
        assert await numbers(store.storage) == [1, 2]


async def test_a_text_that_postgresql_cannot_store_is_refused_by_its_caller(url: str) -> None:
    async with open_on(url) as store:
        with pytest.raises(faults.RequestInvalid, match="zero character"):
            await store.journal.OpenRun(opening("r1", request_id="a\0b"))


async def test_a_schema_that_was_not_made_is_said_with_the_command_to_run() -> None:
    async with fresh_database() as empty:
        with pytest.raises(faults.SchemaTooOld, match="behest migrate"):
            async with open_postgres_storage(lambda: empty):
                pass


async def test_an_ordinary_append_is_one_statement(url: str) -> None:
    """Else it is right all the same, and three times as slow."""
    async with open_on(url) as store, open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        await store.journal.Append(appending("r1", "d1", 1))
        connection, said = await writer_of(store).connect(), list[str]()
        connection.add_query_logger(lambda record: said.append(record.query))
        await store.journal.Append(appending("r1", "d1", 2, messages=[stored("m1", assistant("yes"))]))
        await store.journal.Append(appending("r1", "d1", 3))
        assert len([query for query in said if "INSERT INTO batches" in query]) == 2
        assert "BEGIN" not in said
        assert await sequences(store, "r1") == [1, 2, 3, 4]


def test_hints_carry_their_numbers_wherever_the_commit_put_them_and_own_ones_are_not_heard() -> None:
    hints = [Hint(News.APPENDED, Tenant("t"), SessionId("s"), RunId("r"), 8, DriverId("d")), Hint(News.DUE)]
    said = f"40 {write_hints('w1', hints, 7)}"
    heard = read_hints(said, "w2")
    assert heard is not None and not heard.missed
    assert [(hint.run_id, hint.number, hint.news) for hint in heard.hints] == [("r", 41, News.APPENDED), ("", 0, News.DUE)]
    assert read_hints(said, "w1") is None
    assert read_hints("nonsense", "w1") == Heard(missed=True)
    crowd = write_hints("w1", hints * 500, 7)
    assert len(crowd) < 8000
    assert read_hints(f"0 {crowd}", "w2") == Heard(missed=True)
