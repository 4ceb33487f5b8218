"""Callers that go away at any moment: while they wait for a budget or a place, between attempts, beside a hedge, within a stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from chassis.faults import Fault, ProviderRateLimited, ProviderRequestRefused, ProviderUnavailable, StreamIncomplete
from chassis.world import World
from kit.provider_double import ANY, STARTED, Bench, Double, Play, finish
from provider_gateway.adapters.memory_bank import MemoryBank
from provider_gateway.domain.allowance import Claim, Grant
from provider_gateway.domain.answers import ChatEvent, TextDelta
from provider_gateway.domain.budgets import Cap, Unit
from provider_gateway.domain.calls import EndedCall
from provider_gateway.domain.concurrency import ConcurrencyPolicy
from provider_gateway.domain.models import Capabilities, ModelTraits
from provider_gateway.domain.routing import Alias, Choice, Hedge
from provider_gateway.operations.budgets import Budgets, keeping
from provider_gateway.operations.chats import Chats
from provider_gateway.operations.recording import CallRecorder
from provider_gateway.operations.retries import RetryPolicy

pytestmark = [pytest.mark.feature("P16"), pytest.mark.feature("P15")]
CALLS = 60
CONTINUING = ModelTraits(Capabilities(streaming=True, continuing=True))


class SlowBank(MemoryBank):
    """A bank that is shared and takes its time, so that calls wait for it."""

    shared = True

    async def settle(self, claims: Sequence[Claim]) -> Sequence[Grant]:
        await asyncio.sleep(random.random() * 0.002)
        return await super().settle(claims)


@dataclass
class Heard:
    """The calls that were told of."""

    calls: list[EndedCall] = field(default_factory=list)

    def ended(self, call: EndedCall) -> None:
        self.calls.append(call)


def moody(chance: random.Random) -> Play:
    """A provider that fails in every way, at every point of a stream."""

    async def streamed(mood: int) -> AsyncGenerator[Sequence[ChatEvent], None]:
        await asyncio.sleep(chance.random() * 0.004)
        if mood == 0:
            raise ProviderUnavailable("down")
        if mood == 1:
            raise ProviderRateLimited("slow down", retry_after=0.001)
        yield [STARTED]
        await asyncio.sleep(chance.random() * 0.003)
        if mood == 2:
            raise StreamIncomplete("cut before output")
        yield [TextDelta("hello ")]
        await asyncio.sleep(chance.random() * 0.003)
        if mood == 3:
            raise StreamIncomplete("cut after output")
        if mood == 4:
            raise ProviderRequestRefused("refused after output")
        yield finish("hello ")

    return lambda number: streamed(chance.randrange(8))


async def asked(chats: Chats, whole: bool) -> None:
    try:
        if whole:
            await chats.complete(ANY, None)
        else:
            async for _ in chats.stream(ANY, None):
                pass
    except Fault:
        pass


async def left(chats: Chats, number: int, chance: random.Random) -> None:
    """A call whose caller often goes away at some moment of it."""
    task = asyncio.create_task(asked(chats, whole=number % 3 == 0))
    if chance.random() < 0.6:
        await asyncio.wait([task], timeout=chance.random() * 0.012)
        task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("hedge", [None, Hedge(0.002)], ids=["one-by-one", "hedged"])
@pytest.mark.parametrize("seed", range(4))
async def test_no_task_place_or_reservation_is_left_behind(seed: int, hedge: Hedge | None) -> None:
    chance, world, heard = random.Random(seed), World(), Heard()
    caps = [Cap("each", Unit.REQUESTS, 10**6, 0), Cap("few", Unit.REQUESTS, CALLS, 0), Cap("tokens", Unit.TOKENS, 10**9, 0)]
    async with keeping(Budgets(caps, SlowBank(world.clock), world)) as budgets:
        doubles = [Double(moody(chance), name) for name in ("a", "b", "c")]
        bench = Bench(
            doubles[0],
            clock=world.clock,  # type: ignore[arg-type] # the real one
            policy=RetryPolicy(first_pause=0.001, longest_pause=0.002, budget_burst=100),
            traits=CONTINUING,
            recorder=CallRecorder(heard, world),
            others=doubles[1:],
            others_traits={"b": CONTINUING, "c": CONTINUING},
            alias=Alias((Choice("a/m"), Choice("b/m"), Choice("c/m", tier=2)), True, hedge),
            concurrency=ConcurrencyPolicy(most=8, queue=50, queue_seconds=0.02),
            spending=budgets,
            chance=chance.random,
        )
        before, chats = asyncio.all_tasks(), bench.chats()
        await asyncio.gather(*(left(chats, number, chance) for number in range(CALLS)))
        assert asyncio.all_tasks() == before
        assert [status.in_flight for name in "abc" for status in bench.health.statuses(name)] == [0] * 3
        assert [double.closed for double in doubles] == [len(double.calls) for double in doubles]
        assert len(heard.calls) == CALLS, "each call is told of once"
        await budgets.refresh()
        standings = {standing.bucket.name: standing.totals for standing in await budgets.standings("default")}
        assert {totals.held for totals in standings.values()} == {0}
        assert 0 < standings["each"].spent <= sum(len(double.calls) for double in doubles), "no attempt is billed twice"
        assert standings["few"].spent <= CALLS
