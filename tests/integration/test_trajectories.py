"""Twenty recorded agent loops through the whole suite: what the model is sent never diverges from the recording."""

from __future__ import annotations

import inspect
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_service_pb2 as tool_pb
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from suite.addresses import Service
from suite.client import Behest
from suite.composition import SuiteOptions
from suite.embedded import Suite, open_suite
from tool_executor import tool

FOLDER = Path(__file__).parent.parent.parent.parent / "shared" / "trajectories"
RECORDINGS = FOLDER / "airline.jsonl"

pytestmark = pytest.mark.skipif(not RECORDINGS.exists(), reason="optional: the recorded loops are not beside the project")


def recordings() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDINGS.read_text().splitlines()] if RECORDINGS.exists() else []


def scripted(message: dict[str, Any]) -> dict[str, Any]:
    """A recorded message in the words of a script."""
    calls = [
        {"id": c["id"], "name": c["function"]["name"], "arguments": c["function"]["arguments"]} for c in message.get("tool_calls") or []
    ]
    line = {"role": message["role"], "text": message.get("content") or "", "calls": calls, "call_id": message.get("tool_call_id") or ""}
    return {key: value for key, value in line.items() if value}


class Recorded:
    """Answers tool calls with what was recorded, in order; an argument or a name that differs is a divergence."""

    def __init__(self) -> None:
        self.answers: Iterator[tuple[str, Any, str]] = iter(())

    def play(self, messages: list[dict[str, Any]]) -> None:
        calls = [call["function"] for message in messages for call in message.get("tool_calls") or []]
        results = [message["content"] for message in messages if message["role"] == "tool"]
        self.answers = iter([(c["name"], json.loads(c["arguments"]), r) for c, r in zip(calls, results, strict=True)])

    def answer(self, name: str, arguments: dict[str, Any]) -> str:
        recorded_name, recorded_arguments, result = next(self.answers)
        assert (name, arguments) == (recorded_name, recorded_arguments)
        return result


RECORDED = Recorded()


def make_tools(definitions: list[dict[str, Any]]) -> types.ModuleType:
    """A module with a function for each recorded tool."""
    module = types.ModuleType("recorded_tools")
    for definition in definitions:
        setattr(module, definition["name"], _function(definition["name"], definition["parameters"]))
    return module


def _function(name: str, schema: dict[str, Any]) -> Any:
    async def function(**arguments: Any) -> str:
        """Answer what was recorded."""
        return RECORDED.answer(name, arguments)

    keyword = inspect.Parameter.KEYWORD_ONLY
    required = schema.get("required", [])
    parameters = [
        inspect.Parameter(key, keyword, default=inspect.Parameter.empty if key in required else None)
        for key in schema.get("properties", {})
    ]
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {}
    return tool(name=name)(function)


@pytest.fixture
async def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    definitions = [each["function"] for each in json.loads((FOLDER / "airline_tools.json").read_text())["airline"]]
    monkeypatch.setitem(sys.modules, "recorded_tools", make_tools(definitions))
    loops = recordings()
    config = {
        "log": {"level": "warning"},
        "orchestrator": {
            "agents": {
                "airline": {"instructions": loops[0]["messages"][0]["content"], "tools": ["*"], "history": {"max_messages": 1000}},
            },
        },
        "provider_gateway": {
            "default_model": "scripted/recorded",
            "providers": {
                "scripted": {
                    "adapter": "scripted",
                    "script": {"conversations": [[scripted(m) for m in loop["messages"]] for loop in loops]},
                }
            },
        },
        "tool_executor": {"database": "memory:", "functions": [f"recorded_tools:{definition['name']}" for definition in definitions]},
        "session_store": {"database": "memory:"},
    }
    path = tmp_path / "behest.yaml"
    path.write_text(yaml.safe_dump(config))
    async with open_suite(SuiteOptions(data=tmp_path, config=path, local_model=False)) as suite:
        tools = ToolServiceStub(suite.channels[Service.TOOL_EXECUTOR])
        for definition in definitions:
            await tools.RegisterTool(_registration(definition))
        yield suite


def _registration(definition: dict[str, Any]) -> tool_pb.RegisterToolRequest:
    registered = {
        "name": definition["name"],
        "description": definition["description"],
        "parameters": json.dumps(definition["parameters"]).encode(),
    }
    return tool_pb.RegisterToolRequest(tool={"definition": registered, "function": f"recorded_tools:{definition['name']}"})


@pytest.mark.feature("R8")
@pytest.mark.feature("R11")
@pytest.mark.feature("T3")
@pytest.mark.feature("P24")
async def test_twenty_recorded_loops_come_out_as_they_went_in(suite: Suite) -> None:
    """The scripted provider refuses any request that is not the beginning of a recording."""
    async with suite.client() as client:
        for loop in recordings():
            await _play(client, loop["messages"])


async def _play(client: Behest, messages: list[dict[str, Any]]) -> None:
    RECORDED.play(messages)
    session_id = ""
    for place, message in enumerate(messages):
        answered = any(later["role"] == "assistant" for later in messages[place:])
        if message["role"] == "user" and answered:
            session_id = await _say(client, session_id, message["content"], ends_open=_ends_open(messages, place))
    kept = [scripted(_plain(stored.message)) for stored in await client.messages(session_id)]
    last = max(place for place, message in enumerate(messages) if message["role"] in ("assistant", "tool"))
    assert [_loose(m) for m in kept] == [_loose(scripted(m)) for m in messages[1 : last + 1]]


def _ends_open(messages: list[dict[str, Any]], place: int) -> bool:
    """Whether the recording stops after a tool's result, before the model answered."""
    return messages[-1]["role"] == "tool" and not any(m["role"] == "user" for m in messages[place + 1 :])


async def _say(client: Behest, session_id: str, text: str, ends_open: bool) -> str:
    handle = await client.run(text, session_id=session_id)
    last = [event async for event in handle][-1]
    expected = "run_failed" if ends_open else "run_completed"
    assert last.WhichOneof("kind") == expected, last
    return handle.session_id


def _plain(message: chat_pb2.Message) -> dict[str, Any]:
    role = chat_pb2.Role.Name(message.role)[5:].lower()
    calls = [{"id": c.id, "function": {"name": c.name, "arguments": c.arguments.decode()}} for c in message.tool_calls]
    return {
        "role": role,
        "content": "".join(part.text for part in message.parts),
        "tool_calls": calls,
        "tool_call_id": message.tool_call_id,
    }


def _loose(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose arguments are compared as JSON."""
    calls = [{**call, "arguments": json.loads(call["arguments"])} for call in message.get("calls", [])]
    return message | ({"calls": calls} if calls else {})
