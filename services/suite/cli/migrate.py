"""`behest migrate`: brings the schemas in PostgreSQL to this version, or tells how they stand."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from chassis.database import Database
from chassis.migrating import Migrated, migrate_database
from chassis.rpc.serve import run
from suite.cli.outcome import Exit
from suite.cli.output import Output
from suite.composition import SuiteOptions, overlay, read_written
from suite.embedded import SuiteSettings, load_suite_settings


def run_migrate(data: Path, config: Path | None, json: bool | None, *, check: bool) -> Exit:
    """Migrates the database of each service, or with check looks; FAILED when a schema is not the one that this version needs."""
    settings, output = suite_settings(SuiteOptions(data, config)), Output(json)

    async def work() -> Exit:
        code = Exit.OK
        async for done in _each(settings, check):
            output.object({**asdict(done), "up_to_date": done.up_to_date}) if output.json else output.note(
                f"{done.service:<14} {done.text}", 15
            )
            code = code if done.up_to_date else Exit.FAILED
        return code

    return run(work())


def suite_settings(options: SuiteOptions) -> SuiteSettings:
    """The settings of a suite, without a local model. Raises SettingsInvalid."""
    file = options.settings_file()
    return load_suite_settings(file, overlay(options, read_written(file, os.environ), None).env)


def databases(settings: SuiteSettings) -> dict[str, Database]:
    """The database of each service that has one, by its section."""
    return {
        "session_store": settings.session_store.database,
        "tool_executor": settings.tool_executor.database,
        "provider_gateway": settings.provider_gateway.database,
    }


async def _each(settings: SuiteSettings, check: bool) -> AsyncIterator[Migrated]:
    for service, database in databases(settings).items():
        yield await migrate_database(service, database, check_only=check)
