"""What a tool is: its name, what it promises, where it is visible. Nothing here runs one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field

MAX_SCHEMA_BYTES = 64 * 1024
MAX_DESCRIPTION_CHARS = 8 * 1024

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def name_is_valid(name: str) -> bool:
    """Whether every provider takes this as the name of a tool: 1 to 64 of a-z, A-Z, 0-9, _ and -."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Traits:
    """What a tool does to the world, with nothing left unsaid. The defaults are the careful choice."""

    read_only: bool = False
    idempotent: bool = False
    destructive: bool = True
    open_world: bool = True
    concurrency_safe: bool = False
    long_running: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether running it twice is the same as once."""
        return self.read_only or self.idempotent


@dataclass(frozen=True, slots=True)
class Declared:
    """Traits as somebody wrote them down; None where nothing was said."""

    read_only: bool | None = None
    idempotent: bool | None = None
    destructive: bool | None = None
    open_world: bool | None = None
    concurrency_safe: bool | None = None
    long_running: bool | None = None

    def resolve(self) -> Traits:
        """The traits, unsaid ones by the careful choice: read_only implies idempotent, not destructive and concurrency_safe."""
        read_only = bool(self.read_only)
        return Traits(
            read_only=read_only,
            idempotent=_said(self.idempotent, read_only),
            destructive=_said(self.destructive, not read_only),
            open_world=_said(self.open_world, True),
            concurrency_safe=_said(self.concurrency_safe, read_only),
            long_running=bool(self.long_running),
        )

    def resolve_over(self, inner: Traits) -> Traits:
        """The traits, unsaid ones as inner has them, except that taking back read_only takes back what it implied."""
        if self.read_only is False and inner.read_only:
            return self.resolve()
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(inner, **{name: value for name, value in said.items() if value is not None})


def _said(value: bool | None, otherwise: bool) -> bool:
    return otherwise if value is None else value


def contradiction(traits: Traits) -> str | None:
    """What in these traits cannot be true together, None when all can."""
    if traits.read_only and traits.destructive:
        return "destructive: a read_only tool destroys nothing; drop one of the two"
    if traits.read_only and not traits.idempotent:
        return "idempotent: a read_only tool is idempotent; drop one of the two"
    return None


# The value of each trait that promises more, so that callers relax.
_PROMISES = {"read_only": True, "idempotent": True, "destructive": False, "open_world": False, "concurrency_safe": True}


def overpromised(asked: Traits, own: Traits) -> str | None:
    """The first trait in which asked promises more than own, None when there is none."""
    for name, promise in _PROMISES.items():
        if getattr(asked, name) is promise and getattr(own, name) is not promise:
            return name
    return None


@dataclass(frozen=True, slots=True)
class Scope:
    """From where a tool is seen. Inner scopes shadow outer ones: run, then agent, then global."""

    agent: str = ""
    run_id: str = ""


GLOBAL = Scope()


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that can be executed. `parameters` and `result_schema` are JSON Schemas, `timeout` is in seconds."""

    name: str
    description: str
    parameters: bytes
    function: str
    timeout: float
    traits: Traits = Traits()
    result_schema: bytes = b""
    strict: bool = False
    scope: Scope = GLOBAL
    version: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", _digest(self))


def _digest(tool: Tool) -> str:
    parts = [tool.name, tool.description, tool.function, tool.timeout, tool.strict, dataclasses.astuple(tool.traits)]
    schemas = [tool.parameters.decode("utf-8", "replace"), tool.result_schema.decode("utf-8", "replace")]
    written = json.dumps([*parts, *schemas, dataclasses.astuple(tool.scope)])
    return hashlib.sha256(written.encode()).hexdigest()[:16]
