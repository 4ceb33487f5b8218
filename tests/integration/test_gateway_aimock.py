"""A tool loop of the whole suite in every provider's words, as aimock says them: a server of other people that plays all providers."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from behest.event.v1 import event_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from kit.ports import free_port, neighbouring_ports
from kit.programs import installed, missing, serving
from kit.provider_gateway import open_gateway, settings_of
from suite.composition import SuiteOptions
from suite.embedded import open_suite

VERSION = "1.43.0"
ANSWER = "Six times seven is forty-two, as the calculator found out."
ORDER = "What is six times seven?"
CALL = {"name": "calculator", "arguments": {"expression": "6 * 7"}}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
PLAN = {
    "fixtures": [
        {"match": {"userMessage": ORDER, "hasToolResult": False}, "response": {"toolCalls": [CALL], "usage": USAGE}},
        {"match": {"userMessage": ORDER, "hasToolResult": True}, "response": {"content": ANSWER, "usage": USAGE}},
    ]
}
PROVIDERS = {
    "openai": {"adapter": "openai", "path": "/v1", "model": "gpt-4o-mini"},
    "openai-responses": {"adapter": "openai-responses", "path": "/v1", "model": "gpt-5-mini"},
    "anthropic": {"adapter": "anthropic", "path": "", "model": "claude-haiku-4-5"},
    "gemini": {"adapter": "gemini", "path": "/v1beta", "model": "gemini-2.5-flash"},
    "ollama": {"adapter": "ollama", "path": "", "model": "llama3.2"},
    "azure": {"adapter": "openai", "dialect": "azure", "path": "", "model": "gpt-4o"},
}

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def program() -> Path:
    return installed("@copilotkit/aimock", VERSION) / "dist" / "cli.js"


@pytest.fixture
async def server(program: Path, tmp_path: Path) -> AsyncIterator[str]:
    """Where aimock listens; what nobody planned it refuses."""
    plan, port = tmp_path / "plan.json", free_port()
    plan.write_text(json.dumps(PLAN))
    command = ["node", str(program), "--port", str(port), "--fixtures", str(plan), "--strict", "--log-level", "silent", "--chunk-size", "7"]
    async with serving(command, port, {"PATH": os.environ["PATH"]}):
        yield f"http://127.0.0.1:{port}"


def provider_at(server: str, name: str) -> dict[str, object]:
    own = PROVIDERS[name]
    dialect = {"dialect": own["dialect"]} if "dialect" in own else {}
    return {"adapter": own["adapter"], "base_url": f"{server}{own['path']}", "api_key": "none", **dialect}


@pytest.mark.feature("P3")
@pytest.mark.feature("P5")
@pytest.mark.feature("P8")
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_tool_loop_runs_in_the_words_of_every_provider(name: str, server: str, tmp_path: Path) -> None:
    settings = {
        "provider_gateway": {"default_model": f"mock/{PROVIDERS[name]['model']}", "providers": {"mock": provider_at(server, name)}},
        "orchestrator": {"agents": {"worker": {"instructions": "Work.", "tools": ["calculator"]}}},
        "log": {"level": "error"},
    }
    config = tmp_path / "behest.yaml"
    config.write_text(yaml.safe_dump(settings))
    options = SuiteOptions(tmp_path, config, port_base=neighbouring_ports(), local_model=False)
    async with open_suite(options) as suite, suite.client() as client:
        run = await client.run(ORDER, agent="worker")
        events = [event async for event in client.watch(run.run.id)]
    assert kind(events[-1]) == "run_completed", events[-1]
    (result,) = [event.tool_execution_finished.result for event in events if kind(event) == "tool_execution_finished"]
    assert not result.is_error and result.full_bytes == len("42")
    assert "".join(event.text_delta.text for event in events) == ANSWER
    used = events[-1].run_completed.usage
    assert (used.calls, used.input_tokens, used.output_tokens) == (2, *((0, 0) if name == "ollama" else (22, 14)))  # its Ollama says zero


@pytest.mark.feature("P5")
@pytest.mark.parametrize("name", PROVIDERS)
async def test_the_same_answer_comes_at_once_and_as_a_stream(name: str, server: str) -> None:
    messages = [{"role": "ROLE_USER", "parts": [{"text": ORDER}]}]
    call = {"id": "call_1aaaaaaa", "name": "calculator", "arguments": b'{"expression": "6 * 7"}'}
    messages += [
        {"role": "ROLE_ASSISTANT", "tool_calls": [call]},
        {"role": "ROLE_TOOL", "tool_call_id": call["id"], "tool_name": "calculator", "parts": [{"text": "42"}]},
    ]
    request = pb.ChatRequest(model=f"mock/{PROVIDERS[name]['model']}", messages=messages)
    async with open_gateway(settings_of({"mock": provider_at(server, name)})) as stub:
        whole = (await stub.Chat(request, timeout=10)).result
        stream = stub.StreamChat(pb.StreamChatRequest(request=request), timeout=10)
        steps = [event async for response in stream for event in response.events]
    assert [part.text for part in whole.message.parts if part.HasField("text")] == [ANSWER]
    assert "".join(step.text_delta for step in steps) == ANSWER
    parts = [[(part.WhichOneof("content"), part.text) for part in result.message.parts] for result in (steps[-1].finished, whole)]
    assert parts[0] == parts[1]  # but for ids, which are new each time
    assert steps[-1].finished.finish_reason == whole.finish_reason


def kind(event: event_pb2.Event) -> str | None:
    return event.WhichOneof("kind")
