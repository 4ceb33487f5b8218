"""The session store over real carriers, and as its own process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from behest.session.v1 import journal_service_pb2 as pb
from behest.session.v1 import session_service_pb2 as session_pb
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from chassis import faults
from chassis.rpc import open_channel, open_server
from chassis.rpc.serve import ServerOptions
from chassis.settings import load
from chassis.world import World
from kit.ports import free_port
from kit.store import (
    ManualClock,
    Store,
    appending,
    assistant,
    cancelling,
    ending,
    open_driver,
    open_store,
    opening,
    queueing,
    read_log,
    read_messages,
    stored,
)
from session_store.app import open_app
from session_store.operations.broadcast import Broadcaster
from session_store.settings import SessionStoreSettings

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("services", "gen"))


@pytest.fixture(params=["grpc", "mux"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    settings = SessionStoreSettings(database=f"sqlite:{tmp_path / 'x.db'}", lease_ms=1000)
    async with (
        open_app(settings, World()) as app,
        open_server(app, "127.0.0.1:0", ServerOptions(grace=0.2)) as server,
        open_channel(server.address, request.param) as channel,
    ):
        await app.ready()
        yield Store(SessionServiceStub(channel), JournalServiceStub(channel), ManualClock(), None)  # type: ignore[arg-type]


@pytest.mark.feature("R1")
@pytest.mark.feature("S4")
@pytest.mark.feature("S6")
async def test_a_run_is_opened_driven_followed_and_ended_over_the_wire(store: Store) -> None:
    async with open_driver(store, room=5) as driver:
        opened = await store.journal.OpenRun(opening("r1", driver_id="d1"))
        assert opened.epoch == 1
        following = asyncio.ensure_future(collect(store, "r1"))
        await store.journal.Append(appending("r1", "d1", 1, 3, messages=[stored("m1", assistant("a"))]))
        await store.journal.OpenRun(queueing("r2"))
        with pytest.raises(faults.SessionBusy) as caught:
            await store.journal.OpenRun(opening("r3"))
        assert caught.value.metadata["run_id"] == "r1"
        await store.journal.RecordCommand(cancelling("r1"))
        assert list((await driver.hear()).wake_run_ids) == ["r1"]
        await store.journal.Append(ending("r1", "d1", 5, kind="run_cancelled"))
        assert [event.sequence for event in await asyncio.wait_for(following, 10)] == [1, 2, 3, 4, 5, 6]
        assert (await driver.assignment()).run_id == "r2"
        assert [message.id for message in await read_messages(store)] == ["r1-input", "m1", "r2-input"]


async def collect(store: Store, run_id: str) -> list[object]:
    return [event async for response in store.journal.Follow(pb.FollowRequest(run_id=run_id)) for event in response.events]


@pytest.mark.feature("R12")
async def test_a_cut_drivers_runs_are_handed_over_in_real_time(store: Store) -> None:
    async with open_driver(store, "alive", room=5) as alive:
        async with open_driver(store, "cut"):
            await store.journal.OpenRun(opening("r1", driver_id="cut"))
        started = time.monotonic()
        alive.say(room=5)
        renewing = asyncio.ensure_future(renew(alive))
        assert (await alive.assignment()).epoch == 2
        assert time.monotonic() - started < 3
        renewing.cancel()


async def renew(driver: object) -> None:
    while True:
        await asyncio.sleep(0.3)
        driver.say(room=5)  # type: ignore[attr-defined]


@pytest.mark.feature("S5")
@pytest.mark.feature("O9")
async def test_a_thousand_followers_of_one_run_see_it_whole_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broadcasters: list[Broadcaster] = []
    monkeypatch.setattr("session_store.app.Broadcaster", lambda: broadcasters.append(Broadcaster()) or broadcasters[-1])
    async with open_store("sqlite", tmp_path) as store, open_driver(store):
        await store.journal.OpenRun(opening("r1", driver_id="d1"))
        followers = [asyncio.ensure_future(collect(store, "r1")) for _ in range(1000)]
        await asyncio.sleep(0)
        for number in range(40):
            await store.journal.Append(appending("r1", "d1", 1 + number))
        leaving = followers[:100]
        for follower in leaving:
            follower.cancel()
        await store.journal.Append(ending("r1", "d1", 41))
        seen = await asyncio.wait_for(asyncio.gather(*followers[100:]), 30)
        whole = await read_log(store, "r1")
        assert len(whole) == 42 and all(each == whole for each in seen)
        await asyncio.gather(*leaving, return_exceptions=True)
        assert broadcasters[0].scopes == 0


@pytest.mark.feature("O1")
@pytest.mark.feature("O6")
async def test_the_service_runs_from_one_command_and_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    config = tmp_path / "behest.yaml"
    config.write_text(f"session_store: {{listen: '{address}', database: 'sqlite:{tmp_path}/x.db', durability: normal}}\n")
    for life in range(2):
        command = (sys.executable, "-m", "session_store", "--config", str(config))
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": PATHS}, stderr=asyncio.subprocess.PIPE)
        async with open_channel(address, "grpc") as channel:
            sessions = SessionServiceStub(channel)
            if life == 0:
                await answered(sessions.CreateSession, session_pb.CreateSessionRequest(session_id="s", title="T"))
            session = await answered(sessions.GetSession, session_pb.GetSessionRequest(session_id="s"))
            assert session.session.title == "T"
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, log.decode()


async def answered(call: object, request: object) -> object:
    """The answer, once the process listens."""
    for _ in range(200):
        try:
            return await call(request)  # type: ignore[operator]
        except faults.ServiceUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("the process never listened")


@pytest.mark.feature("O1")
@pytest.mark.parametrize("value", ["sqlite:", "memory", "postgres:x", "memory:x"])
def test_a_wrong_database_is_refused_by_name(value: str) -> None:
    with pytest.raises(faults.SettingsInvalid, match=r"session_store\.database.*sqlite:PATH, .*or memory:"):
        load("session_store", SessionStoreSettings, None, {"BEHEST__SESSION_STORE__DATABASE": value})


@pytest.mark.feature("O1")
def test_a_typo_in_a_setting_is_named_with_the_nearest_key() -> None:
    with pytest.raises(faults.SettingsInvalid, match="did you mean lease_ms"):
        load("session_store", SessionStoreSettings, None, {"BEHEST__SESSION_STORE__LEASE_M": "5"})
