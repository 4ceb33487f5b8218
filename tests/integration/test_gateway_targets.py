"""Aliases over several providers behind real HTTP: one is down, throttled, cut, dripping; or all are. What callers see of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from behest.provider.v1 import provider_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.faults import (
    BudgetExhausted,
    CapabilityMissing,
    Fault,
    ProviderBusy,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    SettingsInvalid,
    StreamIncomplete,
)
from kit.provider_gateway import open_gateway, settings_of
from kit.provider_requests import ask, ask_stream
from kit.provider_upstream import Reply, Upstream, open_upstream, silence, stream, whole
from kit.provider_wires import OPENAI_TEXT, OPENAI_WHOLE, openai_sse

CIRCUIT = provider_pb2.TargetHealth
DOWN = whole({"error": {"message": "down"}}, 500)
THROTTLED = whole({"error": {"message": "slow down"}}, 429, retry_after="30")
GOOD, GOOD_STREAM = whole(OPENAI_WHOLE), stream(openai_sse(OPENAI_TEXT))
TEXT = "Grüß Gott 🌍"


def at(upstream: Upstream, **fields: Any) -> dict[str, Any]:
    return {"adapter": "openai", "base_url": f"{upstream.url}/v1", "dialect": "vllm", **fields}


def chunk(text: str) -> bytes:
    return openai_sse([{"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": text}}]}], done=False)


@contextlib.asynccontextmanager
async def open_two(
    one: Sequence[Reply], two: Sequence[Reply], **fields: Any
) -> AsyncIterator[tuple[ProviderServiceStub, Upstream, Upstream]]:
    """A gateway whose alias `any` is one/m and, after it, two/m; fields of both providers are in `provider`, of the alias in `alias`."""
    provider, alias = fields.pop("provider", {}), fields.pop("alias", {})
    any_ = {"targets": ["one/m", {"model": "two/m", "tier": 2}], **alias}
    async with open_upstream(*one) as first, open_upstream(*two) as second:
        settings = settings_of({"one": at(first, **provider), "two": at(second, **provider)}, aliases={"any": any_}, **fields)
        async with open_gateway(settings, "grpc") as stub:
            yield stub, first, second


async def health(stub: ProviderServiceStub) -> dict[str, provider_pb2.TargetHealth]:
    """How the targets fare that were called, by provider."""
    listed = (await stub.ListProviders(pb.ListProvidersRequest())).providers
    return {provider.name: provider.targets[0] for provider in listed if provider.targets}


def text_of(steps: Sequence[provider_pb2.ChatEvent]) -> str:
    return "".join(step.text_delta for step in steps)


async def heard(stub: ProviderServiceStub, model: str = "any") -> tuple[list[provider_pb2.ChatEvent], Fault | None]:
    """The steps of a stream as far as it comes, and how it ends."""
    steps: list[provider_pb2.ChatEvent] = []
    try:
        async for response in stub.StreamChat(ask_stream("hi", model)):
            steps += response.events
    except Fault as fault:
        return steps, fault
    return steps, None


@pytest.mark.feature("P12")
@pytest.mark.feature("P14")
async def test_with_one_target_down_every_call_is_answered_and_soon_it_is_not_asked_any_more() -> None:
    async with open_two([DOWN], [GOOD, GOOD, GOOD_STREAM], circuit={"least_calls": 3}) as (stub, one, two):
        for _ in range(2):
            assert (await stub.Chat(ask("hi", "any"), timeout=10)).result.provider == "two"
        for _ in range(5):
            steps, fault = await heard(stub)
            assert (fault, text_of(steps), steps[0].started.provider) == (None, TEXT, "two")
        assert (len(one.received), len(two.received)) == (3, 7)
        found = await health(stub)
    assert (found["one"].circuit, found["one"].last_failure) == (CIRCUIT.CIRCUIT_OPEN, "PROVIDER_UNAVAILABLE")
    assert (found["two"].circuit, found["two"].last_failure, found["two"].in_flight) == (CIRCUIT.CIRCUIT_CLOSED, "", 0)


@pytest.mark.feature("P14")
async def test_a_storm_of_429_is_answered_by_the_other_target_and_the_throttled_one_is_left_alone() -> None:
    async with open_two([THROTTLED], [GOOD]) as (stub, one, two):
        await stub.Chat(ask("hi", "any"), timeout=10)
        answers = await asyncio.gather(*(stub.Chat(ask("hi", "any"), timeout=10) for _ in range(30)))
        assert {answer.result.provider for answer in answers} == {"two"}
        assert (len(one.received), len(two.received)) == (1, 31)
        found = await health(stub)
        assert found["one"].HasField("cooling_until")
        assert found["one"].circuit == CIRCUIT.CIRCUIT_CLOSED
        assert found["one"].last_failure == "PROVIDER_RATE_LIMITED"


@pytest.mark.feature("P11")
@pytest.mark.parametrize(("replies", "expected"), [([DOWN], ProviderUnavailable), ([THROTTLED], ProviderRateLimited)])
async def test_when_all_are_down_the_caller_is_told_of_each_and_that_it_may_retry(replies: list[Reply], expected: type[Fault]) -> None:
    async with open_two(replies, replies, retries={"first_pause_ms": 1, "longest_wish_ms": 10}) as (stub, one, two):
        with pytest.raises(expected) as caught:
            await stub.Chat(ask("hi", "any"), timeout=10)
    assert caught.value.retryable
    assert caught.value.metadata["tried"] == f"one/m: {expected.reason}; two/m: {expected.reason}"
    assert len(one.received) + len(two.received) == (4 if expected is ProviderUnavailable else 2)


CUT = stream(chunk("Grüß "), end=False)


@pytest.mark.feature("P12")
async def test_a_stream_that_is_cut_ends_incomplete_with_what_was_produced_where_nobody_may_go_on() -> None:
    async with open_two([CUT], [GOOD_STREAM]) as (stub, _, two):
        steps, fault = await heard(stub)
    assert isinstance(fault, StreamIncomplete)
    assert text_of(steps) == "Grüß "
    assert two.received == []


@pytest.mark.feature("P12")
async def test_a_stream_that_is_cut_is_gone_on_with_where_that_is_wished_and_the_model_can() -> None:
    able = {"models": {"m": {"capabilities": {"continuing": True}}}}
    rest = stream(chunk(" Gott 🌍") + openai_sse(OPENAI_TEXT[3:]))
    async with open_two([CUT], [rest], provider=able, alias={"continue_after_output": True}) as (stub, one, two):
        steps, fault = await heard(stub)
    assert (fault, text_of(steps)) == (None, TEXT)
    kinds = [step.WhichOneof("event") for step in steps]
    assert (kinds[0], kinds.count("started"), kinds.count("seam"), kinds[-1]) == ("started", 1, 1, "finished")
    seam = next(step.seam for step in steps if step.HasField("seam"))
    assert (seam.provider, seam.model, seam.text_characters, seam.fault.reason) == ("two", "m", 5, "STREAM_INCOMPLETE")
    finished = steps[-1].finished
    assert "".join(part.text for part in finished.message.parts) == TEXT
    assert (list(finished.seams), finished.provider, finished.usage.calls) == ([seam], "two", 2)
    assert finished.usage.input_tokens > 20
    sent = two.received[0].document
    assert sent["messages"][-1] == {"role": "assistant", "content": "Grüß"}
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert len(one.received) == 1


@pytest.mark.feature("P13")
async def test_a_stream_that_drips_is_a_timeout_before_it_is_idle() -> None:
    limits = {"limits": {"minimum_rate": 100_000, "rate_window_seconds": 0.2, "idle_seconds": 30}}
    drip = stream(*[chunk("x")] * 10_000, gap=0.01)
    async with open_two([drip], [GOOD_STREAM], provider=limits) as (stub, _, __):
        steps, fault = await heard(stub, "one/m")
        assert (await health(stub))["one"].in_flight == 0
    assert isinstance(fault, ProviderTimeout)
    assert (fault.metadata["limit"], fault.retryable) == ("minimum_rate", True)
    assert set(text_of(steps)) == {"x"}


@pytest.mark.feature("P14")
async def test_a_second_target_answers_where_the_first_is_slow_and_the_first_request_is_closed() -> None:
    async with open_two([silence()], [GOOD_STREAM, GOOD], alias={"hedge_after_ms": 5}) as (stub, one, _):
        steps, fault = await heard(stub)
        assert (fault, text_of(steps)) == (None, TEXT)
        assert (await stub.Chat(ask("hi", "any"), timeout=10)).result.provider == "two"
        for received in one.received:
            await asyncio.wait_for(received.gone.wait(), 5)
        assert (await health(stub))["one"].in_flight == 0


@pytest.mark.feature("P14")
async def test_a_provider_that_has_all_it_takes_is_busy_with_a_time_to_come_back() -> None:
    full = {"concurrency": {"most": 1, "queue": 0}}
    async with open_two([silence()], [GOOD], provider=full) as (stub, one, _):
        holding = stub.Chat(ask("hi", "one/m"))
        holder = asyncio.ensure_future(holding)
        await asyncio.wait_for(one.arrived.wait(), 5)
        with pytest.raises(ProviderBusy) as caught:
            await stub.Chat(ask("hi", "one/m"), timeout=10)
        assert (caught.value.retry_after, caught.value.metadata["limit"]) == (1.0, "1")
        assert (await stub.Chat(ask("hi", "any"), timeout=10)).result.provider == "two"
        found = await health(stub)
        assert (found["one"].in_flight, found["one"].concurrency_limit) == (1, 1)
        holder.cancel()
        await asyncio.wait([holder])


@pytest.mark.feature("P15")
async def test_counting_tokens_uses_up_no_budget_and_a_used_up_budget_of_one_model_leaves_the_other() -> None:
    budgets = [{"name": "calls", "unit": "requests", "limit": 1, "window": "none", "models": ["one/*"]}]
    async with open_two([GOOD], [GOOD], provider={"dialect": "compatible"}, budgets=budgets) as (stub, _, __):
        for _ in range(3):
            counted = await stub.CountTokens(pb.CountTokensRequest(request=ask("hi", "any")), timeout=10)
            assert counted.input_tokens > 0
        answers = [(await stub.Chat(ask("hi", "any"), timeout=10)).result.provider for _ in range(3)]
        with pytest.raises(BudgetExhausted):
            await stub.Chat(ask("hi", "one/m"), timeout=10)
    assert answers == ["one", "two", "two"]


@pytest.mark.feature("P10")
async def test_what_no_target_has_is_refused_with_what_each_lacks() -> None:
    plain = {"models": {"m": {"capabilities": {}}}}
    async with open_two([GOOD], [GOOD], provider=plain) as (stub, one, two):
        with pytest.raises(CapabilityMissing, match="one/m lacks tools; two/m lacks tools"):
            await stub.Chat(ask("hi", "any", tools=[{"name": "t"}]), timeout=10)
        assert (one.received, two.received) == ([], [])


@pytest.mark.feature("P16")
async def test_a_thousand_streams_that_are_left_in_the_middle_leave_nothing() -> None:
    """No task, no request at the provider, no place at the target."""
    hanging = silence(chunk("Grüß "))
    async with open_upstream(hanging) as upstream, open_gateway(settings_of({"one": at(upstream)})) as stub:
        before = len(asyncio.all_tasks())
        for _ in range(20):
            await asyncio.gather(*(_leave(stub) for _ in range(50)))
        for received in upstream.received:
            await asyncio.wait_for(received.gone.wait(), 10)
        assert len(upstream.received) == 1000
        assert (await health(stub))["one"].in_flight == 0
        await upstream.close()  # its own tasks end with its connections
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= before


async def _leave(stub: ProviderServiceStub) -> None:
    call = stub.StreamChat(ask_stream("hi", "one/m"))
    async for response in call:
        if text_of(response.events):
            break
    call.cancel()
    with contextlib.suppress(Fault, asyncio.CancelledError):
        async for _ in call:
            pass


@pytest.mark.feature("P10")
@pytest.mark.parametrize(
    ("alias", "says"),
    [
        (["opnai/gpt-4o", "scripted/m"], r"aliases\.x: no model 'opnai/gpt-4o'.*nearest: openai/"),
        ({"targets": ["openai/gpt-4o", {"model": "nobody"}]}, r"aliases\.x: no model 'nobody'"),
    ],
)
async def test_an_alias_with_an_unknown_target_is_refused_at_start_with_the_nearest_names(alias: Any, says: str) -> None:
    with pytest.raises(SettingsInvalid, match=says):
        async with open_gateway(settings_of({}, aliases={"x": alias})):
            pass
