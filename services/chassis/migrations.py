"""A service's schema in PostgreSQL: brought forward by `migrate`, looked at by `check`, demanded at start by `require_schema`.

The revisions of a service are its adapters/postgres/migrations/NNNN_name.py, each with one SQL script. They only ever add, and one that was
released is never changed. Which revision a database has stands in a table of the service's own, so services may share a database.
Alembic runs them; nothing else here imports it, for it costs a service 0.3 s at start.
"""

from __future__ import annotations

import asyncio
import enum
import importlib.util
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chassis import postgres_access
from chassis.database import shown
from chassis.faults import SchemaTooNew, SchemaTooOld
from chassis.postgres_access import ERRORS, Connection, postgres_fault, told_as_faults

if TYPE_CHECKING:
    import sqlalchemy

_REVISION = re.compile(r"(\d{4})_\w+\.py")
LOCK_SPACE = 0x6265_6865  # "behe": keeps our advisory locks apart from other programs'
LOCK_SECONDS = 60  # how long to wait for another migration
TABLE_SECONDS = 5  # and for a table in use: who waits for it makes everybody else wait too
CLOCK_SECONDS = 1.0  # a database's clock that differs by more is worth knowing


@dataclass(frozen=True, slots=True)
class Lineage:
    """The revisions of one service's schema."""

    service: str
    folder: Path

    @classmethod
    def of(cls, service: str) -> Lineage:
        """The revisions of a service by its package, such as session_store."""
        spec = importlib.util.find_spec(service)
        assert spec is not None and spec.origin is not None, f"no package {service}"
        return cls(service, Path(spec.origin).parent / "adapters" / "postgres" / "migrations")

    @property
    def version_table(self) -> str:
        """The table that holds the database's revision."""
        return f"{self.service}_migrations"

    @property
    def newest(self) -> int:
        """The newest revision that this version knows."""
        return max(int(found[1]) for path in self.folder.iterdir() if (found := _REVISION.fullmatch(path.name)))

    @property
    def command(self) -> str:
        """What brings a database forward."""
        return f"`behest migrate`, or `python -m {self.service} migrate` where only this service is installed"


class State(enum.Enum):
    """How a database's schema compares with this version."""

    UP_TO_DATE = "up to date"
    BEHIND = "behind"
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True)
class Schema:
    """The revision that a database has, 0 for none, and the newest that this version knows."""

    present: int
    newest: int

    @property
    def state(self) -> State:
        """How they compare."""
        if self.present == self.newest:
            return State.UP_TO_DATE
        return State.BEHIND if self.present < self.newest else State.AHEAD


async def check(url: str, lineage: Lineage) -> Schema:
    """Which schema a database has. Raises StorageUnavailable."""
    connection = await postgres_access.connect(url, "behest-migrate")
    try:
        with told_as_faults(shown(url)):
            return await read_schema(connection, lineage)
    finally:
        await connection.close()


async def read_schema(connection: Connection, lineage: Lineage) -> Schema:
    """Which schema a connection's database has."""
    if await connection.fetchval("SELECT to_regclass($1)", lineage.version_table) is None:
        return Schema(0, lineage.newest)
    present = await connection.fetchval(f"SELECT version_num FROM {lineage.version_table}")  # noqa: S608 — our own name
    return Schema(int(present or 0), lineage.newest)


async def examine(url: str, lineage: Lineage) -> list[tuple[bool | None, str]]:
    """How a database stands, for a person: what is right (True), wrong (False) or worth knowing (None). Raises StorageUnavailable."""
    connection = await postgres_access.connect(url, "behest-doctor")
    try:
        with told_as_faults(shown(url)):
            schema = await read_schema(connection, lineage)
            ahead_by, bypasses = await connection.fetchrow(_ABOUT) or (0.0, False)
    finally:
        await connection.close()
    found = [_schema_finding(schema, lineage, shown(url))]
    if bypasses:
        text = "the role is a superuser or bypasses row-level security, so only queries keep tenants apart; use a role without either"
        found.append((None, text))
    ahead_by -= time.time()
    if abs(ahead_by) > CLOCK_SECONDS:
        found.append(
            (None, f"the database's clock differs by {ahead_by:+.1f} s; leases go by it, but times in logs will not agree; set NTP up")
        )
    return found


