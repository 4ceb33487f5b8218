"""How a command comes to a suite: the one it is pointed at, the one that listens here, or one of its own in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chassis.faults import ServiceUnavailable
from suite.addresses import DEFAULT_PORT_BASE, HOST, configured_target, listens

if TYPE_CHECKING:
    from suite.client import Behest


@dataclass(frozen=True, slots=True)
class Where:
    """Which suite a command wants, and how to run one when there is none. `asks_model` is for commands to whom it matters which one."""

    target: str | None
    tenant: str
    data: Path
    config: Path | None = None
    local_model: bool | None = False
    asks_model: bool = False


@contextlib.asynccontextmanager
async def reach(where: Where) -> AsyncIterator[Behest]:
    """A client of the suite; raises ServiceUnavailable when one was named and does not listen."""
    from suite.cli.outcome import command
    from suite.client import Behest

    named = where.target or configured_target()
    target = named or f"{HOST}:{DEFAULT_PORT_BASE}"
    if await listens(target):
        async with Behest(target, tenant=where.tenant) as client:
            yield client
    elif named:
        text = f"no suite listens at {target}; start one there (`{command()} up`), or leave --target and BEHEST_TARGET out to run one here"
        raise ServiceUnavailable(text, metadata={"target": target})
    else:
        async with _own(where, target) as client:
            yield client


@contextlib.asynccontextmanager
async def _own(where: Where, target: str) -> AsyncIterator[Behest]:
    from suite.cli.outcome import command, tell
    from suite.composition import SuiteOptions
    from suite.embedded import open_suite

    tell(f"no suite at {target}: running one in this process, data in {where.data}; `{command()} up` keeps one running")
    options = SuiteOptions(where.data, where.config, local_model=where.local_model, log_level="error")
    async with open_suite(options) as suite:
        for notice in suite.notices if where.asks_model else ():
            tell(notice)
        async with suite.client(where.tenant) as client:
            yield client
