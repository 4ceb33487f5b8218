"""Schemas in PostgreSQL: brought forward by a command, demanded at start, refused when newer; old rows survive."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.database import Database
from chassis.faults import SchemaTooNew, SchemaTooOld, SettingsInvalid, StorageUnavailable
from chassis.migrations import Lineage, Schema, State, check, examine, migrate
from chassis.world import World
from kit.postgres import PASSWORD, fresh_database, private_server, require_postgres, url_of
from suite.composition import SuiteOptions
from suite.embedded import open_suite

pytestmark = [pytest.mark.feature("S9"), pytest.mark.usefixtures("postgres")]
ROOT = Path(__file__).parents[2]
SERVICES = ("session_store", "tool_executor", "provider_gateway")


@pytest.fixture(scope="module")
def postgres() -> None:
    require_postgres()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_database() as empty:
        yield empty


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def revision(folder: Path, number: int, sql: str) -> Lineage:
    """A lineage of a service of our own that has one revision more."""
    before = f'"{number - 1:04d}"' if number > 1 else "None"
    head = f"from chassis.migrations import run_script\nrevision, down_revision = '{number:04d}', {before}"
    text = f"{head}\ndef upgrade():\n    run_script({sql!r})\n"
    (folder / f"{number:04d}_more.py").write_text(text)
    return Lineage("toys", folder)


@pytest.mark.parametrize("service", SERVICES)
async def test_migrating_twice_is_migrating_once(url: str, service: str) -> None:
    lineage = Lineage.of(service)
    assert (await check(url, lineage)).state is State.BEHIND
    assert await migrate(url, lineage) == Schema(0, lineage.newest)
    assert await migrate(url, lineage) == Schema(lineage.newest, lineage.newest)
    assert (await check(url, lineage)).state is State.UP_TO_DATE


async def test_many_that_migrate_at_once_do_not_disturb_each_other(url: str) -> None:
    lineages = [Lineage.of(service) for service in SERVICES]
    await asyncio.gather(*(migrate(url, lineage) for lineage in lineages for _ in range(3)))
    assert [(await check(url, lineage)).state for lineage in lineages] == [State.UP_TO_DATE] * len(SERVICES)


async def test_old_rows_survive_a_migration(url: str, tmp_path: Path) -> None:
    await migrate(url, revision(tmp_path, 1, "CREATE TABLE toys (name text); INSERT INTO toys VALUES ('bear');"))
    async with connected(url) as connection:
        await connection.execute("INSERT INTO toys VALUES ('train; with $$ and :colon')")
    newer = revision(tmp_path, 2, "ALTER TABLE toys ADD price integer NOT NULL DEFAULT 7; CREATE INDEX ON toys (price);")
    assert await migrate(url, newer) == Schema(1, 2)
    async with connected(url) as connection:
        assert [tuple(row) for row in await connection.fetch("SELECT * FROM toys")] == [("bear", 7), ("train; with $$ and :colon", 7)]


async def test_a_migration_that_fails_leaves_the_schema_as_it_was(url: str, tmp_path: Path) -> None:
    await migrate(url, revision(tmp_path, 1, "CREATE TABLE toys (name text);"))
    revision(tmp_path, 2, "CREATE TABLE half (name text);")
    broken = revision(tmp_path, 3, "CREATE TABLE rest (name text); SELECT no_such_function();")
    with pytest.raises(Exception, match="no_such_function"):
        await migrate(url, broken)
    assert await check(url, broken) == Schema(1, 3)
    async with connected(url) as connection:
        assert await connection.fetchval("SELECT to_regclass('half')") is None


async def test_a_migration_gives_a_table_in_use_up_soon_instead_of_making_everybody_wait(url: str, tmp_path: Path) -> None:
    await migrate(url, revision(tmp_path, 1, "CREATE TABLE toys (name text);"))
    altering = revision(tmp_path, 2, "ALTER TABLE toys ADD price integer;")
    async with connected(url) as user, user.transaction():
        await user.fetch("SELECT * FROM toys")
        with pytest.raises(StorageUnavailable, match="lock was not given in time"):
            await migrate(url, altering)
    assert await migrate(url, altering) == Schema(1, 2)


async def test_a_newer_schema_is_refused_with_the_way_out(url: str) -> None:
    lineage = Lineage.of("tool_executor")
    await migrate(url, lineage)
    async with connected(url) as connection:
        await connection.execute("UPDATE tool_executor_migrations SET version_num = '0999'")
    with pytest.raises(SchemaTooNew, match=f"schema 999 .* knows {lineage.newest}; run the version that migrated it, or a newer one"):
        await migrate(url, lineage)
    with pytest.raises(SchemaTooNew, match="run the version that migrated it"):
        await start(url, Path("unused"))
    assert (await command("tool_executor", "migrate", "--check", DATABASE=url)).returncode == 1


async def start(url: str, folder: Path) -> None:
    """Opens a suite on the database, and closes it."""
    env = {f"BEHEST__{service.upper()}__DATABASE": "memory:" for service in SERVICES} | {"BEHEST__TOOL_EXECUTOR__DATABASE": url}
    async with open_suite(SuiteOptions(folder, local_model=False, log_level="error"), world=World(), env=env):
        pass


async def test_a_service_does_not_start_on_a_database_that_was_not_migrated_and_says_what_to_run(url: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaTooOld, match=r"no schema of tool_executor, this version needs .*; run `behest migrate`") as refused:
        await start(url, tmp_path)
    assert PASSWORD not in refused.value.message
    await migrate(url, Lineage.of("tool_executor"))
    await start(url, tmp_path)


async def command(*arguments: str, cwd: Path | None = None, **databases: str) -> subprocess.CompletedProcess[str]:
    """A command, its output free of the password."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("BEHEST__")}
    env["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in ("services", "gen"))
    env |= {name: url for name, url in databases.items() if name == "DATABASE_URL"}
    env |= {f"BEHEST__{service.upper()}__DATABASE": databases["DATABASE"] for service in SERVICES if "DATABASE" in databases}
    run = lambda: subprocess.run([sys.executable, "-m", *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=60)  # noqa: E731
    ended = await asyncio.to_thread(run)
    assert PASSWORD not in ended.stdout + ended.stderr
    return ended


@pytest.mark.feature("X2")
async def test_the_command_migrates_every_service_and_its_exit_code_tells_how_they_stand(url: str, tmp_path: Path) -> None:
    looked = await command("suite", "migrate", "--check", cwd=tmp_path, DATABASE=url)
    assert looked.returncode == 1 and [json.loads(line)["state"] for line in looked.stdout.splitlines()] == ["behind"] * len(SERVICES)
    refused = await command("suite", "up", "--no-local-model", cwd=tmp_path, DATABASE=url)
    assert refused.returncode == 1 and "run `behest migrate`" in refused.stderr
    done = await command("suite", "migrate", cwd=tmp_path, DATABASE=url)
    assert done.returncode == 0 and "migrated from schema 0" in done.stdout
    assert (await command("suite", "migrate", "--check", cwd=tmp_path, DATABASE=url)).returncode == 0
    async with connected(url) as connection:
        await connection.execute("UPDATE session_store_migrations SET version_num = '0999'")
    ahead = await command("suite", "migrate", "--check", "--no-json", cwd=tmp_path, DATABASE=url)
    assert ahead.returncode == 1 and "ahead; run the version that migrated it" in ahead.stdout


@pytest.mark.parametrize("service", SERVICES)
async def test_an_image_of_one_service_migrates_its_own_schema_alone(url: str, service: str) -> None:
    assert (await command(service, "migrate", "--check", DATABASE=url)).returncode == 1
    assert (await command(service, "migrate", DATABASE=url)).returncode == 0
    assert (await command(service, "migrate", "--check", DATABASE=url)).returncode == 0
    assert [(await check(url, Lineage.of(other))).present for other in SERVICES if other != service] == [0, 0]


async def test_sqlite_needs_no_command(tmp_path: Path) -> None:
    ended = await command("suite", "migrate", "--check", cwd=tmp_path)
    assert ended.returncode == 0 and "makes or migrates it at start" in ended.stdout
    assert not (tmp_path / "x.db").exists()


def wrong_urls(url: str) -> Iterator[tuple[str, type[Exception], str]]:
    host = url.partition("@")[2]
    yield url.replace(PASSWORD, f"not-{PASSWORD}"), StorageUnavailable, "refuses the user or the password; correct them"
    yield f"{url}x", StorageUnavailable, "no such database; create it"
    yield f"postgresql://behest:{PASSWORD}@127.0.0.1:1/x", StorageUnavailable, "cannot be reached; is the server up"
    yield f"postgresql://behest:{PASSWORD}@127.0.0.1:123456/x", SettingsInvalid, "is no PostgreSQL address"
    yield f"postgresql://behest:a/{PASSWORD}@{host}", SettingsInvalid, "in a password %2F for /"


async def test_a_database_that_cannot_be_used_says_what_to_do_and_never_shows_the_password(url: str) -> None:
    for wrong, fault, said in wrong_urls(url):
        with pytest.raises(fault, match=said) as refused:
            await migrate(wrong, Lineage.of("tool_executor"))
        assert PASSWORD not in f"{refused.value} {refused.value.metadata} {refused.value.__cause__}"  # type: ignore[attr-defined]
        with pytest.raises(fault, match=said):
            await start(wrong, Path("unused"))


async def test_the_server_going_away_is_said_as_such() -> None:
    with private_server() as server:
        url = await server.database("tool_executor")
        server.kill()
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            await check(url, Lineage.of("tool_executor"))


@pytest.mark.feature("X2")
async def test_the_doctor_tells_of_schema_and_of_roles_that_see_all_tenants(url: str) -> None:
    lineage = Lineage.of("session_store")
    assert [ok for ok, _ in await examine(url, lineage)] == [False]
    await migrate(url, lineage)
    assert [ok for ok, _ in await examine(url, lineage)] == [True]
    as_superuser = url_of(url.rpartition("/")[2], user=None)
    found = await examine(as_superuser, lineage)
    assert [ok for ok, _ in found] == [True, None] and "only queries keep tenants apart" in found[1][1]


TABLES_WITH_TENANTS = """
    SELECT relname, relrowsecurity AND relforcerowsecurity AS kept, EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid) AS policy
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant'
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


async def test_every_table_with_tenants_shows_none_to_who_does_not_say_whose(url: str) -> None:
    for service in SERVICES:
        await migrate(url, Lineage.of(service))
    async with connected(url) as connection:
        with_tenants = await connection.fetch(TABLES_WITH_TENANTS)
    assert len(with_tenants) > 3
    assert [row["relname"] for row in with_tenants if not (row["kept"] and row["policy"])] == []


def test_every_revision_follows_the_one_before() -> None:
    for lineage in map(Lineage.of, SERVICES):
        numbers = sorted(path.name[:4] for path in lineage.folder.glob("0*.py"))
        assert numbers == [f"{number:04d}" for number in range(1, lineage.newest + 1)]
        for number, path in enumerate(sorted(lineage.folder.glob("0*.py")), 1):
            before = f'down_revision = "{number - 1:04d}"' if number > 1 else "down_revision = None"
            assert before in path.read_text() and f'revision = "{number:04d}"' in path.read_text()


@pytest.mark.feature("X2")
async def test_a_suite_is_brought_to_postgresql_as_the_configuration_page_says(url: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text().partition("## PostgreSQL")[2].partition("\n## ")[0]
    (tmp_path / "behest.yaml").write_text(page.partition("```yaml")[2].partition("```")[0])
    look, bring = [line.removeprefix("$ behest ").partition("#")[0].split() for line in page.splitlines() if line.startswith("$ behest ")]
    order = ["run", "hello", "--no-local-model"]
    for arguments, status in ((look, 1), (bring, 0), (look, 0), (order, 0)):
        ended = await command("suite", *arguments, cwd=tmp_path, DATABASE_URL=url)
        assert ended.returncode == status, ended.stderr
    assert not list(tmp_path.rglob("*.db"))


def test_a_database_is_equal_to_itself_alone() -> None:
    assert Database("memory:") == Database("memory:") != Database("sqlite:x")
