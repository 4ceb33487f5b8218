"""Readers of PostgreSQL: a connection on which a read was broken off is not handed to the next who reads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from chassis.faults import StorageUnavailable
from chassis.migrations import Lineage, require_schema
from chassis.postgres.reading import Readers
from chassis.postgres.statements import Statements
from chassis.postgres_access import postgres_fault


@dataclass
class Connection:
    """A connection as far as Readers knows it; `breaks` is what its first statement fails with, before any transaction."""

    breaks: BaseException | None = None
    closed: bool = False

    async def execute(self, _: str) -> None:
        if self.breaks is not None:
            raise self.breaks

    def is_in_transaction(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True


@dataclass
class Server:
    """Gives connections in order."""

    connections: list[Connection]
    place: str = "somewhere"
    given: list[Connection] = field(default_factory=list)

    async def connect(self, _: str) -> Connection:
        self.given.append(self.connections.pop(0))
        return self.given[-1]

    def fault(self, error: Exception) -> Exception:
        return error


def nothing(_: Statements) -> str:
    return "read"


def readers_of(*connections: Connection) -> tuple[Readers, Any]:
    server: Any = Server(list(connections))
    return Readers(server), server


@pytest.mark.feature("S2")
@pytest.mark.parametrize(
    "breaks", [TimeoutError(), ConnectionResetError(), asyncpg.InternalClientError("another operation (2) is in progress")]
)
async def test_a_read_that_was_cut_before_its_transaction_began_is_done_on_another_connection(breaks: Exception) -> None:
    readers, server = readers_of(Connection(breaks), Connection())
    assert await readers.read(nothing) == "read"
    assert [connection.closed for connection in server.given] == [True, False]


@pytest.mark.feature("S2")
async def test_a_connection_whose_reader_left_in_the_middle_is_not_used_again() -> None:
    readers, server = readers_of(Connection(asyncio.CancelledError()), Connection())
    with pytest.raises(asyncio.CancelledError):
        await readers.read(nothing)
    assert server.given[0].closed
    assert await readers.read(nothing) == "read"


@pytest.mark.feature("S2")
async def test_a_connection_on_which_the_server_refused_a_read_is_kept() -> None:
    readers, server = readers_of(Connection(asyncpg.UndefinedTableError("no such table")))
    for _ in range(2):
        with pytest.raises(asyncpg.UndefinedTableError):
            await readers.read(nothing)
    assert len(server.given) == 1


@pytest.mark.feature("O6")
def test_a_connection_that_is_ending_is_told_of_as_storage_that_comes_back() -> None:
    fault = postgres_fault(asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"), "somewhere")
    assert isinstance(fault, StorageUnavailable)
    assert fault.retry_after


@pytest.mark.feature("O6")
@pytest.mark.parametrize("breaks", [asyncpg.ConnectionDoesNotExistError("terminating connection"), ConnectionResetError(), TimeoutError()])
async def test_a_server_that_goes_away_while_a_service_looks_at_its_schema_is_told_of_as_such(breaks: Exception) -> None:
    class Ending:
        async def fetchval(self, *_: object) -> None:
            raise breaks

    connection: Any = Ending()
    with pytest.raises(StorageUnavailable, match="somewhere"):
        await require_schema(connection, Lineage.of("session_store"), "somewhere")
