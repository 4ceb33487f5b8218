"""Ends a PostgreSQL server when nobody uses it any more, however its users ended.

`python postgres_keeper.py FOLDER [whole]`: users hold a shared lock on FOLDER/users, which the kernel takes from them when they die.
Whoever gets it exclusively knows that nobody is left, ends the server of FOLDER/server, and removes it, or with `whole` all of the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path


def postmaster_of(data: Path) -> int | None:
    """The process id of the server that runs on a data folder."""
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    return None


def family(pid: int) -> list[int]:
    """A process and its children, as far as they live."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return []


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Sends a signal to those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def main(folder: Path, whole: bool) -> None:
    """Waits until nobody holds the folder's lock; then leaves nothing of its server."""
    with (folder / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        if (pid := postmaster_of(folder / "server" / "data")) is not None:
            signal_all(family(pid), signal.SIGKILL)
        shutil.rmtree(folder if whole else folder / "server", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), whole=sys.argv[2:] == ["whole"])
