"""Mistakes in settings and names, each told at once with what to write instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chassis.faults import RequestInvalid, SettingsInvalid
from chassis.settings import load
from chassis.world import World
from provider_gateway.app import open_app
from provider_gateway.domain.admission import admit
from provider_gateway.domain.chat import ChatRequest, Message, Role, TextPart
from provider_gateway.domain.embeddings import EmbedRequest, admit_embedding
from provider_gateway.settings import ProviderGatewaySettings

pytestmark = pytest.mark.feature("P10")


def acme(**fields: Any) -> dict[str, Any]:
    return {"providers": {"acme": {"adapter": "openai", **fields}}}


def cap(*models: str) -> dict[str, Any]:
    return {"budgets": [{"name": "cap", "unit": "requests", "limit": 1, "models": list(models)}], "aliases": {"fast": "scripted/echo"}}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"aliases": {"a": "b", "b": "a"}}, "it is an alias, which cannot stand here"),
    ({"aliases": {"a": "a"}}, "it is an alias, which cannot stand here"),
    (cap("opena/gpt-4o"), "nearest: openai/gpt-4o"),
    (cap("fast"), "it is an alias"),
    (cap("gpt-4*"), "budgets cap: models: no model 'gpt-4\\*'"),
    (cap("scripted/*", "nobody/*"), "no model 'nobody/\\*'"),
    (acme(base_url="https://me:hunter2@acme.example/v1"), "it holds a user or password"),
    (acme(base_url="https://acme.example/v1?key=1"), "it goes on after the path"),
    (acme(concurrency={"most": 2, "least": 3}), "lower least, or raise most"),
    ({"providers": {"a/b": {"adapter": "scripted"}}}, "cannot be the name of a provider"),
    ({"providers": {"": {"adapter": "scripted"}}}, "cannot be the name of a provider"),
]


@pytest.mark.parametrize(("section", "told"), MISTAKES)
async def test_a_mistake_is_told_before_the_gateway_serves(section: dict[str, Any], told: str, tmp_path: Path) -> None:
    (file := tmp_path / "behest.yaml").write_text(json.dumps({"provider_gateway": section}))
    with pytest.raises(SettingsInvalid, match=told) as caught:
        async with open_app(load("provider_gateway", ProviderGatewaySettings, file, {}), World()):
            pass
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("pattern", ["*", "*/echo", "scripted/*", "script*", "scripte?/echo", "openai/*-mini"])
async def test_patterns_that_hold_for_models_of_some_provider_are_taken(pattern: str) -> None:
    async with open_app(ProviderGatewaySettings.model_validate(cap(pattern)), World()):
        pass


@pytest.mark.parametrize("model", ["acme/" + "x" * 600, "acme/m\n", "acme/\x00", "acme/../../files", "..", "acme/.."])
def test_a_models_name_that_cannot_be_is_refused(model: str) -> None:
    with pytest.raises(RequestInvalid, match="model: "):
        admit(ChatRequest((Message(Role.USER, (TextPart("hi"),)),), model))
    with pytest.raises(RequestInvalid, match="model: "):
        admit_embedding(EmbedRequest(("hi",), model))


@pytest.mark.parametrize("model", ["", "acme/a..b", "acme/ft:gpt-4o:org::id", "acme/projects/p/models/m@1", "acme/größe"])
def test_a_models_name_may_be_what_providers_call_them(model: str) -> None:
    admit(ChatRequest((Message(Role.USER, (TextPart("hi"),)),), model))
