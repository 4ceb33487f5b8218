"""Where a service keeps its data, as settings name it."""

from __future__ import annotations

import difflib
import re
from typing import ClassVar

from chassis.faults import SettingsInvalid
from chassis.secret import Secret

SCHEMES = ("sqlite", "memory", "postgresql")
HOW = "write sqlite:PATH, postgresql://user:password@host:5432/name, env:NAME or file:/path that hold one, or memory: to keep nothing"


class Database(Secret):
    """`sqlite:PATH`, `memory:`, `postgresql://…`, or where one of them stands: `env:NAME`, `file:/path`. Its password is never shown."""

    __slots__ = ()
    described: ClassVar[str] = "sqlite:PATH, postgresql://…, memory:, env:NAME or file:/path"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if not self.is_reference:
            _check(text)

    def read(self) -> str:
        """What it names now, password included. Raises SettingsInvalid naming the variable or file that does not hold a database."""
        text = super().read()
        try:
            _check(text)
        except ValueError as error:
            raise SettingsInvalid(f"what {self} holds is no database: {error}") from None
        return text

    @property
    def sqlite_path(self) -> str | None:
        """The path of the SQLite file, None for anything else. Raises SettingsInvalid as `read` does."""
        scheme, _, path = self.read().partition(":")
        return path if scheme == "sqlite" else None

    @property
    def is_postgres(self) -> bool:
        """Whether it is PostgreSQL. Raises SettingsInvalid as `read` does."""
        return _scheme(self.read()) == "postgresql"

    def url(self) -> str:
        """The URL of a PostgreSQL database, password included. Raises SettingsInvalid as `read` does."""
        return self.read()

    def __repr__(self) -> str:
        return self._text if self.is_reference else shown(self._text)

    __str__ = __repr__


def shown(url: str) -> str:
    """A database without its password, and of a URL's options only those that say which server is meant."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    userinfo, at, place = rest.rpartition("@")
    place, _, query = place.partition("?")
    if not at and not re.fullmatch(r"[^/:]*(:\d+)?(/[^:]*)?", place):
        return f"{scheme}://…"  # what stands after the colon may be a password
    told = "&".join(option for option in query.split("&") if option.startswith(("sslmode=", "target_session_attrs=")))
    return f"{scheme}://{userinfo.partition(':')[0]}{at}{place}" + (f"?{told}" if told else "")


def _scheme(text: str) -> str:
    scheme = text.partition(":")[0]
    return "postgresql" if scheme == "postgres" else scheme


def _check(text: str) -> None:
    """Raises ValueError with the way to write it."""
    written, colon, rest = text.partition(":")
    complete = {"sqlite": bool(rest), "memory": not rest, "postgresql": bool(re.fullmatch(r"//[^\s/][^\s]*", rest))}
    if colon and complete.get(_scheme(text), False):
        return
    near = difflib.get_close_matches(written.lower(), (*SCHEMES, "env", "file"), n=1, cutoff=0.6)
    unknown = colon and near and _scheme(text) not in SCHEMES
    raise ValueError(f"did you mean {near[0]}:? {HOW}" if unknown else HOW)
