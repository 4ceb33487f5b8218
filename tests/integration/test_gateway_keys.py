"""Several API keys of one provider: they take turns, rest when they are turned away, are read again when they change, and never show."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.faults import Fault, ProviderCredentialsMissing, ProviderCredentialsRefused, ProviderRateLimited, SettingsInvalid
from chassis.settings import load
from kit.provider_double import StillClock
from kit.provider_gateway import open_gateway, settings_of
from kit.provider_upstream import Conversation, Upstream, open_upstream
from provider_gateway.adapters.http.keys import LIMITED_SECONDS, REFUSED_SECONDS, Keys
from provider_gateway.settings import ProviderGatewaySettings

pytestmark = pytest.mark.feature("P21")
ANSWER = json.dumps({"id": "1", "model": "m", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()


def answering(refused: dict[str, int]) -> Upstream:
    """Answers every key but those that it refuses with a status."""

    async def reply(conversation: Conversation) -> None:
        key = conversation.received.headers["authorization"].removeprefix("Bearer ")
        status = refused.get(key, 200)
        body = ANSWER if status == 200 else json.dumps({"error": {"message": f"no, {key}"}}).encode()
        await conversation.head(status, content_type="application/json", content_length=str(len(body)))
        await conversation.send(body)

    return Upstream(reply)


def sent(upstream: Upstream) -> list[str]:
    return [received.headers["authorization"].removeprefix("Bearer ") for received in upstream.received]


async def ask(stub: ProviderServiceStub, times: int = 1) -> None:
    said = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="hello")])
    for _ in range(times):
        await stub.Chat(pb.ChatRequest(model="p/m", messages=[said]))


def provider(upstream: Upstream, *keys: str) -> dict[str, object]:
    return {"p": {"adapter": "openai", "base_url": upstream.url, "api_keys": list(keys)}}


async def test_keys_take_turns() -> None:
    async with open_upstream(*answering({}).replies) as upstream, open_gateway(settings_of(provider(upstream, "a", "b", "c"))) as stub:
        await ask(stub, 9)
        assert Counter(sent(upstream)) == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_a_key_that_is_turned_away_rests_and_its_call_goes_on_with_another(status: int) -> None:
    replies = answering({"bad": status}).replies
    async with open_upstream(*replies) as upstream, open_gateway(settings_of(provider(upstream, "bad", "good"))) as stub:
        await ask(stub, 6)
        assert Counter(sent(upstream)) == {"bad": 1, "good": 6}


async def test_when_every_key_is_turned_away_the_call_fails_after_each_was_tried_once() -> None:
    replies = answering({"one": 401, "two": 401}).replies
    async with open_upstream(*replies) as upstream, open_gateway(settings_of(provider(upstream, "one", "two"))) as stub:
        with pytest.raises(ProviderCredentialsRefused):
            await ask(stub)
        assert sorted(sent(upstream)) == ["one", "two"]


async def test_a_file_that_changes_is_read_again_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old\n")
    replies = answering({"old": 401}).replies
    async with open_upstream(*replies) as upstream, open_gateway(settings_of(provider(upstream, f"file:{file}", "spare"))) as stub:
        await ask(stub, 3)
        assert Counter(sent(upstream)) == {"old": 1, "spare": 3}
        file.write_text("brand new\n")
        await ask(stub, 4)
        assert Counter(sent(upstream)[4:]) == {"brand new": 2, "spare": 2}, "a new key does not rest for the old one"


async def test_a_key_that_is_missing_is_named_before_any_call_and_the_others_go_on(tmp_path: Path) -> None:
    replies = answering({}).replies
    async with open_upstream(*replies) as upstream:
        async with open_gateway(settings_of(provider(upstream, "here", f"file:{tmp_path / 'gone'}"))) as stub:
            (listed,) = [p for p in (await stub.ListProviders(pb.ListProvidersRequest())).providers if p.name == "p"]
            assert not listed.ready and str(tmp_path / "gone") in listed.problem and "mount it" in listed.problem
            await ask(stub, 2)
            assert sent(upstream) == ["here", "here"]
        async with open_gateway(settings_of(provider(upstream, "env:NO_SUCH_KEY", f"file:{tmp_path / 'gone'}"))) as stub:
            with pytest.raises(ProviderCredentialsMissing):
                await ask(stub)


async def test_a_key_is_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    secrets = ["unusual-word-one", "unusual-word-two"]
    caplog.set_level(logging.DEBUG)
    replies = answering(dict.fromkeys(secrets, 401)).replies
    told = list[str]()
    async with open_upstream(*replies) as upstream:
        settings = settings_of(provider(upstream, *secrets))
        async with open_gateway(settings) as stub:
            with pytest.raises(Fault) as refused:
                await ask(stub)
            told.append(f"{refused.value!r} {refused.value.message} {refused.value.metadata}")
            told.append(str(await stub.ListProviders(pb.ListProvidersRequest())))
        told += [repr(settings), settings.model_dump_json(), str(settings.model_dump())]
    with pytest.raises(SettingsInvalid) as wrong:
        section = {"p": {"adapter": "openai", "api_keys": [*secrets, ["unusual-word-three"]], "api_key": "unusual-word-four"}}
        file = tmp_path / "behest.yaml"
        file.write_text(json.dumps({"provider_gateway": {"providers": section}}))
        load("provider_gateway", ProviderGatewaySettings, file, {})
    told.append(wrong.value.message)
    captured = capfd.readouterr()
    assert "unusual-word" not in "\n".join([*told, caplog.text, captured.out, captured.err])


def test_one_key_and_several_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="api_key and api_keys are both set"):
        settings_of({"p": {"adapter": "openai", "api_key": "a", "api_keys": ["b"]}})


def test_a_key_rests_as_long_as_the_provider_asked_else_as_its_kind_of_trouble_lasts() -> None:
    clock = StillClock(0.0)
    keys = Keys([lambda: "a", lambda: "b"], clock)

    def rested(fault: Fault) -> float:
        """Seconds until the key that was turned away comes again."""
        assert keys.turned_away("a", fault)
        began = clock.time
        while "a" not in (keys.take(), keys.take()):
            clock.time += 0.5
        return clock.time - began

    assert rested(ProviderRateLimited("slow down", retry_after=2.0)) == 2.0
    assert rested(ProviderRateLimited("slow down")) == LIMITED_SECONDS
    assert rested(ProviderCredentialsRefused("no")) == REFUSED_SECONDS


def test_where_all_rest_the_one_that_is_ready_first_is_taken() -> None:
    clock = StillClock(0.0)
    keys = Keys([lambda: "a", lambda: "b"], clock)
    assert keys.turned_away("a", ProviderRateLimited("slow down", retry_after=5.0))
    assert not keys.turned_away("b", ProviderRateLimited("slow down", retry_after=50.0), ["a", "b"])
    assert {keys.take() for _ in range(4)} == {"a"}


async def test_when_all_keys_are_over_their_limit_the_wait_is_that_of_the_first_one_free() -> None:
    waits = {"a": "2", "b": "50"}

    async def reply(conversation: Conversation) -> None:
        wait = waits[conversation.received.headers["authorization"].removeprefix("Bearer ")]
        await conversation.head(429, content_type="application/json", content_length="2", retry_after=wait)
        await conversation.send(b"{}")

    async with open_upstream(reply) as upstream:
        settings = settings_of(provider(upstream, "a", "b"), retries={"attempts": 1})
        async with open_gateway(settings) as stub:
            with pytest.raises(ProviderRateLimited) as caught:
                await ask(stub)
    assert sorted(sent(upstream)) == ["a", "b"]
    assert caught.value.retry_after is not None and caught.value.retry_after <= 2


@pytest.mark.parametrize("at", ["api_key", "headers.x-token"])
async def test_a_secret_with_a_line_break_is_named_and_not_shown(at: str) -> None:
    secrets = {"api_key": "k", "x": "v"} | ({"api_key": "one\ntwo"} if at == "api_key" else {"x": "one\ntwo"})
    async with open_upstream(*answering({}).replies) as upstream:
        own = {"adapter": "openai", "base_url": upstream.url, "api_key": secrets["api_key"], "headers": {"x-token": secrets["x"]}}
        async with open_gateway(settings_of({"p": own})) as stub:
            with pytest.raises(ProviderCredentialsMissing, match=at) as caught:
                await ask(stub)
    assert "two" not in caught.value.message
    assert not upstream.received