_ABOUT = """
    SELECT extract(epoch FROM clock_timestamp())::float8, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user
"""


def _schema_finding(schema: Schema, lineage: Lineage, where: str) -> tuple[bool | None, str]:
    if schema.state is State.UP_TO_DATE:
        return True, f"{where} answers and has schema {schema.present}, the newest"
    return False, (too_old if schema.state is State.BEHIND else too_new)(lineage, where, schema).message


async def require_schema(connection: Connection, lineage: Lineage, where: str) -> None:
    """Raises SchemaTooOld or SchemaTooNew, with what to do, when the schema is not what this version needs; StorageUnavailable."""
    with told_as_faults(where):
        schema = await read_schema(connection, lineage)
    if schema.state is State.BEHIND:
        raise too_old(lineage, where, schema)
    if schema.state is State.AHEAD:
        raise too_new(lineage, where, schema)


def too_old(lineage: Lineage, where: str, schema: Schema) -> SchemaTooOld:
    """The fault that names the command to run."""
    has = f"schema {schema.present} of {lineage.service}" if schema.present else f"no schema of {lineage.service}"
    text = f"the database {where} has {has}, this version needs {schema.newest}; run {lineage.command}"
    return SchemaTooOld(text, metadata={"found": str(schema.present), "needed": str(schema.newest)})


def too_new(lineage: Lineage, where: str, schema: Schema) -> SchemaTooNew:
    """The fault that names the way out."""
    text = f"the database {where} has schema {schema.present} of {lineage.service}, this version knows {schema.newest}"
    remedy = "run the version that migrated it, or a newer one"
    return SchemaTooNew(f"{text}; {remedy}", metadata={"found": str(schema.present), "known": str(schema.newest)})


async def migrate(url: str, lineage: Lineage) -> Schema:
    """Brings the schema to the newest revision and returns what it was before. All revisions are one transaction.

    Two at once wait for each other and the second finds nothing to do. Raises StorageUnavailable, SchemaTooNew.
    """
    before = await check(url, lineage)
    if before.state is State.AHEAD:
        raise too_new(lineage, shown(url), before)
    if before.state is State.BEHIND:
        await asyncio.to_thread(_run_alone, url, lineage)
    return before


_ALEMBIC = threading.Lock()  # it keeps what runs at the moment in globals


def _run_alone(url: str, lineage: Lineage) -> None:
    with _ALEMBIC:
        asyncio.run(_run(url, lineage))


async def _run(url: str, lineage: Lineage) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def connect() -> Connection:
        return await postgres_access.connect(url, "behest-migrate", server_settings={"lock_timeout": f"{LOCK_SECONDS}s"})

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, lineage)
    except Exception as error:
        raise _cause(error, shown(url)) from error
    finally:
        await engine.dispose()


def _cause(error: BaseException, where: str) -> BaseException:
    """The fault behind SQLAlchemy's wrapping."""
    inner: BaseException | None = error
    while inner is not None:
        fault = postgres_fault(inner, where) if isinstance(inner, ERRORS) else inner
        if fault is not inner:
            return fault
        inner = inner.__cause__ or getattr(inner, "orig", None)
    return error


def _upgrade(connection: sqlalchemy.Connection, lineage: Lineage) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_SPACE}, hashtext('{lineage.service}'))")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TABLE_SECONDS}s'")
    scripts = ScriptDirectory(str(lineage.folder), version_locations=[str(lineage.folder)])
    with EnvironmentContext(Config(), scripts, fn=lambda present, _: scripts._upgrade_revs("head", present)) as environment:
        environment.configure(connection=connection, version_table=lineage.version_table)
        with environment.begin_transaction():
            environment.run_migrations()


def run_script(sql: str) -> None:
    """Runs a whole SQL script within a revision's upgrade, as PostgreSQL reads it."""
    from alembic import op
    from sqlalchemy.util import await_only

    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    await_only(driver.execute(sql))
