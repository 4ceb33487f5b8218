"""Budgets for tests: gateways' replicas that share caps, on each backend, and calls that spend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from chassis.rpc import Call, call_scope
from chassis.world import World
from kit.postgres import fresh_database, require_postgres
from provider_gateway.adapters.memory_bank import MemoryBank
from provider_gateway.adapters.postgres import open_postgres_storage
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.budgets import Cap, Unit
from provider_gateway.domain.models import Price
from provider_gateway.operations.bank import Bank
from provider_gateway.operations.budgets import Budgets, Terms, keeping
from provider_gateway.operations.spending import Expense

TERMS = Terms()
BACKENDS = ("memory", "postgres")
PRICE = Price(1000.0, 2000.0)  # nano-dollars a token


def cap(limit: int, unit: Unit = Unit.REQUESTS, **fields: object) -> Cap:
    """A cap called "cap" that never refills, for each tenant."""
    return Cap("cap", unit, limit, 0, **fields)  # type: ignore[arg-type]


def expense(inputs: int = 10, outputs: int | None = 90, key: str = "", price: Price | None = PRICE, model: str = "small") -> Expense:
    """What an attempt may cost: 100 tokens unless said otherwise."""
    return Expense("acme", model, key, inputs, outputs, price)


@asynccontextmanager
async def open_banks(backend: str, count: int) -> AsyncIterator[list[Bank]]:
    """The view of `count` replicas of one bank."""
    if backend == "memory":
        shared = MemoryBank(World().clock, shared=count > 1)
        yield [shared] * count
        return
    require_postgres()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fresh_database("provider_gateway"))
        yield [(await stack.enter_async_context(open_postgres_storage(lambda: url, World()))).bank for _ in range(count)]


@asynccontextmanager
async def open_budgets(backend: str, caps: Sequence[Cap], replicas: int = 1, terms: Terms = TERMS) -> AsyncIterator[list[Budgets]]:
    """Replicas that hold calls to the same caps."""
    async with open_banks(backend, replicas) as banks, AsyncExitStack() as stack:
        yield [await stack.enter_async_context(keeping(Budgets(caps, bank, World(), terms))) for bank in banks]


@dataclass
class Flight:
    """Calls that were let through, and the most that were under way at once."""

    spent: int = 0
    under_way: int = 0
    most: int = 0


async def call(budgets: Budgets, asked: Expense, usage: Usage | None, flight: Flight, tenant: str = "default") -> None:
    """One attempt that consumes usage; the upstream takes a few turns of the loop."""
    with call_scope(Call(tenant=tenant)):
        async with budgets.reserve(asked) as reservation:
            flight.under_way += 1
            flight.most = max(flight.most, flight.under_way)
            for _ in range(3):
                await asyncio.sleep(0)
            if usage is not None:
                reservation.used(usage)
                flight.spent += usage.input_tokens + usage.output_tokens
            flight.under_way -= 1
