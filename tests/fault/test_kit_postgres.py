"""The PostgreSQL of the test kit does what fault tests rely on, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from kit.executor import until
from kit.postgres import PASSWORD, database_of, fresh_database, private_server, require_postgres

TESTS = Path(__file__).parents[1]
HOLD = """
import asyncio, sys
from kit.postgres import private_server
with private_server() as server:
    print(server.folder, server._pid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def postgres() -> None:
    require_postgres()


async def test_each_test_gets_a_database_of_its_own_as_a_role_that_row_security_binds() -> None:
    async with fresh_database("tool_executor") as one, fresh_database("tool_executor") as other:
        for url in (one, other):
            connection = await asyncpg.connect(url)
            assert await connection.fetchval("SELECT count(*) FROM executors") == 0
            await connection.execute("INSERT INTO executors VALUES ('a', 1)")
            role = await connection.fetchrow("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
            assert tuple(role) == (False, False)
            await connection.close()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(one)


async def test_a_folder_keeps_its_database(tmp_path: Path) -> None:
    first = await database_of(tmp_path, "tool_executor")
    (tmp_path / "other").mkdir()
    assert await database_of(tmp_path, "tool_executor") == first != await database_of(tmp_path / "other", "tool_executor")


async def test_a_server_may_be_killed_paused_and_started_again_and_keeps_what_was_committed() -> None:
    with private_server() as server:
        url = await server.database("tool_executor")
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO executors VALUES ('a', 1)")
        server.pause()
        with pytest.raises(TimeoutError):
            await connection.fetchval("SELECT 1", timeout=0.2)
        server.proceed()
        server.kill()
        with pytest.raises(OSError):
            await asyncpg.connect(url)
        server.start()
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT instance FROM executors") == "a"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url.replace(PASSWORD, "wrong"))


async def test_a_killed_test_run_leaves_no_server_behind() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in (TESTS, TESTS.parent / "services"))}
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, env=env, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    folder, pid = (await process.stdout.readline()).decode().split()
    assert Path(folder).exists() and lives(int(pid))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await until(lambda: not Path(folder).parent.exists() and not lives(int(pid)), 20)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
