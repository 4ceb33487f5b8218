"""Recorded tool loops of every provider run through the whole suite: the server says, and the tools give, what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from behest.event.v1 import event_pb2
from kit.ports import neighbouring_ports
from kit.provider_loops import Loop, loops
from kit.provider_recordings import ABSENT, Recording
from kit.provider_upstream import Conversation, Reply, open_upstream
from suite.composition import SuiteOptions
from suite.embedded import open_suite

LOOPS = loops()
pytestmark = pytest.mark.skipif(not LOOPS, reason=ABSENT)
TOOLS = '''"""Tools that give what was recorded, one result after the other."""

import json
from pathlib import Path
from typing import Any

from tool_executor import tool

RESULTS = json.loads((Path(__file__).parent / "results.json").read_text())

'''


def replay(answer: Recording) -> Reply:
    """The recorded bytes, in two pieces."""

    async def reply(conversation: Conversation) -> None:
        await conversation.head(answer.status, content_type="text/event-stream" if answer.is_stream else "application/json")
        half = len(answer.body) // 2
        await conversation.send(answer.body[:half])
        await conversation.send(answer.body[half:])

    return reply


def write_tools(loop: Loop, folder: Path) -> Path:
    """A module with a function for each tool that the loop calls, which takes what it is called with."""
    arguments: dict[str, dict[str, None]] = {}
    for reading in loop.readings():
        for _, name, text in reading.calls:
            arguments.setdefault(name, {}).update(dict.fromkeys(json.loads(text or "{}")))
    functions = [
        f"@tool\ndef {name}({', '.join(f'{argument}: Any = None' for argument in taken)}) -> str:\n"
        f'    """Give the next result."""\n    return RESULTS.pop(0)\n'
        for name, taken in arguments.items()
    ]
    (folder / "results.json").write_text(json.dumps(loop.results))
    path = folder / "recorded_tools.py"
    path.write_text(TOOLS + "\n\n".join(functions))
    return path


@pytest.mark.feature("P2")
@pytest.mark.feature("P3")
@pytest.mark.feature("R3")
@pytest.mark.parametrize("loop", LOOPS, ids=str)
async def test_a_recorded_loop_comes_to_its_recorded_end(loop: Loop, tmp_path: Path) -> None:
    readings = loop.readings()
    async with open_upstream(*map(replay, loop.answers)) as upstream:
        provider = {"adapter": loop.adapter, "base_url": upstream.url, "api_key": "none"}
        settings = {
            "provider_gateway": {"default_model": f"recorded/{loop.model}", "providers": {"recorded": provider}},
            "orchestrator": {"agents": {"worker": {"tools": ["*"]}}},
            "tool_executor": {"functions": [f"{write_tools(loop, tmp_path)}:*"]},
            "log": {"level": "error"},
        }
        config = tmp_path / "behest.yaml"
        config.write_text(yaml.safe_dump(settings))
        options = SuiteOptions(tmp_path, config, port_base=neighbouring_ports(), local_model=False)
        async with open_suite(options) as suite, suite.client() as client:
            run = await client.run(loop.order, agent="worker")
            events = [event async for event in client.watch(run.run.id)]
    assert kind(events[-1]) == "run_completed", events[-1]
    assert said(events) == "".join(reading.text for reading in readings)
    assert called(events) == [(name, json.loads(text or "{}")) for reading in readings for _, name, text in reading.calls]
    assert [event.tool_execution_finished.result.is_error for event in events if kind(event) == "tool_execution_finished"] == [
        False for _ in loop.results
    ]
    assert len(upstream.received) == len(loop.answers)
    last = upstream.received[-1].document
    assert [wanted for wanted in loop.signatures() if wanted not in strings(last)] == []
    assert [result for result in loop.results if not any(plain(result) in text for text in strings(last))] == []


def said(events: list[event_pb2.Event]) -> str:
    return "".join(event.text_delta.text for event in events)


def called(events: list[event_pb2.Event]) -> list[tuple[str, object]]:
    calls = [event.tool_call_completed.call for event in events if kind(event) == "tool_call_completed"]
    return [(call.name, json.loads(call.arguments)) for call in calls]


def kind(event: event_pb2.Event) -> str | None:
    return event.WhichOneof("kind")


def plain(result: str) -> str:
    """A result's text; Gemini's recordings have it in an object."""
    try:
        document = json.loads(result)
    except ValueError:
        return result
    return str(document["output"]) if isinstance(document, dict) and "output" in document else result


def strings(value: object) -> list[str]:
    """All texts in a document."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []
