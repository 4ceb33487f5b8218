"""How PostgreSQL is reached, and its errors in words that say what to do. No SQL of any service; passwords are never shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import asyncpg

from chassis.database import shown
from chassis.faults import Fault, SettingsInvalid, StorageUnavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_SECONDS = 5.0
RETRY_SECONDS = 1.0
_OURS = "application_name"
ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


async def connect(url: str, name: str = "behest", timeout: float = CONNECT_SECONDS, **options: Any) -> Connection:
    """An open connection; `name` is what pg_stat_activity shows, options are asyncpg's. Raises StorageUnavailable, SettingsInvalid.

    With target_session_attrs also asyncpg.TargetServerAttributeNotMatched: the server is there, and another one is wanted.
    """
    settings = {_OURS: name, **options.pop("server_settings", {})}
    try:
        return await asyncpg.connect(url, timeout=timeout, server_settings=settings, **options)
    except (ValueError, OverflowError):  # asyncpg's ClientConfigurationError among them
        how = "write postgresql://user:password@host:5432/name, in a password %2F for /, %3F for ?, %23 for #, %40 for @"
        raise SettingsInvalid(f"{shown(url)} is no PostgreSQL address: {how}") from None
    except asyncpg.TargetServerAttributeNotMatched:
        raise
    except ERRORS as error:
        raise postgres_fault(error, shown(url)) from None  # its cause would show the arguments of connect in a traceback


@contextlib.contextmanager
def told_as_faults(where: str) -> Iterator[None]:
    """Errors of PostgreSQL within the body are raised as faults."""
    try:
        yield
    except ERRORS as error:
        raise postgres_fault(error, where) from None


# By SQLSTATE, the longest prefix that fits: what to do, and whether it passes without anybody doing anything.
_REMEDIES: dict[str, tuple[str, bool]] = {
    "08": ("the connection broke; it is made again", True),
    "25006": ("the server takes no writes, as a standby does; point the URL at the primary, or wait for it", True),
    "25P03": ("a transaction stood still for too long and was given up; retry", True),
    "28": ("it refuses the user or the password; correct them in the URL, or the server's pg_hba.conf", False),
    "3D000": ("the server has no such database; create it (CREATE DATABASE), or correct the URL", False),
    "40": ("another transaction was in the way; retry", True),
    "42501": ("the role lacks a privilege; run `behest migrate` as the owner of the tables, or GRANT what is missing", False),
    "42P01": ("a table is missing; run `behest migrate`", False),
    "42703": ("a column is missing; run `behest migrate`", False),
    "53100": ("the server's disk is full; free space, then retry", True),
    "53200": ("the server is out of memory; look at its log", True),
    "53300": ("the server has no connection left; raise its max_connections, or run fewer replicas", True),
    "55P03": ("a lock was not given in time; retry", True),
    "57014": ("a statement took too long and was given up; look at the server's load, then retry", True),
    "57P": ("the server is restarting or shutting down; it is tried again", True),
    "58": ("the server's disk or system failed; look at its log", True),
    "XX": ("the server's data is damaged or it failed itself; look at its log", False),
}
_UNREACHABLE = "it cannot be reached; is the server up, and are host and port right?"
_CUT = "the connection broke; it is made again"


def postgres_fault(error: BaseException, where: str) -> Exception:
    """The fault that tells an operator what to do about an error; defects of this program are returned as they are."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _from_server(error, where)
    if isinstance(error, asyncpg.InterfaceError):
        return _fault(where, _CUT, "InterfaceError", passes=True) if _is_lost(error) else error
    if isinstance(error, asyncpg.InternalClientError):  # the server said that it ends, and the connection is not closed yet
        return _fault(where, _CUT, "InternalClientError", passes=True)
    if isinstance(error, OSError):  # also TimeoutError and ConnectionError
        return _fault(where, _UNREACHABLE, type(error).__name__, passes=True)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def _from_server(error: asyncpg.PostgresError, where: str) -> Exception:
    state: str = error.sqlstate or ""
    for length in (5, 3, 2):
        if (found := _REMEDIES.get(state[:length])) is not None:
            return _fault(where, found[0], state, found[1])
    return error


def _is_lost(error: asyncpg.InterfaceError) -> bool:
    """Whether the connection is gone; other errors of that class are misuse."""
    return any(word in str(error) for word in ("closed", "released", "terminat", "lost"))


def _fault(where: str, remedy: str, what: str, passes: bool) -> StorageUnavailable:
    metadata = {"database": where, "postgres": what}
    return StorageUnavailable(
        f"the database {where} cannot be used: {remedy}", metadata=metadata, retry_after=RETRY_SECONDS if passes else None
    )
