"""Which of PostgreSQL's errors cut the connection, and which pass when the same is tried again. What to do: chassis/postgres_access.py."""

from __future__ import annotations

import asyncpg

from chassis.faults import StorageUnavailable

RETRY_SECONDS = 1.0

# By SQLSTATE or its beginning: https://www.postgresql.org/docs/current/errcodes-appendix.html
_CUTTING = ("08", "25006", "25P03", "25P04", "57P")
_REPEATABLE = ("40001", "40P01", "55P03")
_UNREADABLE = ("22021", "22P05")  # a zero character in a text, or escaped in JSON


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error of the server, empty for any other."""
    return str(getattr(error, "sqlstate", None) or "")


def is_cut(error: BaseException) -> bool:
    """Whether the connection is of no use after this error, or leads to the wrong server."""
    unusable = isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError | StorageUnavailable)
    return unusable or sqlstate(error).startswith(_CUTTING)


def is_repeatable(error: BaseException) -> bool:
    """Whether the same transaction may well succeed when it is tried again at once."""
    return sqlstate(error) in _REPEATABLE


def is_unreadable(error: BaseException) -> bool:
    """Whether a text was refused for a character that PostgreSQL does not know."""
    return sqlstate(error) in _UNREADABLE
