"""What the gateway's README shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from behest.chat.v1 import chat_pb2
from chassis.rpc import open_channel, open_server
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


async def test_the_program_talks_to_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "behest.yaml"
    config.write_text(shown("yaml"))
    settings = load("provider_gateway", ProviderGatewaySettings, config, {})
    async with open_app(settings, World()) as app, open_server(app, "127.0.0.1:0") as server:
        program: dict[str, Any] = {"__name__": "program"}
        exec(shown("python").replace("127.0.0.1:50052", server.address), program)
        assert await program["main"]() == "Good morning"


async def test_the_script_plays() -> None:
    script = yaml.safe_load(shown("yaml", 1))
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
