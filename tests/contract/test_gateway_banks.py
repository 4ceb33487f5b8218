"""What every bank of budgets does, whatever it is made of: caps hold, exactly, over all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from chassis.faults import (
    BudgetExhausted,
    CapabilityMissing,
    ProviderRateLimited,
    ProviderTimeout,
    StreamIncomplete,
)
from chassis.rpc import Call, call_scope
from kit.budgets import BACKENDS, PRICE, Flight, call, cap, expense, open_budgets
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.budgets import Cap, Totals, Unit, heaviest, weight
from provider_gateway.domain.models import Price
from provider_gateway.operations.budgets import Budgets, Terms

pytestmark = pytest.mark.feature("P15")
backends = pytest.mark.parametrize("backend", BACKENDS)
REAL = Usage(input_tokens=10, output_tokens=40)


async def totals(budgets: Budgets, tenant: str = "default") -> Totals:
    """How the only bucket stands."""
    await budgets.refresh()
    (standing,) = await budgets._bank.standings(tenant)
    return standing.totals


async def outcomes(calls: Sequence[object]) -> tuple[int, list[BudgetExhausted]]:
    """How many of the calls were let through, and how the others were refused."""
    ended = await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[call-overload]
    refused = [error for error in ended if isinstance(error, BudgetExhausted)]
    assert [error for error in ended if error is not None and not isinstance(error, BudgetExhausted)] == []
    return len(ended) - len(refused), refused


@backends
@pytest.mark.parametrize("replicas", [1, 3])
async def test_of_200_calls_at_once_a_cap_worth_ten_lets_ten_through(backend: str, replicas: int) -> None:
    async with open_budgets(backend, [cap(10)], replicas) as budgets:
        flight = Flight()
        through, refused = await outcomes([call(budgets[n % replicas], expense(), REAL, flight) for n in range(200)])
        assert (through, len(refused)) == (10, 190)
        assert (await totals(budgets[0])).spent <= 10
        fault = refused[0]
        assert fault.metadata["budget"] == "cap" and fault.metadata["unit"] == "requests" and fault.metadata["limit"] == "10"
        assert fault.metadata["scope"] == "tenant default" and fault.metadata["used"] == "10" and fault.retry_after is None


@backends
@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_cap_in_tokens_sets_the_worst_case_aside_and_gives_the_rest_back(backend: str, replicas: int) -> None:
    async with open_budgets(backend, [cap(1000, Unit.TOKENS)], replicas) as budgets:
        flight = Flight()
        for number in range(19):  # the worst case of 100 fits until 900 are used; each uses 50
            await call(budgets[number % replicas], expense(), REAL, flight)
            await budgets[number % replicas].refresh()
        assert flight.spent == 950
        with pytest.raises(BudgetExhausted, match="has 50 tokens of 1000 tokens left and the call may need 100 tokens"):
            await call(budgets[0], expense(), REAL, flight)
        await budgets[0].refresh()
        await call(budgets[-1], expense(10, 40), REAL, flight)
        assert flight.spent == 1000


@backends
async def test_a_call_dearer_than_its_worst_case_passes_the_cap_by_itself_alone(backend: str) -> None:
    async with open_budgets(backend, [cap(1000, Unit.TOKENS)], 2) as budgets:
        flight, dear = Flight(), Usage(input_tokens=100, output_tokens=400)
        through, _ = await outcomes([call(budgets[n % 2], expense(), dear, flight) for n in range(100)])
        assert through <= 10 and flight.spent <= 1000 + flight.most * 400
        for each in budgets:
            await each.refresh()
        assert (await totals(budgets[0])).spent == flight.spent
        with pytest.raises(BudgetExhausted):
            await call(budgets[1], expense(1, 1), dear, flight)


@backends
async def test_money_counts_by_the_price_and_an_unknown_price_is_refused_or_let_through_as_configured(backend: str) -> None:
    async with open_budgets(backend, [cap(190_000 * 2, Unit.NANO_USD)], 1) as [budgets]:
        flight = Flight()
        await call(budgets, expense(), REAL, flight)  # at most 190 µ$, and really 90
        assert await totals(budgets) == Totals(granted=(await totals(budgets)).granted, spent=PRICE.of(REAL))
        with pytest.raises(CapabilityMissing, match=r"no known price, so the budget cap cannot be kept; set models.*price of its provider"):
            await call(budgets, expense(price=None), REAL, flight)
    async with open_budgets(backend, [cap(1, Unit.NANO_USD, unpriced=True)], 1) as [budgets]:
        await call(budgets, expense(price=None), REAL, Flight())


def test_the_worst_case_in_money_is_a_prompt_that_is_written_to_the_dearest_cache_and_long() -> None:
    plain, cached = Price(1000.0, 5000.0), Price(1000.0, 5000.0, 100.0, 1250.0, longer=((500, Price(2000.0, 7000.0, 200.0, 2500.0)),))
    assert heaviest(Unit.NANO_USD, 100, 10, plain) == 150_000
    assert heaviest(Unit.NANO_USD, 100, 10, cached) == 100 * 2000 + 50_000
    assert heaviest(Unit.NANO_USD, 501, 10, cached) == 501 * 4000 + 70_000
    own = Usage(input_tokens=100, cost_nano_usd=7, cost_known=True)
    assert weight(Unit.NANO_USD, own, plain) == 100_000
    assert weight(Unit.NANO_USD, own, replace(plain, listed=True)) == weight(Unit.NANO_USD, own, None) == 7
    assert heaviest(Unit.TOKENS, 100, 10, cached) == 110 and heaviest(Unit.REQUESTS, 100, 10, None) == 1


@backends
async def test_a_refusal_for_money_speaks_of_dollars(backend: str) -> None:
    async with open_budgets(backend, [cap(150_000, Unit.NANO_USD)], 1) as [budgets]:
        with pytest.raises(BudgetExhausted, match=r"has \$0.00015 of \$0.00015 left and the call may need \$0.00019"):
            await call(budgets, expense(), REAL, Flight())


@backends
async def test_a_budget_is_cut_by_tenant_key_and_model_and_holds_for_whom_it_names(backend: str) -> None:
    caps = [
        Cap("each", Unit.REQUESTS, 1, 0, per=frozenset({"tenant", "key", "model"}), tenants=("a*",), models=("acme/*",)),
        Cap("all", Unit.REQUESTS, 5, 0, per=frozenset()),
    ]
    async with open_budgets(backend, caps, 1) as [budgets]:
        calls = [
            call(budgets, expense(key=key, model=model), REAL, Flight(), tenant)
            for tenant in ("alpha", "beta")
            for key in ("", "team")
            for model in ("small", "large")
        ]
        through, refused = await outcomes(calls)
        assert through == 5 and {fault.metadata["budget"] for fault in refused} == {"all"}
    async with open_budgets(backend, caps[:1], 1) as [budgets]:
        calls = [call(budgets, expense(key="team"), REAL, Flight(), tenant) for tenant in ("alpha", "alpha", "beta", "beta")]
        through, [fault] = await outcomes(calls)
        assert through == 3 and fault.metadata["scope"] == "tenant alpha, key team, model acme/small"


@backends
async def test_of_two_caps_the_one_that_is_reached_refuses_and_the_other_keeps_nothing(backend: str) -> None:
    caps = [Cap("wide", Unit.REQUESTS, 100, 0, per=frozenset()), cap(1)]
    async with open_budgets(backend, caps, 2) as budgets:
        await call(budgets[0], expense(), REAL, Flight())
        for each in budgets:
            with pytest.raises(BudgetExhausted, match="the budget cap of tenant default"):
                await call(each, expense(), REAL, Flight())
            await each.refresh()
        standings = {standing.bucket.name: standing.totals for standing in await budgets[0]._bank.standings("default")}
        assert (standings["wide"].spent, standings["wide"].held) == (1, 0) and standings["cap"].spent == 1


@backends
@pytest.mark.parametrize(
    ("end", "billed"),
    [
        (None, Usage(input_tokens=10, output_tokens=30)),
        (ProviderRateLimited("busy"), None),
        (ProviderTimeout("slow"), Usage(input_tokens=10, output_tokens=30)),
        (StreamIncomplete("cut"), Usage(input_tokens=10, output_tokens=30)),
        (asyncio.CancelledError(), Usage(input_tokens=10, output_tokens=30)),
    ],
    ids=["answered", "refused", "timed out", "cut", "cancelled"],
)
async def test_an_attempt_without_a_report_is_billed_for_what_it_read_and_produced(
    backend: str, end: BaseException | None, billed: Usage | None
) -> None:
    async with open_budgets(backend, [cap(1000, Unit.TOKENS)], 1) as [budgets]:
        with suppress(ProviderRateLimited, ProviderTimeout, StreamIncomplete, asyncio.CancelledError):
            async with budgets.reserve(expense()) as reservation:
                if billed is not None:
                    reservation.produced(100)
                    reservation.produced(20)
                if end is not None:
                    raise end
        expected = 0 if billed is None else billed.input_tokens + billed.output_tokens
        assert await totals(budgets) == Totals((await totals(budgets)).granted, expected, 0)


@backends
async def test_what_a_cut_attempt_produced_after_its_last_report_is_billed_too(backend: str) -> None:
    async with open_budgets(backend, [cap(1000, Unit.TOKENS)], 1) as [budgets]:
        with pytest.raises(StreamIncomplete):
            async with budgets.reserve(expense()) as reservation:
                reservation.used(Usage(input_tokens=12, output_tokens=1))  # as some providers say at the beginning
                reservation.produced(80)
                raise StreamIncomplete("cut")
        assert (await totals(budgets)).spent == 12 + 20


@backends
async def test_a_caller_that_goes_away_while_its_call_waits_leaves_nothing_behind(backend: str) -> None:
    async with open_budgets(backend, [cap(1)], 2) as budgets:
        tasks = [asyncio.create_task(call(budgets[0], expense(), REAL, Flight())) for _ in range(20)]
        for turns, task in enumerate(tasks):
            for _ in range(turns % 5):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait(tasks)
        assert (await totals(budgets[0])).held == 0
        assert not budgets[0]._line


@backends
async def test_a_replica_that_ends_gives_back_what_it_did_not_use(backend: str) -> None:
    async with open_budgets(backend, [cap(1000, Unit.TOKENS)], 2) as budgets:
        for _ in range(3):
            await call(budgets[0], expense(), REAL, Flight())
        await budgets[0].close()
        assert await totals(budgets[1]) == Totals(150, 150, 0)
        await call(budgets[1], expense(100, 750), REAL, Flight())


@backends
async def test_where_nothing_bounds_the_output_the_configured_expectation_is_set_aside(backend: str) -> None:
    async with open_budgets(backend, [cap(1000, Unit.TOKENS)], 1, Terms(unbounded_output=991)) as [budgets]:
        with pytest.raises(BudgetExhausted, match="may need 1001"):
            await call(budgets, expense(10, None), REAL, Flight())
        await call(budgets, expense(9, None), REAL, Flight())


@backends
async def test_a_window_that_turns_begins_anew_and_a_refusal_says_when(backend: str) -> None:
    async with open_budgets(backend, [Cap("cap", Unit.REQUESTS, 1, 60)], 1) as [budgets]:
        bank, moment = budgets._bank, budgets._bank.now()
        bank.now = lambda: moment
        await call(budgets, expense(), REAL, Flight())
        with pytest.raises(BudgetExhausted) as refused:
            await call(budgets, expense(), REAL, Flight())
        assert refused.value.retry_after == pytest.approx(60 - moment % 60)
        moment += refused.value.retry_after or 0.0
        await call(budgets, expense(), REAL, Flight())


@backends
async def test_tenants_do_not_see_each_others_budgets(backend: str) -> None:
    async with open_budgets(backend, [cap(5)], 1) as [budgets]:
        for tenant in ("one", "two"):
            await call(budgets, expense(), REAL, Flight(), tenant)
        await budgets.refresh()
        with call_scope(Call(tenant="one")):
            assert [standing.bucket.tenant for standing in await budgets._bank.standings("one")] == ["one"]
