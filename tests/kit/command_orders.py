"""Members of a consumer group of commands on a real Kafka, whose orders only record what they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from chassis.faults import Fault, StorageUnavailable
from chassis.kafka.settings import KafkaSettings
from chassis.world import SystemClock
from kit.kafka import KafkaCluster
from orchestrator.adapters.kafka_commands import KafkaCommands
from orchestrator.operations.commands import CommandDesk, Letter
from orchestrator.operations.ports import Patience


@dataclass
class RecordingOrders:
    """Keeps what was asked, as a store that knows request ids does: `admitted` has each value once, `asked` each attempt.

    A value in `held` waits until it is released; while `away` everything fails as when the store cannot be reached.
    """

    asked: list[str] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    away: bool = False
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def carry_out(self, letter: Letter) -> None:
        name = (letter.value or b"").decode()
        async with self._changed:
            self.asked.append(name)
            self._changed.notify_all()
            if self.away:
                raise StorageUnavailable("away")
            await self._changed.wait_for(lambda: name not in self.held)
            if name not in self.admitted:
                self.admitted.append(name)
            self._changed.notify_all()

    async def release(self) -> None:
        """Lets go what is held, and is back when away."""
        async with self._changed:
            self.held.clear()
            self.away = False
            self._changed.notify_all()

    async def until(self, asked: str = "", admitted: int = 0, seconds: float = 40) -> None:
        """Returns when a value was asked for, and so many were admitted."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: (not asked or asked in self.asked) and len(self.admitted) >= admitted)
        except TimeoutError:
            raise AssertionError(f"asked {self.asked}, admitted {self.admitted}; waited for {asked!r} and {admitted}") from None


@dataclass
class KeptLetters:
    """Dead letters, kept."""

    letters: list[tuple[Letter, Fault]] = field(default_factory=list)

    async def put(self, letter: Letter, fault: Fault) -> None:
        self.letters.append((letter, fault))


def settings_of(kafka: KafkaCluster, **values: Any) -> KafkaSettings:
    """The settings of a member."""
    topics = {"commands": {"name": kafka.topic("commands")}, "dead_commands": {"name": kafka.topic("commands.dead")}}
    return KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": topics, **values})


@contextlib.asynccontextmanager
async def open_member(
    kafka: KafkaCluster, orders: RecordingOrders, *, leave: bool = True, **kafka_settings: Any
) -> AsyncIterator[KafkaCommands]:
    """A member of the group, with other settings of Kafka if any.

    Without `leave` it ends as if it were killed: nothing is finished, nothing committed.
    """
    clock = SystemClock()
    desk = CommandDesk(orders, KeptLetters(), clock, Patience(), 16)
    commands = KafkaCommands(settings_of(kafka, **kafka_settings), kafka.topic("group"), desk, clock)
    serving = asyncio.create_task(commands.serve())
    try:
        yield commands
    finally:
        if leave:
            commands.leave()
        else:
            serving.cancel()
        await asyncio.wait([serving])
        if not serving.cancelled():
            serving.result()
