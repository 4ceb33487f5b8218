"""The machine's clock, as services see it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from chassis.postgres.clock import DatabaseClock
from chassis.world import SLEW, SystemClock


@dataclass
class Machine:
    """The clocks of a machine that a test sets."""

    wall: float = 1_700_000_000.0
    moment: float = 100.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.moment += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr("chassis.world.time.time", lambda: made.wall)
    monkeypatch.setattr("chassis.world.time.monotonic", lambda: made.moment)
    return made


def test_it_tells_the_wall_clocks_time(machine: Machine) -> None:
    clock = SystemClock()
    for _ in range(100):
        machine.pass_(0.3)
        assert clock.now() == pytest.approx(machine.wall, abs=1e-3)


@pytest.mark.feature("R12")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_wall_clock_that_is_set_moves_it_by_a_hundredth_of_the_time_that_passes(machine: Machine, jump: float) -> None:
    clock = SystemClock()
    before = clock.now()
    machine.wall += jump
    assert clock.now() == before
    for second in range(1, 11):
        machine.pass_(1)
        assert clock.now() - before == pytest.approx(second * (1 + SLEW * (1 if jump > 0 else -1)), abs=1e-3)
    machine.pass_(abs(jump) / SLEW)
    assert clock.now() == pytest.approx(machine.wall, abs=1)


@pytest.mark.feature("R12")
async def test_a_databases_clock_that_is_set_is_followed_as_slowly(machine: Machine) -> None:
    database = machine.wall + 5

    async def ask() -> float:
        return database + machine.moment - 100.0

    clock = DatabaseClock(ask)
    await clock.set()
    assert clock.now() == pytest.approx(database)
    database += 3600
    for second in range(1, 11):
        machine.pass_(1)
        await clock.set()
        assert clock.now() == pytest.approx(database - 3600 + second * (1 + SLEW), abs=1e-3)
