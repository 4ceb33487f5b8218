"""Budgets of a gateway as its callers meet them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.faults import BudgetExhausted, PageTokenInvalid, RequestInvalid, SchemaTooOld, SettingsInvalid
from chassis.rpc import Call, call_scope
from chassis.settings import load
from kit.budgets import Flight, call, cap, expense, open_budgets
from kit.postgres import fresh_database, require_postgres
from kit.provider_gateway import open_gateway, settings_of
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.budgets import Cap, Unit
from provider_gateway.operations.budget_list import BudgetList
from provider_gateway.settings import ProviderGatewaySettings

pytestmark = pytest.mark.feature("P15")
USAGE = Usage(input_tokens=10, output_tokens=20)


async def test_a_tenant_sees_the_budgets_that_hold_for_it_also_those_that_nobody_used_yet() -> None:
    budgets = [
        {"name": "spend", "unit": "usd", "limit": 1.5, "window": "1d"},
        {"name": "others", "unit": "requests", "limit": 5, "tenants": ["other*"]},
        {"name": "by key", "unit": "tokens", "limit": 100, "window": "none", "per": ["tenant", "key"], "keys": ["team-*"]},
    ]
    async with open_gateway(settings_of({}, budgets=budgets)) as stub:
        with call_scope(Call(tenant="acme")):
            listed = (await stub.ListBudgets(pb.ListBudgetsRequest())).budgets
            assert [(b.name, dict(b.scope), b.unit, b.window_seconds, b.limit, b.used) for b in listed] == [
                ("spend", {"tenant": "acme"}, provider_pb2.BudgetStatus.UNIT_NANO_USD, 86_400, 1_500_000_000, 0)
            ]
            assert listed[0].resets_at.seconds % 86_400 == 0 and listed[0].resets_at.seconds > 0
            listed = (await stub.ListBudgets(pb.ListBudgetsRequest(budget_key="team-a"))).budgets
            assert [(b.name, dict(b.scope)) for b in listed] == [
                ("by key", {"tenant": "acme", "key": "team-a"}),
                ("spend", {"tenant": "acme"}),
            ]
            assert not listed[0].HasField("resets_at")
            assert [b.name for b in (await stub.ListBudgets(pb.ListBudgetsRequest(budget_key="x"))).budgets] == ["spend"]


def asked(model: str = "scripted/echo", **fields: Any) -> pb.ChatRequest:
    said = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="hello there")])
    sampling = chat_pb2.Sampling(max_output_tokens=50)
    return pb.ChatRequest(model=model, messages=[said], sampling=sampling, **fields)


async def standing(stub: ProviderServiceStub) -> provider_pb2.BudgetStatus:
    (budget,) = (await stub.ListBudgets(pb.ListBudgetsRequest())).budgets
    return budget


async def test_of_200_chats_at_once_a_budget_worth_ten_lets_ten_through_whole_or_streamed() -> None:
    budget = {"name": "few", "unit": "requests", "limit": 10, "window": "none"}
    async with open_gateway(settings_of({}, budgets=[budget])) as stub:

        async def streamed() -> None:
            async for _ in stub.StreamChat(pb.StreamChatRequest(request=asked())):
                pass

        ended = await asyncio.gather(*(stub.Chat(asked()) if number % 2 else streamed() for number in range(200)), return_exceptions=True)
        refused = [error for error in ended if isinstance(error, BudgetExhausted)]
        assert len(refused) == 190
        assert refused[0].metadata["budget"] == "few" and refused[0].retry_after is None and not refused[0].retryable
        budget_now = await standing(stub)
        assert (budget_now.used, budget_now.reserved) == (10, 0)


async def test_two_gateways_on_one_database_share_a_budget_and_what_they_know_of_it() -> None:
    require_postgres()
    budget = {"name": "few", "unit": "requests", "limit": 10, "window": "none"}
    async with fresh_database("provider_gateway") as url:
        settings = settings_of({}, budgets=[budget], database=url)
        async with open_gateway(settings) as one, open_gateway(settings) as two:
            calls = [(one if number % 2 else two).Chat(asked()) for number in range(200)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(error, BudgetExhausted) for error in ended) == 190
            for stub in (one, two, one):  # each tells what it knows when it is asked
                seen = await standing(stub)
            assert (seen.used, seen.reserved, seen.limit) == (10, 0, 10)


async def test_a_gateway_does_not_start_on_a_database_that_was_not_migrated() -> None:
    require_postgres()
    async with fresh_database() as url:
        with pytest.raises(SchemaTooOld, match="no schema of provider_gateway"):
            async with open_gateway(settings_of({}, database=url)):
                pass


async def test_a_stream_that_its_reader_leaves_is_booked_with_its_input_and_what_came() -> None:
    slow = {"adapter": "scripted", "script": {"turns": [{"text": "word " * 400}], "delay_ms": 20}}
    budget = {"name": "tokens", "unit": "tokens", "limit": 10_000, "window": "none"}
    async with open_gateway(settings_of({"scripted": slow}, budgets=[budget])) as stub:
        call, seen = stub.StreamChat(pb.StreamChatRequest(request=asked("scripted/slow"))), 0
        async for response in call:
            seen += sum(len(event.text_delta) for event in response.events)
            if seen >= 32:
                during = await standing(stub)
                assert during.used == 0 and during.reserved >= 50
                call.cancel()
                break
        while (after := await standing(stub)).reserved:
            await asyncio.sleep(0)
        assert after.used >= during.reserved - 50 + 32 // 4


@pytest.mark.parametrize("key", ["k" * 129, "zero\0"])
async def test_a_budget_key_that_cannot_be_a_name_is_refused(key: str) -> None:
    async with open_gateway(settings_of({})) as stub:
        with pytest.raises(RequestInvalid, match="budget_key: at most 128 printable characters"):
            await stub.Chat(asked(budget_key=key))
        with pytest.raises(RequestInvalid, match="budget_key"):
            await stub.Embed(pb.EmbedRequest(inputs=[pb.EmbedInput(text="x")], budget_key=key))


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_budgets_are_listed_in_pages_with_what_is_used_and_what_calls_under_way_hold(backend: str) -> None:
    caps = [Cap("by key", Unit.TOKENS, 1000, 0, per=frozenset({"tenant", "key"})), cap(100)]
    async with open_budgets(backend, caps) as [budgets]:
        for key in ("c", "a", "b"):
            await call(budgets, expense(key=key), USAGE, Flight())
        await call(budgets, expense(key="secret"), USAGE, Flight(), tenant="somebody else")
        listing, seen, token = BudgetList(budgets), list[tuple[str, str, int, int]](), ""
        async with budgets.reserve(expense(key="a")):
            while True:
                page = await listing.page("default", "", 2, token)
                seen += [(b.cap.name, b.bucket.key, b.totals.spent, b.totals.held) for b in page.budgets]
                token = page.next_page_token
                if not token:
                    break
        assert seen == [("by key", "a", 30, 100), ("by key", "b", 30, 0), ("by key", "c", 30, 0), ("cap", "", 3, 1)]
        with pytest.raises(PageTokenInvalid):
            await listing.page("default", "", 0, "nonsense")
        with pytest.raises(RequestInvalid, match="page_size is 1001"):
            await listing.page("default", "", 1001, "")


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"unit": "requests", "limit": 0.5}, "cannot be counted; write a whole number"),
        ({"unit": "requests", "limit": 0}, "greater than 0"),
        ({"unit": "calls", "limit": 1}, "unit"),
        ({"unit": "usd", "limit": 1, "window": "2d"}, "window"),
        ({"unit": "usd", "limit": 1, "per": ["tenants"]}, "per"),
        ({"unit": "usd", "limit": 1, "tenant": "a"}, "tenant"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_at_start_and_names_what_is_wrong(
    budget: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "behest.yaml"
    file.write_text(json.dumps({"provider_gateway": {"budgets": [{"name": "x", **budget}]}}))
    with pytest.raises(SettingsInvalid, match=said):
        load("provider_gateway", ProviderGatewaySettings, file, {})


def test_two_budgets_of_one_name_and_a_database_that_replicas_cannot_share_are_refused() -> None:
    one = {"name": "x", "unit": "usd", "limit": 1}
    with pytest.raises(ValueError, match="the name x is there twice"):
        settings_of({}, budgets=[one, one])
    with pytest.raises(ValueError, match="share nothing in SQLite"):
        settings_of({}, database="sqlite:x.db")
    assert str(settings_of({}, database="").database) == "memory:"
