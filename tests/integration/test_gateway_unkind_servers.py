"""Servers that answer rightly and then behave badly, or tell numbers that cannot be: callers get the answer, and bills stay right."""

from __future__ import annotations

from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import Fault, ProviderRateLimited, ProviderResponseInvalid
from chassis.rpc import Call, call_scope
from kit.provider_gateway import open_gateway, settings_of, steps_of
from kit.provider_upstream import open_upstream, silence, stream, whole
from kit.provider_wires import ANTHROPIC_STREAM, OPENAI_TEXT, OPENAI_WHOLE, anthropic_sse, openai_sse


def asked(model: str = "acme/m", **fields: Any) -> pb.ChatRequest:
    said = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="hi")])
    return pb.ChatRequest(model=model, messages=[said], **fields)


STREAMS = {"openai": openai_sse(OPENAI_TEXT), "anthropic": anthropic_sse(ANTHROPIC_STREAM)}


@pytest.mark.feature("P7")
@pytest.mark.parametrize("adapter", STREAMS)
@pytest.mark.parametrize("ending", ["breaks", "lingers"])
async def test_an_answer_that_is_complete_does_not_fail_by_what_the_connection_does_afterwards(adapter: str, ending: str) -> None:
    reply = stream(STREAMS[adapter], end=False) if ending == "breaks" else silence(STREAMS[adapter])
    async with open_upstream(reply) as upstream:
        acme = {"adapter": adapter, "base_url": upstream.url, "api_key": "k", "limits": {"idle_seconds": 30}}
        async with open_gateway(settings_of({"acme": acme})) as stub:
            steps = await steps_of(stub, pb.StreamChatRequest(request=asked()))
    assert steps[-1].HasField("finished")
    assert len(upstream.received) == 1


def counted(tokens: int) -> dict[str, Any]:
    return {**OPENAI_WHOLE, "usage": {"prompt_tokens": tokens, "completion_tokens": tokens, "cost": tokens}}


@pytest.mark.feature("P15")
@pytest.mark.parametrize("unit", ["tokens", "usd"])
async def test_a_negative_usage_gives_nobody_budget_back(unit: str) -> None:
    budgets = [{"name": "cap", "unit": unit, "limit": 1_000_000, "window": "none", "unknown_price": "allow"}]
    async with open_upstream(whole(counted(-500))) as upstream:
        acme = {"adapter": "openai", "base_url": f"{upstream.url}/v1"}
        async with open_gateway(settings_of({"acme": acme}, budgets=budgets)) as stub:
            usage = (await stub.Chat(asked())).result.usage
            (listed,) = (await stub.ListBudgets(pb.ListBudgetsRequest())).budgets
    assert (usage.input_tokens, usage.output_tokens, usage.cost_nano_usd) == (0, 0, 0)
    assert listed.used == 0


@pytest.mark.feature("P8")
async def test_a_usage_that_cannot_be_does_not_cost_the_answer() -> None:
    async with open_upstream(whole(counted(10**20))) as upstream:
        acme = {"adapter": "openai", "base_url": f"{upstream.url}/v1"}
        async with open_gateway(settings_of({"acme": acme})) as stub:
            result = (await stub.Chat(asked())).result
    assert result.message.parts[0].text == "Hi"
    assert result.usage.input_tokens == 2**40


@pytest.mark.feature("P20")
@pytest.mark.parametrize("tokens", [10**20, -1])
async def test_a_count_that_cannot_be_is_the_servers_fault(tokens: int) -> None:
    async with open_upstream(whole({"input_tokens": tokens})) as upstream:
        acme = {"adapter": "anthropic", "base_url": upstream.url, "api_key": "k"}
        async with open_gateway(settings_of({"acme": acme})) as stub:
            with pytest.raises(ProviderResponseInvalid, match="a count"):
                await stub.CountTokens(pb.CountTokensRequest(request=asked()))


@pytest.mark.feature("P21")
@pytest.mark.parametrize("value", ["hunter2hunter2", "Bearer hunter2hunter2"])
async def test_what_a_server_repeats_of_configured_headers_is_not_told(value: str) -> None:
    async with open_upstream(whole({"error": {"message": "who is hunter2hunter2?", "code": "hunter2hunter2"}}, 403)) as upstream:
        acme = {"adapter": "openai", "base_url": f"{upstream.url}/v1", "headers": {"x-token": value}}
        async with open_gateway(settings_of({"acme": acme})) as stub:
            with pytest.raises(Fault) as caught:
                await stub.Chat(asked())
    assert "hunter2" not in caught.value.message + str(caught.value.metadata)


@pytest.mark.feature("P15")
async def test_keys_that_tenants_share_are_not_listed_to_those_who_do_not_know_them() -> None:
    budgets = [{"name": "cap", "unit": "requests", "limit": 100, "window": "none", "per": ["key"]}]
    async with open_gateway(settings_of({}, budgets=budgets)) as stub:
        with call_scope(Call(tenant="one")):
            await stub.Chat(asked("scripted/echo", budget_key="key-of-one"))
        with call_scope(Call(tenant="other")):
            assert not (await stub.ListBudgets(pb.ListBudgetsRequest())).budgets
            (listed,) = (await stub.ListBudgets(pb.ListBudgetsRequest(budget_key="key-of-one"))).budgets
    assert (listed.scope["key"], listed.used) == ("key-of-one", 1)


@pytest.mark.feature("P11")
@pytest.mark.parametrize("wish", ["99999999999999999999", "Wed, 21 Oct 9999 07:28:00 GMT"])
async def test_no_wish_leaves_a_target_alone_for_ever(wish: str) -> None:
    async with open_upstream(whole({"error": {"message": "slow down"}}, 429, retry_after=wish)) as upstream:
        acme = {"adapter": "openai", "base_url": f"{upstream.url}/v1"}
        async with open_gateway(settings_of({"acme": acme})) as stub:
            with pytest.raises(ProviderRateLimited) as caught:
                await stub.Chat(asked())
            providers = (await stub.ListProviders(pb.ListProvidersRequest())).providers
    assert caught.value.retry_after == 86_400
    (target,) = next(provider for provider in providers if provider.name == "acme").targets
    assert target.cooling_until.seconds > 0
