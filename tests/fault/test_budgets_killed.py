"""Budgets when a replica is killed in mid-call, and when the database goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from chassis.faults import BudgetExhausted, StorageUnavailable
from chassis.postgres import patience
from chassis.world import World
from kit.budgets import Flight, call, cap, expense
from kit.postgres import fresh_database, private_server, require_postgres
from provider_gateway.adapters.postgres import PostgresStorage, bank, open_postgres_storage
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.budgets import Unit
from provider_gateway.operations.budgets import Budgets, Terms, keeping

pytestmark = pytest.mark.feature("P15")
ROOT = Path(__file__).parents[2]
REAL = Usage(input_tokens=10, output_tokens=40)

VICTIM = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from chassis.world import World
from kit.budgets import cap, expense
from provider_gateway.adapters.postgres import open_postgres_storage
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.budgets import Unit
from provider_gateway.operations.budgets import Budgets, keeping

async def main():
    async with open_postgres_storage(lambda: sys.argv[1], World()) as storage:
        async with keeping(Budgets([cap(1000, Unit.TOKENS)], storage.bank, World())) as budgets:
            async with budgets.reserve(expense()) as reservation:
                reservation.used(Usage(input_tokens=10, output_tokens=40))
            await asyncio.gather(*(hang(budgets) for _ in range(3)))

async def hang(budgets):
    async with budgets.reserve(expense()):
        print("under way", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def replica(url: str, terms: Terms | None = None) -> AsyncIterator[tuple[PostgresStorage, Budgets]]:
    async with (
        open_postgres_storage(lambda: url, World()) as storage,
        keeping(Budgets([cap(1000, Unit.TOKENS)], storage.bank, World(), terms or Terms())) as budgets,
    ):
        yield storage, budgets


async def test_what_a_killed_replica_had_under_way_counts_as_used_and_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    require_postgres()
    places = [str(ROOT / part) for part in ("services", "gen", "tests")]
    async with fresh_database("provider_gateway") as url, replica(url) as (storage, budgets):
        victim = await asyncio.create_subprocess_exec(sys.executable, "-c", VICTIM, url, *places, stdout=asyncio.subprocess.PIPE)
        assert victim.stdout is not None
        for _ in range(3):
            assert await victim.stdout.readline() == b"under way\n"
        os.kill(victim.pid, signal.SIGKILL)
        await victim.wait()
        flight = Flight()
        monkeypatch.setattr(bank, "ALIVE_SECONDS", 0.0)
        await storage.bank.tend()
        (standing,) = await budgets.standings("default")
        assert standing.totals.held == 0, "its lease is over"
        assert 300 + 50 <= standing.totals.spent <= 300 + 100, "the calls under way, at what was set aside for them, and the one before"
        while standing.totals.granted + 100 <= 1000:
            await call(budgets, expense(), REAL, flight)
            (standing,) = await budgets.standings("default")
        with pytest.raises(BudgetExhausted):
            await call(budgets, expense(), REAL, flight)
        assert standing.totals.spent <= 1000 and standing.totals.held == 0


async def test_a_replica_that_was_taken_for_dead_goes_on_and_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    require_postgres()
    async with fresh_database("provider_gateway") as url, replica(url) as (_, frozen), replica(url) as (storage, other):
        async with frozen.reserve(expense()) as reservation:
            await frozen.refresh()
            with monkeypatch.context() as patched:
                patched.setattr(bank, "ALIVE_SECONDS", -1.0)
                await storage.bank.tend()
            reservation.used(REAL)
        await call(frozen, expense(), REAL, Flight())
        await frozen.refresh()
        (standing,) = await other.standings("default")
        assert (standing.totals.spent, standing.totals.held) == (100 + 50, 0), "the first at what was set aside, the second as it was"


async def test_while_the_database_is_away_calls_are_refused_or_go_on_and_are_counted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    require_postgres()
    monkeypatch.setattr("chassis.postgres.writing.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.1)
    with private_server() as server:
        url = await server.database("provider_gateway")
        async with replica(url) as (storage, strict), replica(url, Terms(without_bank=True)) as (_, lenient):
            for budgets in (strict, lenient):
                await call(budgets, expense(), REAL, Flight())
                await budgets.refresh()
            server.kill()
            with pytest.raises(StorageUnavailable, match="cannot be reached"):
                await call(strict, expense(300, 300), REAL, Flight())
            with pytest.raises(StorageUnavailable):
                await storage.check()
            await call(lenient, expense(), REAL, Flight())
            await call(lenient, expense(), REAL, Flight())
            server.start()
            await call(strict, expense(), REAL, Flight())
            await lenient.refresh()
            (standing,) = await strict.standings("default")
            assert standing.totals.spent == 5 * 50


@pytest.mark.feature("P10")
async def test_a_target_that_asked_one_replica_to_be_left_alone_is_left_alone_by_all_also_by_one_that_starts_later() -> None:
    require_postgres()
    async with fresh_database("provider_gateway") as url, replica(url) as (one, _), replica(url) as (two, _):
        one.signals.cool("acme/small", 60.0)
        assert 59 < one.signals.cooling("acme/small") <= 60
        while not two.signals.cooling("acme/small"):
            await asyncio.sleep(0.005)
        assert 55 < two.signals.cooling("acme/small") <= 60
        assert two.signals.cooling("acme/large") == 0
        async with replica(url) as (late, _):
            while not late.signals.cooling("acme/small"):
                await asyncio.sleep(0.005)


@pytest.mark.feature("P10")
async def test_without_the_database_a_replica_goes_by_what_it_knows_and_tells_it_when_the_database_is_back() -> None:
    require_postgres()
    with private_server() as server:
        url = await server.database("provider_gateway")
        async with replica(url) as (one, _), replica(url) as (two, _):
            server.kill()
            one.signals.cool("acme/small", 600.0)
            assert one.signals.cooling("acme/small") > 0
            assert two.signals.cooling("acme/small") == 0
            server.start()
            while not two.signals.cooling("acme/small"):
                await asyncio.sleep(0.01)


async def test_an_idle_gateway_says_once_that_budgets_cannot_be_kept_and_once_that_they_are_again(monkeypatch: pytest.MonkeyPatch) -> None:
    require_postgres()
    monkeypatch.setattr("chassis.postgres.writing.PATIENCE_SECONDS", 0.1)
    with private_server() as server, structlog.testing.capture_logs() as logs:
        url = await server.database("provider_gateway")
        async with replica(url) as (_, budgets):
            server.kill()
            for _ in range(3):
                await budgets._tend()
                await budgets._round(is_look=True)
            server.start()
            while "budgets are kept again" not in events(logs):  # the first try may meet the connection that broke
                await budgets._tend()
                await budgets._round(is_look=True)
    told = [event for event in events(logs) if event.startswith("budgets")]
    assert told == ["budgets cannot be kept; calls under a budget are refused", "budgets are kept again"]


def events(logs: list[structlog.typing.EventDict]) -> list[str]:
    return [line["event"] for line in logs]
