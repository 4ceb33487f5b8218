"""What the gateway's README shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.faults import BudgetExhausted
from chassis.rpc import Call, call_scope, open_channel, open_server
from chassis.settings import load
from chassis.world import World
from kit.provider_gateway import open_gateway, settings_of, steps_of
from kit.provider_requests import ask, ask_stream
from provider_gateway.app import open_app
from provider_gateway.settings import ProviderGatewaySettings
from suite.client import Behest

README = Path(__file__).resolve().parents[2] / "services" / "provider_gateway" / "README.md"
pytestmark = pytest.mark.feature("X6")


def shown(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)[number]


def shown_with(language: str, words: str) -> str:
    """The only block that has these words."""
    (block,) = [block for block in re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL) if words in block]
    return block


async def test_the_program_talks_to_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "behest.yaml"
    config.write_text(shown("yaml"))
    settings = load("provider_gateway", ProviderGatewaySettings, config, {})
    async with open_app(settings, World()) as app, open_server(app, "127.0.0.1:0") as server:
        program: dict[str, Any] = {"__name__": "program"}
        exec(shown("python").replace("127.0.0.1:50052", server.address), program)
        assert await program["main"]() == "Good morning"


async def test_several_targets_behind_one_name_are_configured_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is set, so that the last tier answers."""
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GROQ_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "behest.yaml"
    config.write_text(shown_with("yaml", "hedge_percentile"))
    async with open_gateway(load("provider_gateway", ProviderGatewaySettings, config, {})) as stub:
        answer = (await stub.Chat(ask("Good morning"), timeout=10)).result
        listed = (await stub.ListProviders(pb.ListProvidersRequest(), timeout=10)).providers
    assert (answer.provider, answer.message.parts[0].text) == ("scripted", "Good morning")
    health = {f"{provider.name}/{target.model}": target.last_failure for provider in listed for target in provider.targets}
    assert health == {
        "anthropic/claude-haiku-4-5": "PROVIDER_CREDENTIALS_MISSING",
        "anthropic/claude-sonnet-4-5": "PROVIDER_CREDENTIALS_MISSING",
        "scripted/echo": "",
    }


async def test_vertex_ai_is_configured_as_shown(tmp_path: Path) -> None:
    config = tmp_path / "behest.yaml"
    config.write_text(shown_with("yaml", "vertex:"))
    settings = load("provider_gateway", ProviderGatewaySettings, config, {})
    async with (
        open_app(settings, World()) as app,
        open_server(app, "127.0.0.1:0") as server,
        open_channel(server.address, "grpc") as channel,
    ):
        listed = await ProviderServiceStub(channel).ListProviders(pb.ListProvidersRequest(), timeout=10)
    (vertex,) = [provider for provider in listed.providers if provider.name == "vertex"]
    assert vertex.adapter == "gemini"
    assert "/run/secrets/vertex-bearer" in vertex.problem


async def test_the_script_plays() -> None:
    script = yaml.safe_load(shown_with("yaml", "# script.yaml"))
    async with open_gateway(settings_of({"scripted": {"adapter": "scripted", "script": script}})) as stub:

        async def says(text: str) -> str:
            return "".join(step.text_delta for step in await steps_of(stub, ask_stream(text, "scripted/demo")))

        assert await says("hello") == "Good morning. How can I help?"
        assert await says("Flaky, are you there?") == "At last."
        request = ask("What weather?", "scripted/demo")
        asked = (await stub.Chat(request, timeout=10)).result.message
        assert [call.name for call in asked.tool_calls] == ["weather"]
        result = chat_pb2.Message(role=chat_pb2.ROLE_TOOL, tool_call_id=asked.tool_calls[0].id, parts=[chat_pb2.Part(text="18 C")])
        request.messages.extend([asked, result])
        assert (await stub.Chat(request, timeout=10)).result.message.parts[0].text == "It is 18 degrees in Paris."


async def test_the_client_embeds_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_app(settings_of({}), World()) as app, open_server(app, "127.0.0.1:0") as server:
        program: dict[str, Any] = {"__name__": "program"}
        exec(shown("python", 1), program)
        program["Behest"] = lambda: Behest(dial=lambda service: open_channel(server.address, "grpc"))
        await program["main"]()
    assert re.search(r"(?m)^0\.[1-9]\d alike; 12 tokens, estimated$", capsys.readouterr().out)


async def test_the_providers_of_responses_are_what_is_shown(tmp_path: Path) -> None:
    config = tmp_path / "behest.yaml"
    config.write_text(
        next(block for block in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL) if "openai-responses" in block)
    )
    settings = load("provider_gateway", ProviderGatewaySettings, config, {})
    async with open_gateway(settings) as stub:
        listed = (await stub.ListProviders(pb.ListProvidersRequest(), timeout=10)).providers
    assert {p.name for p in listed if p.adapter == "openai-responses"} == {"openai", "azure", "xai"}


async def test_the_budgets_shown_hold(tmp_path: Path) -> None:
    config = tmp_path / "behest.yaml"
    config.write_text(shown_with("yaml", "budgets:"))
    settings = load("provider_gateway", ProviderGatewaySettings, config, {})
    async with open_gateway(settings) as stub:
        with call_scope(Call(tenant="trial-7")):
            for _ in range(3):
                await stub.Chat(ask("hello"))
            with pytest.raises(BudgetExhausted, match="the budget try out of tenant trial-7 has 0 requests of 3 requests left"):
                await stub.Chat(ask("hello"))
            listed = (await stub.ListBudgets(pb.ListBudgetsRequest())).budgets
            assert [(budget.name, budget.used) for budget in listed if budget.name != "team tokens"] == [("daily spend", 0), ("try out", 3)]
        await stub.Chat(ask("hello"))


@pytest.mark.feature("P17")
async def test_marks_are_set_as_shown() -> None:
    program: dict[str, Any] = {}
    exec(shown_with("python", "CacheMark"), program)
    request = program["request"]
    assert request.messages[0].parts[0].cache.lifetime == chat_pb2.CacheMark.LIFETIME_ONE_HOUR
    request.model = "scripted/echo"
    async with open_gateway(settings_of({})) as gateway:
        answered = await gateway.Chat(pb.ChatRequest.FromString(request.SerializeToString()))
    assert answered.result.message.parts[0].text == "May I smoke?"
