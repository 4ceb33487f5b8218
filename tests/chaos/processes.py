"""Processes that are killed, frozen and started again, and that can be told to do it themselves at a point in their code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.history import Defect
from chassis import faults
from chassis.waypoints import ARGUMENT, PERMIT
from suite.processes import serves

ROOT = Path(__file__).resolve().parents[2]
IMPORTABLE = tuple(str(ROOT / name) for name in ("services", "gen", "tests"))
LOOK_SECONDS = 0.1
LAST_WORDS = 600
STARTED = b"--- started"


@dataclass
class Service:
    """One replica of a service. `next_waypoint` gives what each start is armed with, empty for nothing; `tell` hears what happened."""

    name: str
    config: Path
    port: int
    folder: Path
    env: Mapping[str, str]
    next_waypoint: Callable[[], str]
    tell: Callable[[str], None]
    defects: list[Defect] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    armed: str = ""
    _expected: bool = False
    _frozen: bool = False

    @property
    def section(self) -> str:
        """Which service it is."""
        return self.name.rpartition("-")[0]

    @property
    def log(self) -> Path:
        """What it says, over all its lives."""
        return self.folder / f"{self.name}.log"

    @property
    def lives(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self.process is not None and self.process.returncode is None

    async def keep(self, pause: Callable[[], float], freeze: Callable[[], float]) -> None:
        """Keeps it running until cancelled: starts it some time after each death, and wakes it when it has frozen itself."""
        while True:
            if not self.lives:
                await self.start(self.next_waypoint())
            await self._watch(freeze)
            await asyncio.sleep(pause())

    async def start(self, waypoint: str = "") -> None:
        """Starts it, armed with a waypoint or with none; does not wait until it serves."""
        command = [sys.executable, "-m", self.section, "--config", str(self.config)]
        self.armed, self._expected, self._frozen = waypoint, False, False
        with self.log.open("ab") as log:
            log.write(STARTED + (f" armed with {waypoint}\n" if waypoint else " unarmed\n").encode())
            self.process = await asyncio.create_subprocess_exec(
                *command,
                *([f"{ARGUMENT}={waypoint}"] if waypoint else []),
                env={**self.env, "PYTHONPATH": os.pathsep.join(IMPORTABLE), PERMIT: "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    async def serves(self) -> None:
        """Returns when it serves."""
        await serves(f"127.0.0.1:{self.port}")

    def kill(self) -> None:
        """Kill -9."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: the orderly end, unless something worse happens on the way."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._frozen = True
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self._frozen = False
        self._signal(signal.SIGCONT)

    async def end(self) -> None:
        """Kills it for good and waits until it is dead."""
        self.kill()
        if self.process is not None:
            await self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if not self.lives:
            return
        assert self.process is not None
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._expected = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)  # Process.send_signal may reap it, and its status would be lost

    async def _watch(self, freeze: Callable[[], float]) -> None:
        """Returns when it is dead."""
        assert self.process is not None
        ending = asyncio.ensure_future(self.process.wait())
        try:
            while not ending.done():
                await asyncio.wait([ending], timeout=LOOK_SECONDS)
                if not ending.done() and not self._frozen and self.armed.endswith(":stop") and _is_stopped(self.process.pid):
                    await self._froze_itself(ending, freeze())
            self._ended(ending.result())
        finally:
            ending.cancel()

    async def _froze_itself(self, ending: asyncio.Future[int], seconds: float) -> None:
        self._reached(f"froze itself for {seconds:.1f} s")
        await asyncio.wait([ending], timeout=seconds)
        self.wake()

    def _ended(self, status: int) -> None:
        if status == -signal.SIGKILL and self.armed.endswith(":kill") and not self._expected:
            self._reached("killed itself")
        elif status == 1 and not self._has_served():  # what it needs is away, and it says so: whoever started it starts it again
            self.tell(f"{self.name} refused to start")
        elif not self._expected or status not in (0, -signal.SIGKILL, -signal.SIGTERM):
            self.tell(f"{self.name} ended by itself with status {status}")
            self.defects.append(Defect(self.name, f"ended by itself with status {status}: {self._last_words()}"))

    def _reached(self, how: str) -> None:
        self.reached.append(self.armed.partition(":")[0])
        self.tell(f"{self.name} {how} at {self.armed}")
        self.armed = ""

    def confessions(self) -> list[Defect]:
        """What it has logged with the traceback of anything but a fault: nothing that the harness does is a reason for one."""
        entries = map(_entry, self.log.read_text(errors="replace").splitlines())
        return [Defect(f"{self.name} logged {each['event'][:80]!r}", _told(each)) for each in entries if _is_defect(each)]

    def _has_served(self) -> bool:
        """Whether its present or last life came to listening."""
        return b'"listening"' in self.log.read_bytes().rpartition(STARTED)[2]

    def _last_words(self) -> str:
        return self.log.read_bytes()[-LAST_WORDS:].decode(errors="replace")


def _entry(line: str) -> dict[str, Any]:
    """A line of the log; nothing, if it is none of ours or was cut by a kill."""
    try:
        return dict(json.loads(line)) if line.startswith("{") else {}
    except ValueError:
        return {}


def _is_defect(entry: Mapping[str, Any]) -> bool:
    errors = entry.get("exception")
    if not errors or any(hasattr(faults, error["exc_type"]) for error in errors):
        return False
    return not ("never retrieved" in entry["event"] and "aiokafka" in entry["event"])  # a task of the library whose caller gave it up


def _told(entry: Mapping[str, Any]) -> str:
    """An entry with a traceback, and the places of its last error."""
    error = entry["exception"][-1] if isinstance(entry["exception"], list) else {}
    frames = "\n".join(f"{frame['filename']}:{frame['lineno']} {frame['name']}" for frame in error.get("frames", ())[-8:])
    rest = {key: value for key, value in entry.items() if key != "exception"}
    return f"{error.get('exc_type')}: {error.get('exc_value')}\n{rest}\n{frames}"


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
