"""`behest backup`: copies of the SQLite databases, made while they are in use."""

from __future__ import annotations

from pathlib import Path

from chassis.faults import SettingsInvalid
from chassis.sqlite_backup import back_up
from suite.cli.migrate import databases, suite_settings
from suite.cli.outcome import Exit
from suite.cli.output import Output
from suite.composition import SuiteOptions

ELSEWHERE = "is not in SQLite; back it up with its own tools, such as pg_dump"


def run_backup(data: Path, config: Path | None, folder: Path, json: bool | None) -> Exit:
    """Copies each SQLite file once; FAILED when there is none."""
    output, code = Output(json), Exit.FAILED
    targets: dict[str, str] = {}
    for service, database in databases(suite_settings(SuiteOptions(data, config))).items():
        if database.sqlite_path is None:
            output.aside(f"{service}: {database} {ELSEWHERE}")
        else:
            targets.setdefault(str(Path(database.sqlite_path).resolve()), service)
    for source, service in targets.items():
        _copy(output, Path(source), folder / _name(source, service, list(targets)))
        code = Exit.OK
    return code


def _name(source: str, service: str, sources: list[str]) -> str:
    """The file's own name; with its service's before it where two are called the same."""
    name = Path(source).name
    return name if [Path(each).name for each in sources].count(name) == 1 else f"{service}-{name}"


def _copy(output: Output, source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"the folder {target.parent} cannot be made: {error.strerror}; choose another") from error
    size = back_up(source, target)
    if output.json:
        output.object({"database": str(source), "backup": str(target), "bytes": size})
    else:
        output.note(f"{source} → {target} ({size / 1e6:.1f} MB)")
