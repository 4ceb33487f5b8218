"""Opening connections: what a connection of ours is set to, and which of several hosts takes writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import structlog

from chassis.database import shown
from chassis.faults import Fault, RequestInvalid, StorageUnavailable
from chassis.migrations import Lineage, require_schema
from chassis.postgres.faults import RETRY_SECONDS, is_unreadable
from chassis.postgres_access import Connection, connect, postgres_fault

Durability = Literal["full", "normal"]

CONNECT_SECONDS = 3.0  # for each host
STATEMENT_SECONDS = 5.0  # the server ends a statement after so long
COMMAND_SECONDS = 7.0  # and we give up a server that does not even do that
LOCK_SECONDS = 4.0
IDLE_SECONDS = 2.0  # a process that stands still inside a transaction loses it, and its locks, after so long

_SETTINGS = {
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "lock_timeout": f"{LOCK_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:.0f}s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Server:
    """Where a database is: `url` gives `postgresql://user:password@host:port/database` as it is now, with several hosts parted by commas.

    The host that takes writes is used. `full` survives a power cut of the server after each acknowledged write; with `normal` one may take
    the newest. `name` is what the server's list of sessions shows.
    """

    url: Callable[[], str]
    name: str = "behest"
    durability: Durability = "full"

    @property
    def place(self) -> str:
        """The URL without its password: for messages."""
        try:
            return shown(self.url())
        except Fault:
            return self.name

    async def connect(self, role: str, settings: Mapping[str, str] | None = None) -> Connection:
        """A connection to the first host that takes writes. Raises StorageUnavailable, SettingsInvalid."""
        fault: Fault | None = None
        for url in _each_host(self.url()):
            try:
                return await self._connect(url, f"{self.name} {role}", settings or {})
            except asyncpg.TargetServerAttributeNotMatched:
                fault = _read_only(shown(url))
            except StorageUnavailable as failed:
                fault = fault or failed
        assert fault is not None
        raise fault

    def fault(self, error: BaseException) -> Exception:
        """The fault for an error at this server; a defect is returned as it is."""
        if is_unreadable(error):
            return RequestInvalid("a text of the request holds a zero character, which PostgreSQL cannot store; leave it out")
        return postgres_fault(error, self.place)

    async def _connect(self, url: str, name: str, settings: Mapping[str, str]) -> Connection:
        synchronous = {"synchronous_commit": "on" if self.durability == "full" else "off"}
        return await connect(
            url,
            name,
            CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            target_session_attrs="read-write",
            server_settings={**_SETTINGS, **synchronous, **settings},
        )


async def require_newest(server: Server, lineage: Lineage) -> None:
    """Returns when the database has the schema that this version needs. Raises SchemaTooOld, SchemaTooNew, StorageUnavailable."""
    connection = await server.connect("start")
    try:
        await require_schema(connection, lineage, server.place)
    finally:
        close_quietly(connection)  # waiting for its end could fail where the schema did not


def close_quietly(connection: Connection | None) -> None:
    """Drops a connection without waiting for the server."""
    if connection is not None:
        try:
            connection.terminate()
        except Exception:  # noqa: BLE001 — it is gone either way
            structlog.get_logger().debug("dropping a connection failed", exc_info=True)


def _each_host(url: str) -> Iterator[str]:
    """One URL for each host, so that a host which does not answer costs its own time alone."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    for host in hosts.split(","):
        yield urlunsplit(parts._replace(netloc=f"{user}{at}{host}"))


def _read_only(place: str) -> StorageUnavailable:
    text = (
        f"the database {place} cannot be used: it takes no writes; name the primary in the URL, all hosts may stand there, or wait for it"
    )
    return StorageUnavailable(text, metadata={"database": place}, retry_after=RETRY_SECONDS)
