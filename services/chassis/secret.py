"""Secrets as settings name them: where they are, read when they are needed, never shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic_core import core_schema

from chassis.faults import SettingsInvalid


class Secret:
    """A secret: `env:NAME`, `file:/path` (a mounted secret, read again when the file changes), or the value itself."""

    __slots__ = ("_read", "_text")
    described: ClassVar[str] = "secret: env:NAME, file:/path or the value"  # as reference pages say it

    def __init__(self, text: str) -> None:
        self._text = text
        scheme, _, rest = text.partition(":")
        readers: dict[str, Callable[[], str]] = {"env": lambda: _variable(rest), "file": _File(Path(rest)).read}
        self._read = readers.get(scheme, lambda: text)

    def read(self) -> str:
        """The value now, without surrounding white space; raises SettingsInvalid naming the variable or file that lacks it."""
        return self._read()

    @property
    def is_reference(self) -> bool:
        """Whether the settings hold only the place of the value."""
        return self._text.startswith(("env:", "file:"))

    def __repr__(self) -> str:
        return f"Secret({self._text})" if self.is_reference else "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Pydantic validates a string into a Secret, and serializes one without its value."""
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.no_info_before_validator_function(lambda v: v._text if isinstance(v, cls) else v, from_text),
            serialization=core_schema.plain_serializer_function_ser_schema(repr),
        )


def _variable(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise SettingsInvalid(f"the environment variable {name} is not set; set it to the secret", metadata={"variable": name})
    return value


class _File:
    """The content of a file, read again when the file is another one or was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._value = ""

    def read(self) -> str:
        """The content without surrounding white space."""
        try:
            stat = self._path.stat()
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if version != self._seen:
                self._value = self._path.read_text(encoding="utf-8").strip()
                self._seen = version
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(getattr(error, "strerror", None) or "it is not UTF-8 text") from None
        if not self._value:
            raise self._unreadable("it is empty")
        return self._value

    def _unreadable(self, why: str) -> SettingsInvalid:
        text = f"the secret file {self._path} cannot be used: {why}; mount it or name another"
        return SettingsInvalid(text, metadata={"file": str(self._path)})
