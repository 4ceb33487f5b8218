"""Named points where state changes hands, and the one way to make a process die or freeze at one of them.

`waypoint("executor.claimed")` does nothing in production but look whether anything is armed. A crash harness arms one point of a process
that it starts: see `arm`. What the harness then checks is that the point is no worse a place to die than any other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from chassis.faults import SettingsInvalid

ARGUMENT = "--waypoint"
PERMIT = "BEHEST_CRASH_HARNESS"
"""The environment variable without which nothing can be armed. No setting, chart or image of the suite has it."""

POINTS: Mapping[str, str] = {
    "sqlite.commit.before": "a group of writes is carried out in SQLite and not committed",
    "sqlite.commit.after": "a group of writes is committed in SQLite and nobody knows it yet",
    "postgres.commit.before": "a group of writes is carried out in PostgreSQL and not committed",
    "postgres.commit.after": "a group of writes is committed in PostgreSQL and nobody knows it yet",
    "store.open.written": "a run's rows are written and not committed",
    "store.open.committed": "a run exists and its caller does not know it",
    "store.append.written": "a driver's events are written and not committed",
    "store.append.committed": "a driver's events are durable, and neither the driver nor a follower knows it",
    "store.command.written": "a command is written and not committed",
    "store.command.committed": "a command is durable, and neither its caller nor the run's driver knows it",
    "store.announced": "followers of a run have been told and its writer has not",
    "store.lease.attached": "a driver's lease is durable and the driver does not know it",
    "store.lease.handed": "runs are a driver's by the tables and it does not know it",
    "store.lease.taken": "a silent driver's runs are taken away and nobody has them",
    "driver.opened": "a run is open in this driver's name and not driven yet",
    "driver.taken": "a run was handed over and its log is read, and nothing is written to it yet",
    "driver.append.before": "events are planned and not sent",
    "driver.append.after": "events are durable and nothing has followed from them",
    "driver.model.before": "the intent to call a model is durable and the model is not called",
    "driver.model.after": "the model has answered and the answer is not written",
    "driver.tools.before": "the intent to run tools is durable and they are not asked for",
    "driver.tools.after": "the tools' results are here and not written",
    "driver.command.before": "a caller's command is accepted and not sent to the store",
    "driver.command.after": "a command is durable and its caller does not know it",
    "driver.leaving": "this process was told to end and still drives its runs",
    "commands.received": "commands from Kafka are here and none of them is carried out",
    "commands.settled": "a command from Kafka is carried out or put aside, and its offset is not committed",
    "commands.committed": "the offset of settled commands is committed",
    "relay.read": "a page of batches is read and nothing of it is published",
    "relay.sent": "batches are published and nobody knows it yet",
    "relay.advanced": "how far publishing has come is durable, and which shards are this process's",
    "executor.claimed": "a call is claimed and the tool has not begun",
    "executor.executed": "the tool has ended and there is no receipt",
    "executor.receipt": "the receipt is durable and nobody was told",
    "executor.published": "Kafka has ended executions and the ledger does not know it",
}
"""Every point, and what is true there."""

ACTIONS: Mapping[str, signal.Signals] = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(slots=True)
class _Armed:
    name: str
    passes: int
    do: Callable[[], None]

    def passed(self, name: str) -> None:
        if name == self.name:
            self.passes -= 1
            if self.passes == 0:
                self.do()


_armed: _Armed | None = None


def waypoint(name: str) -> None:
    """Marks that execution passes the point of that name."""
    if _armed is not None:
        _armed.passed(name)


def arm(order: str, env: Mapping[str, str] = os.environ) -> None:
    """Makes this process kill (`NAME:3:kill`) or stop (`NAME:3:stop`) itself when it passes a point for the n-th time.

    The order comes by command line and needs PERMIT in the environment besides, so that no single mistake arms a process that serves.
    Raises SettingsInvalid.
    """
    global _armed
    if env.get(PERMIT) != "1":
        raise SettingsInvalid(f"{ARGUMENT} ends this process in the midst of work; only a crash harness may, which sets {PERMIT}=1")
    name, passes, number = _read(order)
    structlog.get_logger().warning("this process will end or freeze itself", waypoint=name, passing=passes, signal=number.name)
    _armed = _Armed(name, passes, lambda: os.kill(os.getpid(), number))


def disarm() -> None:
    """Makes every point harmless again."""
    global _armed
    _armed = None


def _read(order: str) -> tuple[str, int, signal.Signals]:
    name, _, rest = order.partition(":")
    passes, _, action = rest.partition(":")
    if name not in POINTS:
        raise SettingsInvalid(f"{ARGUMENT} {order}: there is no waypoint {name!r}; chassis/waypoints.py lists them")
    if not passes.isdecimal() or int(passes) < 1 or action not in ACTIONS:
        raise SettingsInvalid(f"{ARGUMENT} {order}: write NAME:PASSING:ACTION with a passing from 1 and one of {', '.join(ACTIONS)}")
    return name, int(passes), ACTIONS[action]
