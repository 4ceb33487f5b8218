"""The command `migrate`: what it does to a service's database, and its form for images that hold one service."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis import settings
from chassis.database import Database
from chassis.faults import Fault, SettingsInvalid
from chassis.telemetry import LogSettings, set_up_logging

OTHERS_MIGRATE_THEMSELVES = "needs no command: its service makes or migrates it at start"


@dataclass(frozen=True, slots=True)
class Migrated:
    """How a service's schema stands after the command, and in words what was found or done."""

    service: str
    database: str
    state: str
    text: str

    @property
    def up_to_date(self) -> bool:
        """Whether a service of this version can start on it."""
        return self.state == "up to date"


async def migrate_database(service: str, database: Database, *, check_only: bool) -> Migrated:
    """Brings the database of a service (`session_store`) forward, or only looks. Raises StorageUnavailable, SettingsInvalid."""
    if not database.is_postgres:
        return Migrated(service, str(database), "up to date", f"{database} {OTHERS_MIGRATE_THEMSELVES}")
    from chassis.migrations import Lineage, State, check, migrate  # asyncpg is loaded where it is used

    lineage, url = Lineage.of(service), database.url()
    found = await check(url, lineage)
    if not check_only and found.state is State.BEHIND:
        await migrate(url, lineage)
        text = f"{database}: migrated from schema {found.present} to {found.newest}"
        return Migrated(service, str(database), State.UP_TO_DATE.value, text)
    state = found.state.value
    text = f"{database}: schema {found.present}, this version has {found.newest}: {state}{_remedy(state, lineage.command)}"
    return Migrated(service, str(database), state, text)


def _remedy(state: str, command: str) -> str:
    return {"behind": f"; run {command}", "ahead": "; run the version that migrated it, or a newer one"}.get(state, "")


def main(section: str, model: type[Any], argv: Sequence[str]) -> int:
    """The body of `python -m session_store migrate [--check]`.

    Returns 0 when the schema is up to date, 1 when it is not or could not be reached, 2 for wrong settings.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {section} migrate", description="Brings the schema in PostgreSQL to this version.")
    parser.add_argument("--check", action="store_true", help="only tell: exit status 0 up to date, 1 behind or ahead")
    parser.add_argument("--config", metavar="FILE", type=Path, help="a YAML file; the environment (BEHEST__SECTION__KEY) wins over it")
    given = parser.parse_args(argv)
    try:
        loaded: dict[str, Any] = dict(settings.load_sections({section: model, "log": LogSettings}, given.config))
        set_up_logging(loaded["log"])
        done = asyncio.run(migrate_database(section, loaded[section].database, check_only=given.check))
    except Fault as fault:
        print(fault.message, file=sys.stderr)  # noqa: T201 — the user of a command reads it
        return 2 if isinstance(fault, SettingsInvalid) else 1
    print(f"{section}: {done.text}")  # noqa: T201 — the user of a command reads it
    return 0 if done.up_to_date else 1
