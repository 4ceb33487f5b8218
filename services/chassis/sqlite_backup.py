"""A copy of a SQLite file that is in use: one moment of it, whole, whatever is written meanwhile."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from chassis.faults import StorageUnavailable
from chassis.sqlite import BUSY_SECONDS, storage_fault

_OF_TARGET = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)  # the source was opened by then, and is only read


def back_up(source: Path, target: Path) -> int:
    """Copies source to target, which must not exist, checks the copy and returns its bytes. Blocks. Raises StorageUnavailable.

    The copy is of one transaction's snapshot, so writers go on; it is there under its name only when it is whole and on the disk.
    """
    if not source.is_file():
        raise StorageUnavailable(f"there is no database {source} to copy; name the folder it is in", metadata={"path": str(source)})
    if target.exists():
        raise StorageUnavailable(f"{target} exists; choose another folder, backups are never overwritten", metadata={"path": str(target)})
    if not target.parent.is_dir():
        raise StorageUnavailable(f"there is no folder {target.parent}; make it, or choose another folder", metadata={"path": str(target)})
    part = target.with_name(f"{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(source, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(part),))
        _check(part)
        _keep(part, target)
    except sqlite3.Error as error:
        raise storage_fault(str(target if error.sqlite_errorcode & 0xFF in _OF_TARGET else source), error) from error
    except OSError as error:
        raise StorageUnavailable(f"{target} cannot be written: {error.strerror}; make room or choose another folder") from error
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def _check(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StorageUnavailable(f"the copy is damaged ({found}), so perhaps is its source; run PRAGMA integrity_check on that")


def _keep(part: Path, target: Path) -> None:
    """Brings the copy to the disk, then gives it its name."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
