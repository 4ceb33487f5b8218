"""What processes consumed: CPU seconds to the nanosecond, bytes handed to the disk, memory. Linux."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

# The kernel's number for "the CPU clock of process PID": see clock_getcpuclockid(3).
_SCHEDULED = 2


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, ended ones included."""
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def disk_bytes(pid: int) -> int:
    """Bytes that a process caused to be sent to the storage layer, in whole pages; 0 where the kernel does not count."""
    try:
        return int(psutil.Process(pid).io_counters().write_bytes)
    except (psutil.Error, AttributeError):
        return 0


def resident_bytes(pid: int) -> int:
    """The resident set of a process."""
    return int(psutil.Process(pid).memory_info().rss)


@dataclass(frozen=True, slots=True)
class Spent:
    """What went by between two readings: seconds of CPU and of the wall clock, bytes to disk."""

    cpu: float
    wall: float
    disk: int


class Meter:
    """Measures the processes with these ids, from its making on."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._start = self._read()

    def _read(self) -> tuple[float, float, int]:
        return sum(map(cpu_seconds, self._pids)), time.perf_counter(), sum(map(disk_bytes, self._pids))

    def spent(self) -> Spent:
        """What they consumed since."""
        now = self._read()
        cpu, wall, disk = (after - before for after, before in zip(now, self._start, strict=True))
        return Spent(cpu, wall, int(disk))


def stored_bytes(databases: Iterable[Path]) -> int:
    """The size of SQLite files with everything that is in their logs. Brings the logs in, which costs the files' writers nothing."""
    total = 0
    for path in databases:
        with sqlite3.connect(path, timeout=10) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            pages, size, free = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
            )
        connection.close()
        total += (pages - free) * size
    return total
