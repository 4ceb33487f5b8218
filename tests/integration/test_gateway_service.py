"""The gateway over real gRPC in front of providers over real HTTP: what callers see when all is well and when it is not."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import (
    CallCancelled,
    DeadlineExceeded,
    Fault,
    ModelNotFound,
    ProviderCredentialsMissing,
    ProviderCredentialsRefused,
    ProviderRateLimited,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    RequestInvalid,
    SettingsInvalid,
    StreamIncomplete,
)
from kit.provider_decoding import cut
from kit.provider_gateway import open_gateway, settings_of, steps_of
from kit.provider_requests import ask, ask_stream
from kit.provider_upstream import Conversation, Reply, Upstream, in_two, open_upstream, raw_reply, silence, stream, whole
from kit.provider_wires import ANTHROPIC_STREAM, OPENAI_TEXT, OPENAI_WHOLE, anthropic_sse, openai_sse

KEY = "sk-very-secret-0123456789"
GOOD_STREAM = stream(openai_sse(OPENAI_TEXT))


def openai_at(upstream: Upstream, **fields: Any) -> dict[str, Any]:
    return {"adapter": "openai", "base_url": f"{upstream.url}/v1", "api_key": KEY, **fields}


def text_of(steps: list[provider_pb2.ChatEvent]) -> str:
    return "".join(step.text_delta for step in steps)


def check_silent(fault: Fault) -> None:
    assert KEY not in f"{fault.message} {fault.metadata} {fault!r}"


@pytest.mark.parametrize("carrier", ["grpc", "mux", "local"])
@pytest.mark.feature("P3")
@pytest.mark.feature("P8")
async def test_a_conversation_is_answered_at_once_and_as_a_stream(carrier: str) -> None:
    async with (
        open_upstream(whole(OPENAI_WHOLE), GOOD_STREAM) as upstream,
        open_gateway(settings_of({"acme": openai_at(upstream)}), carrier) as stub,
    ):
        answered = await stub.Chat(ask("hi", "acme/m-1"), timeout=10)
        assert answered.result.message.parts[0].text == "Hi"
        assert answered.result.usage.input_tokens == 3
        steps = await steps_of(stub, ask_stream("hi", "acme/m-1"))
        assert text_of(steps) == "Grüß Gott 🌍"
        assert [step.WhichOneof("event") for step in steps][0 :: len(steps) - 1] == ["started", "finished"]
        assert steps[-1].finished.usage.cache_read_tokens == 16
        assert [received.path for received in upstream.received] == ["/v1/chat/completions"] * 2
        assert {received.headers["authorization"] for received in upstream.received} == {f"Bearer {KEY}"}


async def test_the_other_protocol_is_served_by_the_same_call() -> None:
    async with open_upstream(stream(anthropic_sse(ANTHROPIC_STREAM))) as upstream:
        settings = settings_of({"claude": {"adapter": "anthropic", "base_url": upstream.url, "api_key": KEY}})
        async with open_gateway(settings) as stub:
            finished = (await steps_of(stub, ask_stream("hi", "claude/claude-x")))[-1].finished
    assert finished.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
    assert [call.name for call in finished.message.tool_calls] == ["weather", "now"]
    assert finished.message.parts[0].reasoning.state.data == b"SIG=="
    assert upstream.received[0].headers["x-api-key"] == KEY
    assert upstream.received[0].path == "/v1/messages"


REFUSALS: list[tuple[Reply, type[Fault], int]] = [
    (whole({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401), ProviderCredentialsRefused, 1),
    (whole({"error": {"message": "slow down"}}, 429), ProviderRateLimited, 3),
    (whole({"error": {"message": "oops"}}, 500), ProviderUnavailable, 3),
    (whole(b"<html>Bad Gateway</html>", 502), ProviderUnavailable, 3),
    (whole(b"not json"), ProviderResponseInvalid, 3),
    (whole({"hello": "world"}), ProviderResponseInvalid, 3),
    (whole({"error": {"message": "in a 200", "type": "server_error"}}), ProviderUnavailable, 3),
    (raw_reply(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), ProviderResponseInvalid, 3),
    (raw_reply(b""), ProviderUnavailable, 3),
    (raw_reply(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"), ProviderResponseInvalid, 3),
    (raw_reply(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"id":'), ProviderUnavailable, 3),
]
REFUSAL_IDS = ["401", "429", "500", "502", "text", "other-json", "error-in-200", "not-http", "hangs-up", "redirect", "half-a-body"]


@pytest.mark.feature("P11")
@pytest.mark.feature("P21")
@pytest.mark.parametrize(("reply", "expected", "attempts"), REFUSALS, ids=REFUSAL_IDS)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_whatever_goes_wrong_is_typed_retried_where_it_helps_and_silent_about_keys(
    reply: Reply, expected: type[Fault], attempts: int, streaming: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    async with open_upstream(reply) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)}), "grpc") as stub:
        with pytest.raises(Fault) as caught:
            await (steps_of(stub, ask_stream("hi", "acme/m")) if streaming else stub.Chat(ask("hi", "acme/m"), timeout=10))
    cut_body = streaming and reply is REFUSALS[-1][0]
    assert type(caught.value) is (StreamIncomplete if cut_body else expected)
    assert len(upstream.received) == attempts
    check_silent(caught.value)
    assert KEY not in "".join(capfd.readouterr())


def _events(*documents: bytes) -> bytes:
    return b"".join(b"data: " + document + b"\n\n" for document in documents)


START = openai_sse(OPENAI_TEXT[:2], done=False)
BROKEN: list[tuple[bytes, bool, type[Fault]]] = [
    (b"", True, StreamIncomplete),
    (b"", False, StreamIncomplete),
    (b'data: {"id":"c1","choi', False, StreamIncomplete),
    (b'data: {"id":"c1","choi', True, StreamIncomplete),
    (_events(b"garbage"), True, ProviderResponseInvalid),
    (_events(b'{"error":{"message":"overloaded","type":"overloaded_error"}}'), True, ProviderUnavailable),
    (b"data: " + b"x" * 4000, True, ProviderResponseInvalid),
]
BROKEN_IDS = ["ends", "breaks", "breaks-in-an-event", "ends-in-an-event", "garbage", "error-event", "huge-line"]


@pytest.mark.feature("P7")
@pytest.mark.feature("P12")
@pytest.mark.parametrize(("rest", "end", "expected"), BROKEN, ids=BROKEN_IDS)
async def test_a_stream_that_breaks_after_output_fails_with_what_came_and_is_not_restarted(
    rest: bytes, end: bool, expected: type[Fault]
) -> None:
    seen: list[provider_pb2.ChatEvent] = []
    heard = asyncio.Event()
    async with open_upstream(in_two(START, heard, rest, end=end), GOOD_STREAM) as upstream:
        settings = settings_of({"acme": openai_at(upstream, limits={"event_bytes": 2000})})
        async with open_gateway(settings, "grpc") as stub:
            with pytest.raises(Fault) as caught:
                async for response in stub.StreamChat(ask_stream("hi", "acme/m")):
                    seen += response.events
                    heard.set()
    assert type(caught.value) is expected
    assert text_of(seen) == "Grüß "
    assert len(upstream.received) == 1


@pytest.mark.feature("P12")
@pytest.mark.parametrize("first", [whole({}, 503), stream(openai_sse(OPENAI_TEXT[:1], done=False)), stream(_events(b"garbage"))])
async def test_a_stream_that_breaks_before_output_is_tried_again_unseen(first: Reply) -> None:
    async with open_upstream(first, GOOD_STREAM) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)}), "grpc") as stub:
        steps = await steps_of(stub, ask_stream("hi", "acme/m"))
    assert text_of(steps) == "Grüß Gott 🌍"
    assert [step.WhichOneof("event") for step in steps].count("started") == 1
    assert len(upstream.received) == 2


@pytest.mark.feature("P11")
@pytest.mark.parametrize("header", [{"retry_after": "0.2"}, {"retry_after_ms": "200"}])
async def test_the_wish_to_wait_is_heeded(header: dict[str, str]) -> None:
    async with (
        open_upstream(whole({}, 429, **header), whole(OPENAI_WHOLE)) as upstream,
        open_gateway(settings_of({"acme": openai_at(upstream)}), "grpc") as stub,
    ):
        started = asyncio.get_running_loop().time()
        await stub.Chat(ask("hi", "acme/m"), timeout=10)
        assert asyncio.get_running_loop().time() - started >= 0.2


@pytest.mark.feature("P11")
async def test_a_wish_that_is_not_heeded_is_passed_on_to_the_caller() -> None:
    async with (
        open_upstream(whole({}, 429, retry_after="3600")) as upstream,
        open_gateway(settings_of({"acme": openai_at(upstream)}), "grpc") as stub,
    ):
        with pytest.raises(ProviderRateLimited) as caught:
            await stub.Chat(ask("hi", "acme/m"), timeout=10)
        assert caught.value.retry_after == 3600
        assert len(upstream.received) == 1


@pytest.mark.feature("P13")
@pytest.mark.parametrize(
    ("reply", "limit"),
    [
        (silence(), "first_output_seconds"),
        (silence(b": OPENROUTER PROCESSING\n\n"), "first_output_seconds"),
        (silence(START), "idle_seconds"),
    ],
    ids=["nothing", "comments", "stalls"],
)
async def test_a_provider_that_says_nothing_is_left_in_time_and_its_connection_closed(reply: Reply, limit: str) -> None:
    limits = {"first_output_seconds": 0.15, "idle_seconds": 0.15}
    async with open_upstream(reply) as upstream:
        settings = settings_of({"acme": openai_at(upstream, limits=limits)}, retries={"attempts": 1})
        async with open_gateway(settings, "grpc") as stub:
            with pytest.raises(ProviderTimeout) as caught:
                await steps_of(stub, ask_stream("hi", "acme/m"))
            assert caught.value.metadata["limit"] == limit
            await asyncio.wait_for(upstream.received[0].gone.wait(), 5)


@pytest.mark.feature("P13")
async def test_a_slow_drip_that_keeps_moving_is_let_finish() -> None:
    body = openai_sse(OPENAI_TEXT)
    drip = stream(*cut(body, range(0, len(body), len(body) // 12)), gap=0.06)
    async with open_upstream(drip) as upstream:
        settings = settings_of({"acme": openai_at(upstream, limits={"idle_seconds": 0.5})})
        async with open_gateway(settings, "grpc") as stub:
            assert text_of(await steps_of(stub, ask_stream("hi", "acme/m"))) == "Grüß Gott 🌍"


@pytest.mark.feature("P16")
@pytest.mark.parametrize("carrier", ["grpc", "mux", "local"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_cancelling_the_call_closes_the_upstream_request(carrier: str, streaming: bool) -> None:
    async with open_upstream(silence()) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)}), carrier) as stub:
        work = steps_of(stub, ask_stream("hi", "acme/m")) if streaming else stub.Chat(ask("hi", "acme/m"))
        task = asyncio.ensure_future(work)
        await asyncio.wait_for(upstream.arrived.wait(), 5)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, CallCancelled)):
            await task
        await asyncio.wait_for(upstream.received[0].gone.wait(), 5)


@pytest.mark.feature("P16")
async def test_cancelling_in_the_middle_of_a_stream_closes_the_upstream_request() -> None:
    async with open_upstream(silence(START)) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)}), "grpc") as stub:
        call = stub.StreamChat(ask_stream("hi", "acme/m"))
        async for response in call:
            if text_of(list(response.events)):
                call.cancel()
                break
        await asyncio.wait_for(upstream.received[0].gone.wait(), 5)


@pytest.mark.feature("G5")
@pytest.mark.feature("P16")
async def test_the_callers_deadline_ends_the_upstream_request() -> None:
    async with open_upstream(silence()) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)}), "grpc") as stub:
        with pytest.raises(DeadlineExceeded):
            await stub.Chat(ask("hi", "acme/m"), timeout=0.2)
        await asyncio.wait_for(upstream.received[0].gone.wait(), 5)


@pytest.mark.feature("P8")
async def test_a_server_that_refuses_to_be_asked_for_usage_is_served_without() -> None:
    async def picky(conversation: Conversation) -> None:
        refuses = "stream_options" in conversation.received.document
        refusal = whole({"error": {"message": "Unrecognized request argument supplied: stream_options"}}, 400)
        await (refusal if refuses else GOOD_STREAM)(conversation)

    async with open_upstream(picky) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)})) as stub:
        for _ in range(2):
            assert text_of(await steps_of(stub, ask_stream("hi", "acme/m"))) == "Grüß Gott 🌍"
        assert len(upstream.received) == 3, "it is asked once and never again"


@pytest.mark.feature("P21")
async def test_a_missing_key_is_named_listed_and_noticed_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_KEY", raising=False)
    async with open_upstream(whole(OPENAI_WHOLE)) as upstream:
        acme = openai_at(upstream, api_key="env:ACME_KEY", models={"m": {}})
        async with open_gateway(settings_of({"acme": acme})) as stub:
            with pytest.raises(ProviderCredentialsMissing, match="ACME_KEY"):
                await stub.Chat(ask("hi", "acme/m"), timeout=10)
            assert upstream.received == []
            listed = {p.name: p for p in (await stub.ListProviders(pb.ListProvidersRequest(), timeout=10)).providers}
            assert not listed["acme"].ready
            assert "ACME_KEY" in listed["acme"].problem
            assert (await stub.ListModels(pb.ListModelsRequest(provider="acme"), timeout=10)).models == []
            monkeypatch.setenv("ACME_KEY", KEY)
            assert (await stub.Chat(ask("hi", "acme/m"), timeout=10)).result.message.parts[0].text == "Hi"


@pytest.mark.feature("P21")
async def test_a_key_in_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("first-key\n")
    async with open_upstream(whole(OPENAI_WHOLE)) as upstream:
        acme = openai_at(upstream, api_key=f"file:{secret}")
        async with open_gateway(settings_of({"acme": acme})) as stub:
            await stub.Chat(ask("hi", "acme/m"), timeout=10)
            replacement = tmp_path / "new"
            replacement.write_text("second-key\n")
            os.replace(replacement, secret)
            await stub.Chat(ask("hi", "acme/m"), timeout=10)
    assert [received.headers["authorization"] for received in upstream.received] == ["Bearer first-key", "Bearer second-key"]


@pytest.mark.feature("P21")
async def test_a_header_can_be_a_secret_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_HEADER", raising=False)
    async with open_upstream(whole(OPENAI_WHOLE)) as upstream:
        acme = openai_at(upstream, headers={"x-team": "env:ACME_HEADER", "x-plain": "1"})
        async with open_gateway(settings_of({"acme": acme})) as stub:
            with pytest.raises(ProviderCredentialsMissing, match="ACME_HEADER"):
                await stub.Chat(ask("hi", "acme/m"), timeout=10)
            monkeypatch.setenv("ACME_HEADER", "blue")
            await stub.Chat(ask("hi", "acme/m"), timeout=10)
    assert {name: upstream.received[0].headers[name] for name in ("x-team", "x-plain")} == {"x-team": "blue", "x-plain": "1"}


@pytest.mark.feature("P21")
def test_settings_do_not_show_a_key() -> None:
    settings = settings_of({"acme": {"adapter": "openai", "base_url": "http://127.0.0.1:1", "api_key": KEY, "headers": {"x": KEY}}})
    assert KEY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.feature("P9")
async def test_models_are_listed_live_with_what_is_known_of_them() -> None:
    models = {"qwen": {"capabilities": {"tools": True, "context_tokens": 32000}, "price": {"input": 1, "output": 2}}, "other": {}}
    local = {"adapter": "openai", "base_url": "http://127.0.0.1:1/v1", "models": models}
    async with open_gateway(settings_of({"local": local}, aliases={"fast": "local/qwen"})) as stub:
        listed = (await stub.ListModels(pb.ListModelsRequest(provider="local"), timeout=10)).models
        assert [model.name for model in listed] == ["local/other", "local/qwen"]
        assert listed[1].capabilities.tools
        assert listed[1].capabilities.context_tokens == 32000
        assert listed[1].price.output_nano_usd == 2000
        everything = (await stub.ListModels(pb.ListModelsRequest(), timeout=10)).models
        assert [model.name for model in everything] == ["local/other", "local/qwen", "scripted/echo"]
        with pytest.raises(RequestInvalid, match="no provider 'loacl'"):
            await stub.ListModels(pb.ListModelsRequest(provider="loacl"), timeout=10)
        with pytest.raises(ModelNotFound, match="nearest: fast"):
            await stub.Chat(ask("hi", "fats"), timeout=10)
        with pytest.raises(ProviderUnavailable, match="cannot be reached"):
            await stub.Chat(ask("hi", "fast"), timeout=10)


@pytest.mark.feature("P22")
async def test_a_configured_price_is_charged() -> None:
    async with open_upstream(whole(OPENAI_WHOLE)) as upstream:
        models = {"m": {"price": {"input": 2, "output": 8}}}
        async with open_gateway(settings_of({"acme": openai_at(upstream, models=models)})) as stub:
            usage = (await stub.Chat(ask("hi", "acme/m"), timeout=10)).result.usage
            assert (usage.cost_known, usage.cost_nano_usd) == (True, 3 * 2000 + 1 * 8000)
            assert not (await stub.Chat(ask("hi", "acme/unpriced"), timeout=10)).result.usage.cost_known


@pytest.mark.feature("P24")
async def test_without_any_configuration_a_scripted_provider_answers() -> None:
    async with open_gateway(settings_of({}, default_model="scripted/echo"), "grpc") as stub:
        assert text_of(await steps_of(stub, ask_stream("hello"))) == "hello"
        usage = (await stub.Chat(ask("hello"), timeout=10)).result.usage
        assert (usage.cost_known, usage.cost_nano_usd) == (True, 0)


@pytest.mark.feature("O1")
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"default_model": "nowhere/x"}, "default_model: no model 'nowhere/x'"),
        ({"aliases": {"fast": "opnai/x"}}, "aliases.fast"),
        ({"http": {"ca_file": "/none.pem"}}, "http.ca_file: /none.pem cannot be used"),
        ({"providers": {"s": {"adapter": "scripted", "script": "/none.yaml"}}}, "providers.s.script"),
        ({"providers": {"s": {"adapter": "scripted", "script": {"trns": []}}}}, "trns"),
    ],
)
async def test_settings_that_cannot_work_are_refused_at_the_start(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsInvalid, match=says.replace(".", r"\.")):
        async with open_gateway(settings_of(fields.pop("providers", {}), **fields)):
            pass


async def test_steps_that_come_together_go_out_together_and_the_first_at_once() -> None:
    chunks = [json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": str(n)}}]}).encode() for n in range(40)]
    finish = openai_sse(OPENAI_TEXT[3:])
    reply = stream(*(_events(chunk) for chunk in chunks), finish, gap=0.002)
    async with open_upstream(reply) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)}), "grpc") as stub:
        responses = [response async for response in stub.StreamChat(ask_stream("hi", "acme/m"))]
    assert text_of([step for response in responses for step in response.events]) == "".join(map(str, range(40)))
    assert text_of(list(responses[0].events)).startswith("0")
    assert len(responses) < 20


async def test_the_end_of_a_stream_does_not_wait_for_the_window() -> None:
    body = openai_sse(OPENAI_TEXT)
    first, rest = body[: len(body) // 2], body[len(body) // 2 :]
    heard, text = asyncio.Event(), ""
    async with open_upstream(in_two(first, heard, rest)) as upstream, asyncio.timeout(5):
        settings = settings_of({"acme": openai_at(upstream)}, stream_window_ms=60_000)
        async with open_gateway(settings) as stub:
            async for response in stub.StreamChat(ask_stream("hi", "acme/m")):
                text += text_of(list(response.events))
                heard.set()
    assert text == "Grüß Gott 🌍"
